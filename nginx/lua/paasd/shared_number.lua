-- A number in memory that all workers have, for what each request looks at: a look into a shared dictionary takes a lock.

local ffi = require "ffi"

ffi.cdef "void *mmap(void *address, size_t length, int protection, int flags, int file, long offset);"

local cast, tonumber = ffi.cast, tonumber

local READ_AND_WRITE, SHARED_AND_ANONYMOUS = 0x3, 0x21
local SIZE = 4096        -- bytes: a page

local M = {}

-- An array with the number at 0. The master maps it when `dict` is new, and workers, also those of later configurations,
-- inherit it at the same address.
function M.new(dict, name)
    local address = dict:get("address of " .. name)
    if not address then
        local page = ffi.C.mmap(nil, SIZE, READ_AND_WRITE, SHARED_AND_ANONYMOUS, -1, 0)
        address = tonumber(cast("intptr_t", page))
        assert(address ~= -1, "no memory to share")
        dict:set("address of " .. name, address)
    end
    return cast("volatile double *", cast("uintptr_t", address))
end

return M
