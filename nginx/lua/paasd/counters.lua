-- Owns the shared dictionaries `paasd_counters` and `paasd_further_counters`: what each app was asked and answered since
-- Nginx started.
--
-- A worker adds up in plain tables and hands its sums over a few times a second, which is what makes counting cheaper than
-- a line in an access log.
--
-- A row has FIELDS numbers under one name: the app's, `<app>~` for what its canary had, `<app>!` for what came while there
-- was nobody to ask. Parts of the gate have requests counted further under `<app><suffix>`: `:/api` is a route, and a
-- suffix begins with a character that no app's name has. Those have a dictionary of their own, so that they never take the
-- room of apps. A row for which there is no room is not counted, and nothing else suffers.

local balancer = require "paasd.balancer"
local gate = require "paasd.gate"
local policies = require "paasd.policies"
local routes = require "paasd.routes"
local workers = require "paasd.workers"

local of_apps, of_further = ngx.shared.paasd_counters, ngx.shared.paasd_further_counters
local release, route_of, ended = balancer.release, routes.of, gate.ended
local start_time, now = ngx.req.start_time, ngx.now
local byte, find, floor, format, match = string.byte, string.find, math.floor, string.format, string.match
local tonumber, pairs, ipairs = tonumber, pairs, ipairs
local ngx, var = ngx, ngx.var

-- Upper bounds in milliseconds; a last bucket has the rest.
local BOUNDS = {5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000}
local REQUESTS, CLASS, BYTES_IN, BYTES_OUT, MILLISECONDS, BUCKET = 1, 1, 7, 8, 9, 9
local BUCKETS = #BOUNDS + 1
local FIELDS = BUCKET + BUCKETS
local COLON = byte(":")

local M = {}

local sums = {}          -- row -> array of FIELDS numbers not handed over yet
local changed = {}       -- row -> true

local function new(row)
    local sum = {}
    for field = 1, FIELDS do
        sum[field] = 0
    end
    sums[row] = sum
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

local function class_of(status)
    local class = floor(status / 100)
    return class >= 1 and class <= 5 and class or 5
end

-- Of a WebSocket how long it lasted says nothing of the app.
local function milliseconds_of(status)
    return status ~= 101 and floor((now() - start_time()) * 1000 + 0.5) or nil
end

local function add(row, class, bytes_in, bytes_out, milliseconds)
    local sum = sums[row] or new(row)
    sum[REQUESTS] = sum[REQUESTS] + 1
    sum[CLASS + class] = sum[CLASS + class] + 1
    sum[BYTES_IN] = sum[BYTES_IN] + bytes_in
    sum[BYTES_OUT] = sum[BYTES_OUT] + bytes_out
    if milliseconds then
        local index = BUCKET + (quick[milliseconds] or slow_bucket(milliseconds))
        sum[MILLISECONDS] = sum[MILLISECONDS] + milliseconds
        sum[index] = sum[index] + 1
    end
    changed[row] = true
end

function M.count()
    local endpoint, app, gate_app, suffixes = release(), ended()
    if not app then
        return
    end
    local status = ngx.status
    local class, milliseconds = class_of(status), milliseconds_of(status)
    local bytes_in, bytes_out = tonumber(var.request_length), tonumber(var.bytes_sent)
    add(app, class, bytes_in, bytes_out, milliseconds)
    if suffixes then
        for index = 1, #suffixes do
            add(gate_app .. suffixes[index], class, bytes_in, bytes_out, milliseconds)
        end
    end
    if not endpoint then
        if route_of(app).count == 0 then
            add(app .. "!", class, bytes_in, bytes_out, milliseconds)
        end
        balancer.refused()
    else
        if endpoint.canary then
            add(app .. "~", class, bytes_in, bytes_out, milliseconds)
        end
        if endpoint.plan then
            balancer.ended(endpoint, status)
        end
    end
    if workers.exiting then
        workers.report()
    end
end

-- `<app>`, and what follows it in the name of a row.
local function parts_of(row)
    return match(row, "^([%w-]+)(.*)$")
end

local function is_further(row)
    return not find(row, "^[%w-]+[~!]?$")
end

-- Routes come and go; what a worker hands over late of one that is gone must not make its row anew.
local function is_wanted(row)
    local app, suffix = parts_of(row)
    return byte(suffix) ~= COLON or policies.routes(app)[suffix]
end

-- Whether a row is there with all of its fields. The first is made last, so that none without it counts, and none that is
-- there is pushed out.
local function is_there(dict, row)
    if dict:get(row .. "|1") then
        return true
    elseif not is_wanted(row) then
        return false
    end
    for field = FIELDS, 1, -1 do
        local ok, err = dict:safe_add(row .. "|" .. field, 0)
        if not ok and err ~= "exists" then
            return false
        end
    end
    return true
end

local function hand_over(dict, row, sum)
    local there = is_there(dict, row)
    for field = 1, FIELDS do
        if sum[field] ~= 0 then
            if there then
                dict:incr(row .. "|" .. field, sum[field])
            end
            sum[field] = 0
        end
    end
end

-- Hand the sums of this worker over. Those of further rows are not kept for the next time: there may be many.
function M.flush()
    for row in pairs(changed) do
        local further = is_further(row)
        hand_over(further and of_further or of_apps, row, sums[row])
        if further then
            sums[row] = nil
        end
        changed[row] = nil
    end
end

local function forget(dict, row)
    for field = 1, FIELDS do
        dict:delete(row .. "|" .. field)
    end
end

-- Names of the rows that there are.
local function rows(dict)
    local found = {}
    for _, key in ipairs(dict:get_keys(0)) do
        found[#found + 1] = match(key, "^(.+)|1$")
    end
    return found
end

-- After what workers had not handed over yet.
function M.remove(app)
    workers.wait()
    for _, row in ipairs({app, app .. "~", app .. "!"}) do
        forget(of_apps, row)
    end
    for _, row in ipairs(rows(of_further)) do
        if parts_of(row) == app then
            forget(of_further, row)
        end
    end
end

-- Rows of those of an app's routes that it has no more.
function M.forget_routes(app, routes)
    local now_set = policies.routes(app)
    for suffix in pairs(routes) do
        if not now_set[suffix] then
            forget(of_further, app .. suffix)
        end
    end
end

-- Lines of rows and their fields, after a line with the bounds.
local function text_of(dict, wanted)
    local lines = {table.concat(BOUNDS, " ")}
    for _, row in ipairs(rows(dict)) do
        if not wanted or parts_of(row) == wanted then
            local line = {row}
            for field = 1, FIELDS do
                line[field + 1] = format("%.0f", dict:get(row .. "|" .. field) or 0)
            end
            lines[#lines + 1] = table.concat(line, " ")
        end
    end
    return table.concat(lines, "\n") .. "\n"
end

function M.text()
    workers.wait()
    return text_of(of_apps)
end

-- Of one app, or of all.
function M.further_text(app)
    workers.wait()
    return text_of(of_further, app)
end

return M
