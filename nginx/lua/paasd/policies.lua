-- What was set for an app's gateway: the table `policy`, one JSON object a line, with a member for each part.
--
-- Parts of the gate are modules `paasd.gate.<part>` that turn their settings into functions; the balancer's are used as
-- they are. An app without a policy has none here.

local json = require "cjson.safe"
local tables = require "paasd.tables"

local table_ = tables.new("policy", ngx.shared.paasd_policies)
local in_turn = require("paasd.calls").in_turn
local concat, ipairs, match = table.concat, ipairs, string.match

-- In the order in which requests pass them.
local GATE = {
    "traffic", "access_log", "addresses", "attack", "limits", "cors", "maintenance", "members", "auth", "routes", "cache",
    "rewrite", "trace", "headers", "sticky",
}

-- Those that let every request pass, at once: who has no others passes before access, where Nginx makes a coroutine. Where
-- these run a part cannot answer, nor wait.
local INSTANT = {
    traffic = true, access_log = true, routes = true, cache = true, rewrite = true, trace = true, headers = true, sticky = true,
}

-- Known to the balancer and what follows it.
local BALANCER = {"balance", "breaker", "eject", "retries", "timeouts"}

local NONE = {}

local M = {table = table_}

local compiled = {}      -- app -> {line, policy}
local checked = {}       -- app -> policy, false for none; until the tables change

tables.on_change(function() checked = {} end)

-- Functions by phase, each of which calls that of one part after the other.
local function gate_of(settings, app)
    local gate = {access = {}, headers = {}, log = {}}
    local used, instant = false, true
    for _, part in ipairs(GATE) do
        if settings[part] ~= nil then
            for phase, call in pairs(require("paasd.gate." .. part).compile(settings[part], app)) do
                gate[phase][#gate[phase] + 1] = call
            end
            used, instant = true, instant and INSTANT[part] or false
        end
    end
    return used and {access = in_turn(gate.access), headers = in_turn(gate.headers), log = in_turn(gate.log)} or nil, instant
end

local function balancer_of(settings)
    local found
    for _, part in ipairs(BALANCER) do
        if settings[part] ~= nil then
            found = found or {}
            found[part] = settings[part]
        end
    end
    return found
end

-- Statuses of answers by which requests are tried elsewhere, as `_502_504`. Not with routes to other apps, whose own errors
-- would be taken for this one's.
local function again_of(settings)
    local found = {}
    for _, failure in ipairs(not settings.routes and settings.retries and settings.retries.on or {}) do
        if match(failure, "^%d+$") then
            found[#found + 1] = failure
        end
    end
    return #found > 0 and "_" .. concat(found, "_") or ""
end

-- Its gate among those in locations.conf.j2.
local function way_of(settings, instant)
    local stale = settings.cache and settings.cache.stale and "_stale"
    return (instant and "@passed" or "@gate") .. (settings.compression and "_compressed" or "") .. (stale or again_of(settings))
end

local function routes_of(settings)
    local found = {}
    for _, prefix in ipairs(settings.traffic and settings.traffic.routes or NONE) do
        found[":" .. prefix] = true
    end
    return found
end

-- Whoever set limits or a password must not have them ignored.
local function unreadable(app, err)
    ngx.log(ngx.ERR, "the policy of ", app, " cannot be read: ", err)
    local function refuse() return ngx.exit(500) end
    return {gate = {access = refuse}, way = "@gate"}
end

local function compile(line, app)
    local settings, err = json.decode(line)
    if type(settings) ~= "table" then
        return unreadable(app, err or "no object")
    end
    local gate, instant = gate_of(settings, app)
    local way = way_of(settings, instant)
    if way ~= "@passed" or settings.grpc then
        gate = gate or {}
    end
    local forward = settings.auth and settings.auth.forward
    return {
        gate = gate, instant = gate and instant, way = way, grpc = settings.grpc, asks = forward and forward.tls,
        balancer = balancer_of(settings), routes = routes_of(settings),
    }
end

local function look(app)
    local line = table_:get(app)
    if not line then
        compiled[app] = nil
        return false
    end
    local found = compiled[app]
    if not found or found.line ~= line then
        local ok, policy = pcall(compile, line, app)
        found = {line = line, policy = ok and policy or unreadable(app, policy)}
        compiled[app] = found
    end
    return found.policy
end

-- {gate = functions by phase, instant = whether they let all pass, way = its location, grpc = whether the app speaks that,
-- asks = whether somebody outside is asked, balancer = settings by part, routes = suffixes of rows}; nil when nothing was
-- set. What did not change since it was compiled stays as it is, with the state its parts keep.
function M.of(app)
    local policy = checked[app]
    if policy == nil then
        policy = look(app)
        checked[app] = policy
    end
    return policy or nil
end

-- Suffixes that an app's routes are counted under, as they are set now.
function M.routes(app)
    tables.refresh()
    local policy = M.of(app)
    return policy and policy.routes or NONE
end

return M
