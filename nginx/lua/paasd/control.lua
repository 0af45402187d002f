-- What paasd asks over the control socket: the tables, counters, requests in flight. Plain lines of text.

local breaker = require "paasd.breaker"
local ejection = require "paasd.ejection"
local certificates = require "paasd.certificates"
local staples = require "paasd.staples"
local own_pages = require "paasd.own_pages"
local hosts = require "paasd.hosts"
local policies = require "paasd.policies"
local routes = require "paasd.routes"
local counters = require "paasd.counters"
local workers = require "paasd.workers"
local asleep = require "paasd.asleep"

local M = {}

local function lines(map, format)
    local text = {}
    for key, value in pairs(map) do
        text[#text + 1] = string.format(format, key, value)
    end
    return table.concat(text)
end

local function body()
    ngx.req.read_body()
    return ngx.req.get_body_data() or ""
end

local function stored(ok, err)
    if not ok then
        ngx.status = 507
        return "the table is full: " .. tostring(err) .. "\n"
    end
    return ""
end

local function in_flight()
    local text = {}
    for name, busy in pairs(workers.in_flight()) do
        text[#text + 1] = string.format("%s %d %d\n", name, busy.requests, busy.streams)
    end
    return table.concat(text)
end

local function change_routes(text)
    for app in text:gmatch("([%w-]+)[^\n]*\n") do
        asleep.forget(app)
    end
    return routes.table:patch(text)
end

local function change_policies(text)
    local before = {}
    for app in text:gmatch("([%w-]+)[^\n]*\n") do
        before[app] = policies.routes(app)
    end
    local ok, err = policies.table:patch(text)
    for app, routes in pairs(before) do
        counters.forget_routes(app, routes)
    end
    return ok, err
end

local collections = {
    ["GET /generation"] = function() return workers.generation .. " " .. workers.oldest_generation() .. "\n" end,
    ["GET /routes"] = function() return lines(routes.table:all(), "%s %s\n") end,
    ["PATCH /routes"] = function() return stored(change_routes(body())) end,
    ["GET /hosts"] = function() return lines(hosts.table:all(), "%s %s\n") end,
    ["PATCH /hosts"] = function() return stored(hosts.table:patch(body())) end,
    ["GET /policies"] = function() return lines(policies.table:all(), "%s %s\n") end,
    ["PATCH /policies"] = function() return stored(change_policies(body())) end,
    ["GET /pages"] = function() return lines(own_pages.table:all(), "%s %s\n") end,
    ["PATCH /pages"] = function() return stored(own_pages.table:patch(body())) end,
    ["GET /counters"] = counters.text,
    ["GET /further-counters"] = function() return counters.further_text() end,
    ["GET /in-flight"] = in_flight,
    ["GET /wanted"] = function() return asleep.wanted(tonumber(ngx.var.arg_seconds) or 0) end,
    ["GET /breakers"] = breaker.text,
    ["GET /ejections"] = ejection.text,
    ["GET /certificates"] = certificates.list,
    ["GET /names"] = certificates.names,
    ["GET /staples"] = certificates.staples,
    ["GET /redirects"] = certificates.redirects,
}

local members = {
    ["PUT /not-woken/"] = function(app) asleep.refuse(app, tonumber(body())) return "" end,
    ["GET /further-counters/"] = counters.further_text,
    ["DELETE /counters/"] = function(app) counters.remove(app) breaker.forget_app(app) return "" end,
    ["PUT /certificates/"] = function(id) return stored(certificates.set(id, body())) end,
    ["DELETE /certificates/"] = function(id) certificates.remove(id) return "" end,
    ["PUT /staples/"] = function(id) return stored(staples.set(id, body())) end,
    ["DELETE /staples/"] = function(id) staples.remove(id) return "" end,
    ["PUT /redirects/"] = function(app) return stored(certificates.set_redirects(app, body())) end,
    ["PUT /challenges/"] = function(token) return stored(certificates.set_challenge(token, body())) end,
    ["DELETE /challenges/"] = function(token) certificates.remove_challenge(token) return "" end,
}

function M.handle()
    local asked = ngx.req.get_method() .. " " .. ngx.var.uri
    local text
    local collection = collections[asked]
    if collection then
        text = collection()
    else
        local prefix, app = asked:match("^(%u+ /[%l-]+/)([%w_-]+)$")
        local member = prefix and members[prefix]
        if not member then
            ngx.status = 404
            text = "unknown request\n"
        else
            text = member(app)
        end
    end
    ngx.header["Content-Type"] = "text/plain"
    ngx.print(text)
end

return M
