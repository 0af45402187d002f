-- Where an app's requests go: the table `route`, and each worker's decoded copy of it.
--
-- A line is `<release> <address>:<port>/<weight> …`. With a canary ` | <release> <percent> <variable or ->
-- <address>:<port>/<weight> …` follows. A sleeping app has `hold=<seconds>` instead of endpoints.

local policies = require "paasd.policies"
local tables = require "paasd.tables"

local table_ = tables.new("route")
local refresh = tables.refresh
local gmatch, match = string.gmatch, string.match
local random = math.random
local tonumber, pairs, ipairs = tonumber, pairs, ipairs

local M = {table = table_}

local decoded = {}      -- app -> {slots, size, position, count, canary, hold, policy}
local endpoints = {}    -- "address:port" -> endpoint; shared by successive versions, since it holds the in-flight count

local function endpoint(address, port)
    local name = address .. ":" .. port
    local found = endpoints[name]
    if not found then
        found = {name = name, address = address, port = tonumber(port), active = 0, streams = 0, down_until = 0}
        endpoints[name] = found
    end
    return found
end

local function gcd(a, b)
    while b > 0 do
        a, b = b, a % b
    end
    return a
end

-- Smooth weighted round robin, worked out once: a request then only takes the next slot.
local function schedule(weighted)
    local divisor, total = 0, 0
    for _, entry in ipairs(weighted) do
        divisor = gcd(entry.weight, divisor)
    end
    for _, entry in ipairs(weighted) do
        entry.weight = entry.weight / divisor
        entry.credit = 0
        total = total + entry.weight
    end
    local slots = {}
    for slot = 1, total do
        local best = weighted[1]
        for _, entry in ipairs(weighted) do
            entry.credit = entry.credit + entry.weight
            if entry.credit > best.credit then
                best = entry
            end
        end
        best.credit = best.credit - total
        slots[slot] = best.endpoint
    end
    return slots
end

local function track(text, is_canary)
    local weighted, release = {}, match(text, "^ ?(%d+)")
    for address, port, weight in gmatch(text, "([%d.]+):(%d+)/(%d+)") do
        weight = tonumber(weight)
        if weight > 0 then
            local found = endpoint(address, port)
            found.canary = is_canary
            if found.plan then
                found.plan, found.down_until = nil, 0     -- the app's next plan takes it, if there is one
            end
            weighted[#weighted + 1] = {endpoint = found, weight = weight}
        end
    end
    if #weighted == 0 then
        return {slots = {}, size = 0, position = 1, count = 0, members = weighted, release = release}
    end
    local slots = schedule(weighted)
    return {
        slots = slots, size = #slots, position = random(#slots), count = #weighted, members = weighted, release = release,
    }
end

-- A route; its canary, if it has one, is a second one with a share of the requests and the variable that chooses.
local function decode(text)
    local stable, rest = match(text or "", "^([^|]*)|?(.*)$")
    local route = track(stable, false)
    route.hold = tonumber(match(stable, " hold=([%d.]+)"))
    local percent, variable = match(rest, "^ %d+ (%d+) (%S+)")
    if percent then
        local canary = track(rest, true)
        canary.percent, canary.credit = tonumber(percent), random(100) - 1
        canary.variable = variable ~= "-" and variable
        route.canary = canary.size > 0 and canary
    end
    return route
end

-- Endpoints that nobody uses go with what was decoded; a busy one stays, so that its count stays right.
tables.on_change(function()
    decoded = {}
    for name, found in pairs(endpoints) do
        if found.active == 0 then
            endpoints[name] = nil
        end
    end
end)

-- The decoded route of an app, never nil, as of this worker's last look into shared memory.
function M.last_of(app)
    local route = decoded[app]
    if not route then
        route = decode(table_:get(app))
        local policy = policies.of(app)
        route.policy = policy and policy.balancer
        decoded[app] = route
    end
    return route
end

-- As of now.
function M.of(app)
    refresh()
    return M.last_of(app)
end

function M.endpoints()
    return endpoints
end

return M
