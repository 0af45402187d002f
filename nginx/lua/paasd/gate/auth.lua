-- Lets in only those who say a name and its password, or whom another service lets in, or both. Settings:
-- `{"basic": {"alice": "$pbkdf2-sha256$…"}, "forward": {"tls": true, "host": "auth.example.org", "port": 443, …}}`.
--
-- With `basic` the header Authorization is the edge's own, and reaches neither the app nor the service.

local forward_auth = require "paasd.forward_auth"
local pages = require "paasd.pages"
local passwords = require "paasd.passwords"

local match, ngx, var = string.match, ngx, ngx.var

local M = {}

local function credentials()
    local encoded = match(var.http_authorization or "", "^[Bb][Aa][Ss][Ii][Cc] +([%w+/]+=*) *$")
    return encoded and ngx.decode_base64(encoded)
end

local function ask_for_password(app)
    ngx.header["WWW-Authenticate"] = 'Basic realm="' .. app .. '", charset="UTF-8"'
    return pages.refuse(401)
end

local function basic(users, app)
    return function()
        local given = credentials()
        if not given then
            return ask_for_password(app)
        end
        local is_right, seconds, status = passwords.check(app, users, given)
        if is_right == nil then
            return pages.refuse(status, status == 429 and "too-many" or "busy", seconds)
        elseif not is_right then
            return ask_for_password(app)
        end
        ngx.req.clear_header("Authorization")
    end
end

local function parsed(users)
    local found = {}
    for name, text in pairs(users) do
        found[name] = passwords.parse(text)
    end
    assert(next(found))
    return found
end

function M.compile(settings, app)
    local check = settings.basic and basic(parsed(settings.basic), app)
    local forward = settings.forward
    assert(check or forward)
    if not forward then
        return {access = check}
    end
    local function access(request)
        if check then
            check()
        end
        request.personal = true
        return forward_auth.access(forward, app, request)
    end
    return {access = access, headers = forward_auth.headers}
end

return M
