-- Lets in only clients that have proved some work, so that a flood of requests ends here. Settings: `{"bits": 18}`.
--
-- Who has no pass gets a page, whose script looks for a number that makes a hash of the challenge begin with so many zero
-- bits, and sends it in a header; a pass is the answer, as a cookie. Challenge and pass are signed, and hold for one app,
-- one address (or IPv6 network) and a while. Nothing is kept of either.

local b64 = require "ngx.base64"
local clients = require "paasd.clients"
local pages = require "paasd.pages"
local secret = require "paasd.secret"

local byte, find, format, lower, match = string.byte, string.find, string.format, string.lower, string.match
local floor, tonumber, ngx, var = math.floor, tonumber, ngx, ngx.var

local COOKIE = "paasd_pass"
local PASS = 3600        -- seconds
local CHALLENGE = 300
local RETRY = 10

local M = {}

-- `<time until which it holds>.<signature>`
local function signed(kind, app, time)
    local text = format("%s|%s|%d|", kind, app, time) .. clients.source()
    return format("%d.%s", time, b64.encode_base64url(secret.sign(text)))
end

local function holds(kind, app, text)
    local time = tonumber(match(text, "^(%d%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?)%."))
    return time and time > ngx.time() and secret.equal(text, signed(kind, app, time))
end

local function has_zeros(hash, bits)
    local whole = floor(bits / 8)
    for index = 1, whole do
        if byte(hash, index) ~= 0 then
            return false
        end
    end
    return byte(hash, whole + 1) < 2 ^ (8 - bits % 8)
end

-- `<challenge>.<number>`
local function is_proof(app, bits, text)
    local challenge = match(text, "^(%d+%.[%w_-]+)%.%d+$")
    return challenge and #text < 100 and has_zeros(ngx.sha1_bin(text), bits) and holds("challenge", app, challenge)
end

local function give_pass(app)
    local pass = signed("pass", app, ngx.time() + PASS)
    local secure = var.https == "on" and "; Secure" or ""
    ngx.status = 204
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Set-Cookie"] = format("%s=%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%s", COOKIE, pass, PASS, secure)
    return ngx.exit(204)
end

local function is_browser()
    return ngx.req.get_method() == "GET" and find(lower(var.http_accept or ""), "text/html", 1, true)
end

function M.compile(settings)
    local bits = settings.bits

    local function access(request)
        local app, pass, proof = request.gate, var["cookie_" .. COOKIE], var.http_x_paasd_proof
        if pass and holds("pass", app, pass) then
            return
        end
        if proof and is_proof(app, bits, proof) then
            return give_pass(app)
        end
        if is_browser() then
            local challenge = signed("challenge", app, ngx.time() + CHALLENGE)
            return pages.refuse(503, "under-attack", RETRY, nil, {challenge = challenge, bits = bits})
        end
        return pages.refuse(503, "browsers-only", RETRY)
    end

    return {access = access}
end

return M
