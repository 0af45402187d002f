-- Owns the shared dictionary `paasd_counters`: what each app was asked and answered since Nginx started.
--
-- A worker adds up in plain tables and hands its sums over a few times a second, which is what makes counting cheaper than
-- a line in an access log.

local balancer = require "paasd.balancer"
local gate = require "paasd.gate"
local routes = require "paasd.routes"
local workers = require "paasd.workers"

local dict = ngx.shared.paasd_counters
local release, route_of, ended = balancer.release, routes.of, gate.ended
local start_time, now = ngx.req.start_time, ngx.now
local floor, format, match = math.floor, string.format, string.match
local tonumber, pairs, ipairs = tonumber, pairs, ipairs
local ngx, var = ngx, ngx.var

-- Upper bounds in milliseconds; a last bucket has the rest.
local BOUNDS = {5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000}
local REQUESTS, CLASS, BYTES_IN, BYTES_OUT, MILLISECONDS, BUCKET = 1, 1, 7, 8, 9, 9
local BUCKETS = #BOUNDS + 1
local FIELDS = BUCKET + BUCKETS

local M = {}

local sums = {}          -- app -> array of FIELDS numbers not handed over yet
local changed = {}       -- app -> true

local function new(app)
    local sum = {}
    for field = 1, FIELDS do
        sum[field] = 0
    end
    sums[app] = sum
    return sum
end

local function slow_bucket(milliseconds)
    for index = 1, BUCKETS - 1 do
        if milliseconds <= BOUNDS[index] then
            return index
        end
    end
    return BUCKETS
end

-- Milliseconds -> bucket, for most requests: a loop in what is compiled for each request ends the trace.
local quick = {}
for milliseconds = 0, 1000 do
    quick[milliseconds] = slow_bucket(milliseconds)
end

-- What canaries are asked and answered is counted again under `<app>~`, and what came while there was nobody to ask under
-- `<app>!`.
local function add(app, status, class)
    local sum = sums[app] or new(app)
    sum[REQUESTS] = sum[REQUESTS] + 1
    sum[CLASS + class] = sum[CLASS + class] + 1
    sum[BYTES_IN] = sum[BYTES_IN] + tonumber(var.request_length)
    sum[BYTES_OUT] = sum[BYTES_OUT] + tonumber(var.bytes_sent)
    if status ~= 101 then
        local milliseconds = floor((now() - start_time()) * 1000 + 0.5)
        local index = BUCKET + (quick[milliseconds] or slow_bucket(milliseconds))
        sum[MILLISECONDS] = sum[MILLISECONDS] + milliseconds
        sum[index] = sum[index] + 1
    end
    changed[app] = true
end

function M.count()
    local endpoint, app = release(), ended()
    if not app then
        return
    end
    local status = ngx.status
    local class = floor(status / 100)
    if class < 1 or class > 5 then
        class = 5
    end
    add(app, status, class)
    if not endpoint then
        if route_of(app).count == 0 then
            add(app .. "!", status, class)
        end
        balancer.refused()
    else
        if endpoint.canary then
            add(app .. "~", status, class)
        end
        if endpoint.plan then
            balancer.ended(endpoint, status)
        end
    end
    if workers.exiting then
        workers.report()
    end
end

-- Hand the sums of this worker over.
function M.flush()
    for app in pairs(changed) do
        local sum = sums[app]
        for field = 1, FIELDS do
            if sum[field] ~= 0 then
                dict:incr(app .. "|" .. field, sum[field], 0)
                sum[field] = 0
            end
        end
        changed[app] = nil
    end
end

-- After what workers had not handed over yet.
function M.remove(app)
    workers.wait()
    for field = 1, FIELDS do
        dict:delete(app .. "|" .. field)
        dict:delete(app .. "~|" .. field)
        dict:delete(app .. "!|" .. field)
    end
end

-- Lines of an app and its fields, after a line with the bounds.
function M.text()
    workers.wait()
    local lines = {table.concat(BOUNDS, " ")}
    for _, key in ipairs(dict:get_keys(0)) do
        local app = match(key, "^(.+)|1$")
        if app then
            local line = {app}
            for field = 1, FIELDS do
                line[field + 1] = format("%.0f", dict:get(app .. "|" .. field) or 0)
            end
            lines[#lines + 1] = table.concat(line, " ")
        end
    end
    return table.concat(lines, "\n") .. "\n"
end

return M
