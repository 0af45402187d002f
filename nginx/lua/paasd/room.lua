-- Whether the disk has room for answers to be kept. A disk that fills while an answer is written to it would cut that
-- answer off, so nothing is written any more some time before.

local ffi = require "ffi"

-- As the GNU C library has it on 64-bit machines.
ffi.cdef [[
struct paasd_statvfs {
    unsigned long f_bsize, f_frsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_favail, f_fsid, f_flag, f_namemax;
    int f_spare[6];
};
int statvfs(const char *path, struct paasd_statvfs *buffer);
]]

local now, tonumber = ngx.now, tonumber

local LEAST = 128 * 1024 * 1024      -- bytes
local INTERVAL = 1       -- seconds between two looks

local M = {}

local buffer = ffi.new("struct paasd_statvfs")
local directory
local looked, room = 0, false

function M.load(path)
    directory = path
end

function M.is_there()
    local time = now()
    if time >= looked + INTERVAL or time < looked then
        looked = time
        room = ffi.C.statvfs(directory, buffer) == 0 and tonumber(buffer.f_bavail * buffer.f_frsize) >= LEAST
    end
    return room
end

return M
