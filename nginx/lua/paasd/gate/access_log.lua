-- Has a line written for each request of an app. Settings: `{"query": false}`: whether with what follows the `?`, which may
-- hold tokens.

local access_log = require "paasd.access_log"

local byte, find, format, gsub, match, sub = string.byte, string.find, string.format, string.gsub, string.match, string.sub
local date, floor, tonumber = os.date, math.floor, tonumber
local ngx, var = ngx, ngx.var

local LONGEST = 2048
local SIGN_IN = "/.paasd/"    -- whose links nobody is to find here

local M = {}

local function escaped(character)
    return format("\\u%04x", byte(character))
end

-- Any bytes as JSON in ASCII; those above it one by one, since a client need not send UTF-8.
local function text(value)
    if not value then
        return "null"
    end
    return '"' .. gsub(sub(value, 1, LONGEST), '[%c"\\\127-\255]', escaped) .. '"'
end

local function time()
    local now = ngx.now()
    local seconds = floor(now)
    return format('%s.%03dZ', date("!%Y-%m-%dT%H:%M:%S", seconds), floor((now - seconds) * 1000))
end

-- Endpoint that answered: the last of those that were tried.
local function upstream()
    return match(var.upstream_addr or "", "([^, ]+)$")
end

local function line(with_query)
    local uri = var.request_uri or ""
    local question = find(uri, "?", 1, true)
    local path, query = question and sub(uri, 1, question - 1) or uri, question and sub(uri, question + 1)
    if sub(var.uri, 1, #SIGN_IN) == SIGN_IN then
        query = nil
    end
    return format(
        '{"time":"%s","id":%s,"client":%s,"method":%s,"scheme":%s,"host":%s,"path":%s,%s"status":%d,"bytes":%d,"received":%d,'
            .. '"seconds":%.3f,"upstream":%s,"agent":%s}\n',
        time(), text(var.paasd_request_id), text(var.remote_addr), text(var.request_method), text(var.scheme),
        text(var.host), text(path), with_query and '"query":' .. text(query) .. "," or "", ngx.status,
        tonumber(var.bytes_sent), tonumber(var.request_length), tonumber(var.request_time), text(upstream()),
        text(var.http_user_agent))
end

function M.compile(settings, app)
    local with_query = settings.query
    return {log = function() access_log.add(app, line(with_query)) end}
end

return M
