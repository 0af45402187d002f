-- Limits requests to a rate, and how many may be under way at a time. Settings:
-- `{"rate": [{"every": 0.05, "burst": 40, "by": "ip", "on": "/login"}], "connections": [{"most": 20, "by": "ip"}]}`, where
-- `by` is ip, path, all, or the name of a header as `header:x-api-key`.
--
-- Keys have 16 bytes, whatever they are made of. Headers and paths are chosen by whoever asks, so their buckets are kept
-- apart from those of addresses, which no invented value can push out, and an address that names ever new values gets NEW
-- times what a rule gives one of them. A client who names no value, or several, goes by address.

local buckets = require "paasd.buckets"
local clients = require "paasd.clients"
local concurrency = require "paasd.concurrency"
local pages = require "paasd.pages"

local is_below = require("paasd.paths").is_below
local match = string.match
local ceil, max, ipairs, type = math.ceil, math.max, ipairs, type
local take, give_back = buckets.take, buckets.give_back
local md5_bin, ngx = ngx.md5_bin, ngx

local of_clients, of_values = ngx.shared.paasd_limits, ngx.shared.paasd_limited_values

local NEW = 10
local BUSY = 1           -- seconds after which to try again when too many requests are under way

local M = {}

local function header(name)
    local value = ngx.req.get_headers(0)[name]
    return type(value) == "string" and value ~= "" and value or nil
end

-- The value that a rule counts by, nil to go by address; and whether whoever asks chooses it.
local function value_of(rule)
    if rule.header then
        local value = header(rule.header)
        return value, value ~= nil
    elseif rule.by == "path" then
        return ngx.var.uri, true
    end
    return rule.by == "all" and "" or nil, false
end

local function key_of(rule, kind, value)
    return md5_bin(rule.id .. kind .. value)
end

local function place_of(rule)
    local value, chosen = value_of(rule)
    if not value then
        return of_clients, key_of(rule, "|ip|", clients.source())
    end
    return chosen and of_values or of_clients, key_of(rule, "|value|", value), chosen
end

local function concerns(rule, path)
    return not rule.on or is_below(path, rule.on)
end

-- Seconds to wait, nil when it may pass; then where its token came from.
local function spend(rule, time)
    local dict, key, chosen = place_of(rule)
    if chosen and not dict:get(key) then
        local newcomer = key_of(rule, "|new|", clients.source())
        local wait = take(of_clients, newcomer, rule.every / NEW, rule.burst * NEW, time)
        if wait then
            return wait
        end
    end
    return take(dict, key, rule.every, rule.burst, time), dict, key
end

local function free() end

-- Function of path and time: seconds to wait, nil when all rules let it pass. What one refuses costs no token of the others.
local function all_of(rules, index)
    local rule = rules[index]
    if not rule then
        return free
    end
    local others = all_of(rules, index + 1)
    return function(path, time)
        if not concerns(rule, path) then
            return others(path, time)
        end
        local wait, dict, key = spend(rule, time)
        local longer = others(path, time)
        if not longer then
            return wait
        elseif not wait then
            give_back(dict, key, rule.every)
            return longer
        end
        return max(wait, longer)
    end
end

local function check_connections(rules, request)
    local path, held = ngx.var.uri, {}
    request.held = held
    for _, rule in ipairs(rules) do
        if concerns(rule, path) then
            local dict, key = place_of(rule)
            if not concurrency.enter(dict, key, rule.most) then
                return pages.refuse(429, "too-many", BUSY)
            end
            held[#held + 1] = {dict, key}
        end
    end
end

-- Rules by their words, so that a bucket stays the rule's own when others come before it.
local function compiled(rules, app, kind)
    for _, rule in ipairs(rules or {}) do
        rule.header = match(rule.by, "^header:(.+)$")
        rule.id = table.concat({app, kind, rule.by, rule.on or "", rule.every or "", rule.burst or ""}, "|")
    end
    return rules or {}
end

function M.compile(settings, app)
    local has_rates, wait_of = settings.rate ~= nil, all_of(compiled(settings.rate, app, "rate"), 1)
    local connections = compiled(settings.connections, app, "connections")
    local part = {}

    function part.access(request)
        local wait = has_rates and wait_of(ngx.var.uri, buckets.now())
        if wait then
            return pages.refuse(429, "too-many", ceil(wait))
        end
        if #connections > 0 then
            check_connections(connections, request)
        end
    end

    if #connections > 0 then
        function part.log(request)
            for _, each in ipairs(request.held or {}) do
                concurrency.leave(each[1], each[2])
            end
        end
    end
    return part
end

return M
