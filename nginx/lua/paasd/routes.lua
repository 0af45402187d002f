-- Owns the route table: the shared dictionary `paasd_routes`, and each worker's decoded copy of it.
--
-- A value is one line of text, `<release> <address>:<port>/<weight> …`; the mirror file has `<app> ` before it. With a
-- canary ` | <release> <percent> <variable or -> <address>:<port>/<weight> …` follows. A sleeping app has `hold=<seconds>`
-- instead of endpoints. Text and not JSON, because the distribution's Lua has no JSON decoder of its own.

local redirects_of = require("paasd.certificates").redirects_of

local dict = ngx.shared.paasd_routes
local gmatch, match = string.gmatch, string.match
local random = math.random
local tonumber, pairs, ipairs = tonumber, pairs, ipairs

local M = {}

local seen              -- version of the table that `decoded` was made from
local decoded = {}      -- app -> {slots, size, position, count, canary, hold}
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

-- Forget what was decoded. Endpoints that nobody uses go with it; a busy one stays, so that its count stays right.
local function forget(version)
    seen = version
    decoded = {}
    for name, found in pairs(endpoints) do
        if found.active == 0 then
            endpoints[name] = nil
        end
    end
end

-- The decoded route of an app, never nil. Costs one look into shared memory unless the table has changed.
function M.of(app)
    local version = dict:get("version")
    if version ~= seen then
        forget(version)
    end
    local route = decoded[app]
    if not route then
        route = decode(dict:get("route:" .. app))
        route.redirects = redirects_of(app)
        local policy = ngx.shared.paasd_balancing:get("stub|" .. app)
        route.policy = policy and require("cjson.safe").decode(policy)
        decoded[app] = route
    end
    return route
end

-- Have every worker decode the routes again.
function M.touch()
    dict:incr("version", 1, 0)
end

function M.endpoints()
    return endpoints
end

local function store(app, text)
    local ok, err = dict:safe_set("route:" .. app, text)
    return ok, err
end

function M.set(app, text)
    local ok, err = store(app, text)
    dict:incr("version", 1, 0)
    return ok, err
end

function M.set_policy(app, text)
    ngx.shared.paasd_balancing:set("stub|" .. app, text)
    M.touch()
    return true
end

function M.remove(app)
    dict:delete("route:" .. app)
    dict:incr("version", 1, 0)
end

-- app -> line, as the running Nginx has them.
function M.all()
    local found = {}
    for _, key in ipairs(dict:get_keys(0)) do
        local app = match(key, "^route:(.+)$")
        if app then
            found[app] = dict:get(key)
        end
    end
    return found
end

-- Make the table equal `text`, lines of `<app> <release> <endpoints>`.
function M.replace(text)
    local wanted = {}
    for app, line in gmatch(text, "([%w-]+) ([^\n]*)\n") do
        wanted[app] = line
        local ok, err = store(app, line)
        if not ok then
            return nil, err
        end
    end
    for app in pairs(M.all()) do
        if not wanted[app] then
            dict:delete("route:" .. app)
        end
    end
    dict:incr("version", 1, 0)
    return true
end

-- At Nginx's own start the table is empty and comes from the mirror; a reload keeps the live one, which may be newer.
function M.load(path)
    if not dict:get("loaded") then
        local file = io.open(path, "r")
        if file then
            M.replace(file:read("*a"))
            file:close()
        end
        dict:set("loaded", true)
    end
end

return M
