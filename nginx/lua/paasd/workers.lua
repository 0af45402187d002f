-- Owns the shared dictionary `paasd_workers`: each worker's report of itself, under its process id.
--
-- A report is `<generation> <exiting> <time>` and a line `<endpoint> <requests> <streams>` for each busy endpoint, of what is
-- under way there. Only its worker writes it, and it is void once that process is gone, so neither a reload nor a killed worker leaves a wrong count.

local ffi = require "ffi"
local routes = require "paasd.routes"

ffi.cdef "int kill(int pid, int sig); int getppid(void);"

local dict = ngx.shared.paasd_workers
local format, concat, gmatch, match = string.format, table.concat, string.gmatch, string.match
local tonumber, ipairs, pairs = tonumber, ipairs, pairs

local INTERVAL = 0.2     -- seconds between reports
local OTHERS = 1         -- seconds for which the list of the others is good
local PATIENCE = 2       -- seconds to wait for a report before going on without

local M = {exiting = false, generation = 0}

local pid, master
local others, others_until = {}, 0
local flush              -- what else a worker hands over with its report: its counters

-- Called in the master at start and at each reload: numbers the configuration, and with it the workers that run it.
function M.new_generation()
    M.generation = dict:incr("generation", 1, 0)
end

function M.report()
    flush()
    local lines = {format("%d %d %.3f", M.generation, M.exiting and 1 or 0, ngx.now())}
    for name, endpoint in pairs(routes.endpoints()) do
        if endpoint.active > 0 then
            lines[#lines + 1] = format("%s %d %d", name, endpoint.active - endpoint.streams, endpoint.streams)
        end
    end
    dict:set(pid, concat(lines, "\n"))
end

-- A worker that is told to quit may have no timers any more: from then on it reports at every request's start and end.
local function tick(premature)
    if premature then
        M.exiting = true
    end
    M.report()
end

function M.start(flush_counters)
    pid, master, flush = ngx.worker.pid(), ffi.C.getppid(), flush_counters
    M.report()
    local ok, err = ngx.timer.every(INTERVAL, tick)
    if not ok then
        ngx.log(ngx.ERR, "no timer for counters: ", err)
    end
end

-- Whether the master was killed: then nobody hears any more what is said in its shared memory.
function M.is_orphan()
    return ffi.C.getppid() ~= master
end

-- Reports of the processes that live; those of dead ones are removed.
local function reports()
    local found = {}
    for _, key in ipairs(dict:get_keys(0)) do
        local process = tonumber(key)
        if process and ffi.C.kill(process, 0) ~= 0 then
            dict:delete(key)
        elseif process then
            local text = dict:get(key) or ""
            local generation, exiting, time = match(text, "^(%d+) (%d) ([%d.]+)")
            found[#found + 1] = {
                process = process, text = text, generation = tonumber(generation), exiting = exiting == "1",
                time = tonumber(time),
            }
        end
    end
    return found
end

-- What a worker's entries are marked with in tables that workers share: a process id comes again, but hardly within a
-- configuration.
function M.name()
    return pid .. "." .. M.generation
end

-- Names of the other workers that live, as of a moment ago.
function M.others()
    local time = ngx.now()
    if time >= others_until or time < others_until - OTHERS then
        others, others_until = {}, time + OTHERS
        for _, report in ipairs(reports()) do
            if report.process ~= pid then
                others[#others + 1] = report.process .. "." .. report.generation
            end
        end
    end
    return others
end

-- Smallest generation whose workers still accept connections.
function M.oldest_generation()
    local oldest = M.generation
    for _, report in ipairs(reports()) do
        if not report.exiting and report.generation < oldest then
            oldest = report.generation
        end
    end
    return oldest
end

local function all_newer(found, time)
    for _, report in ipairs(found) do
        if not report.exiting and report.time <= time then
            return false
        end
    end
    return true
end

-- Reports in which everything that happened before this call is counted.
local function fresh_reports()
    ngx.update_time()
    local asked = ngx.now()
    local found = reports()
    while not all_newer(found, asked) and ngx.now() < asked + PATIENCE do
        ngx.sleep(0.02)
        found = reports()
    end
    return found
end

M.wait = fresh_reports

-- endpoint -> {requests, streams} under way, over all workers.
function M.in_flight()
    local sum = {}
    for _, report in ipairs(fresh_reports()) do
        for name, requests, streams in gmatch(report.text, "\n(%S+) (%d+) (%d+)") do
            local busy = sum[name] or {requests = 0, streams = 0}
            busy.requests = busy.requests + tonumber(requests)
            busy.streams = busy.streams + tonumber(streams)
            sum[name] = busy
        end
    end
    return sum
end

return M
