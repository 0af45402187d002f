-- Writes the access logs of apps that have one: a file each, of JSON lines. Owns the directory `access`, which belongs to the
-- workers' user; paasd reads the files there, and removes old ones.
--
-- A worker keeps its lines until it hands its counters over, and then appends them with one write, so that lines of several
-- workers do not mix and no file stays open. Lines that cannot be written are lost: a full disk is no reason to fail.

local policies = require "paasd.policies"

local concat, pairs = table.concat, pairs

local MOST_BYTES = 16 * 1024 * 1024    -- of a file; the one before it is kept
local MOST_WAITING = 64 * 1024         -- bytes of an app's lines that a worker keeps
local SILENCE = 60                     -- seconds between two complaints

local M = {}

local dict = ngx.shared.paasd_workers
local directory
local waiting = {}                     -- app -> {lines, bytes}
local complained = 0

function M.load(path)
    directory = path
end

local function complain(err)
    if ngx.now() >= complained + SILENCE then
        complained = ngx.now()
        ngx.log(ngx.ERR, "an access log cannot be written: ", err)
    end
end

-- One worker a second makes room, and looks again first: another may just have done so.
local function rotate(app, path)
    if not dict:add("rotated:" .. app, true, 1) then
        return
    end
    local file = io.open(path, "r")
    local size = file and file:seek("end") or 0
    if file then
        file:close()
    end
    if size >= MOST_BYTES then
        os.rename(path, path .. ".1")
    end
end

local function write(app, text)
    local path = directory .. "/" .. app .. ".log"
    local file, err = io.open(path, "a")
    if file and file:seek("end") >= MOST_BYTES then
        file:close()
        rotate(app, path)
        file, err = io.open(path, "a")
    end
    if not file then
        return complain(err)
    end
    file:setvbuf("no")
    local ok, failed = file:write(text)
    if not ok then
        complain(failed)
    end
    file:close()
end

local function flush_app(app)
    local own = waiting[app]
    waiting[app] = nil
    if policies.table:get(app) then    -- what ends after its app was removed makes no new file
        write(app, concat(own.lines))
    end
end

function M.add(app, line)
    local own = waiting[app]
    if not own then
        own = {lines = {}, bytes = 0}
        waiting[app] = own
    end
    own.lines[#own.lines + 1] = line
    own.bytes = own.bytes + #line
    if own.bytes >= MOST_WAITING then
        flush_app(app)
    end
end

function M.flush()
    for app in pairs(waiting) do
        flush_app(app)
    end
end

return M
