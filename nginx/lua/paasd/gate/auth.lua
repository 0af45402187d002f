-- Lets in only those who say a name and its password. Settings: `{"basic": {"alice": "$pbkdf2-sha256$…"}}`.
--
-- The header is the edge's own then, and never reaches the app.

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

function M.compile(settings, app)
    local users = {}
    for name, text in pairs(settings.basic) do
        users[name] = passwords.parse(text)
    end
    assert(next(users))
    return {access = basic(users, app)}
end

return M
