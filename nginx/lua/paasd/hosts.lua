-- Which app a host name belongs to, and what is special about it: the table `host`.
--
-- A line is `app <name>`, or `redirect <app> <status> <url prefix>`. `own` after the app's name says that only its own
-- server block may serve it, `clients` that clients need a certificate there, `hsts=<value>` what browsers are told, with
-- `_` for spaces. A key may be `*.<parent>`: a name of its own wins, then the longest parent.

local tables = require "paasd.tables"
local policies = require "paasd.policies"
local redirects_of = require("paasd.certificates").redirects_of

local table_ = tables.new("host")
local find, gsub, match, sub = string.find, string.gsub, string.match, string.sub

local LONGEST = 253              -- of host names; Nginx takes any length, and each dot is a look
local MOST_REMEMBERED = 10000    -- names below wildcards are chosen by whoever asks

local M = {table = table_}

local entries, remembered = {}, 0

tables.on_change(function() entries, remembered = {}, 0 end)

local function is_redirected(app, host)
    local hosts = redirects_of(app)
    return hosts and (hosts[host] or hosts["*" .. (match(host, "^[^.]+(%..+)$") or "")]) or false
end

-- {app, own, clients, hsts, redirect = {status, target}, secure, gate, instant, way, grpc, asks, plain}; nil for what is
-- no line.
local function decode(line, host)
    local app, status, target = match(line, "^redirect (%S+) (%d+) (%S+)$")
    if app then
        return {app = app, redirect = {status = tonumber(status), target = target}, secure = is_redirected(app, host)}
    end
    local flags
    app, flags = match(line, "^app (%S+)(.*)$")
    if not app then
        return nil
    end
    local entry = {app = app, own = find(flags, " own", 1, true), clients = find(flags, " clients", 1, true)}
    local hsts = match(flags, " hsts=(%S+)")
    entry.hsts = hsts and gsub(hsts, "_", " ")
    local policy = policies.of(entry.app)
    entry.gate = policy and policy.gate
    entry.instant = policy and policy.instant
    entry.way = policy and policy.way
    entry.grpc = policy and policy.grpc
    entry.asks = policy and policy.asks
    entry.secure = entry.clients or is_redirected(entry.app, host)
    entry.plain = not entry.gate and not entry.own
    return entry
end

local function line_of(host)
    local line = table_:get(host)
    local position = 1
    while not line do
        position = find(host, ".", position, true)
        if not position then
            return nil
        end
        line = table_:get("*" .. sub(host, position))
        position = position + 1
    end
    return line
end

-- Nil for a name that nobody has, which is not remembered.
function M.find(host)
    local entry = entries[host]
    if entry or not host or #host > LONGEST then
        return entry
    end
    local line = line_of(host)
    entry = line and decode(line, host)
    if not entry then
        return nil
    end
    if remembered == MOST_REMEMBERED then
        entries, remembered = {}, 0
    end
    entries[host], remembered = entry, remembered + 1
    return entry
end

return M
