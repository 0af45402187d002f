-- Asks an authentication service about each request, which lets it pass or answers it itself.
--
-- The service is an app of this box, by its host name and reached at its instances, or anything else that has a certificate
-- for its name that the host trusts. So neither paasd's own services nor the metadata address can be asked anything: they
-- have no such certificate. An app with a gate of its own is asked from outside like everybody's, so that its rules hold.

local add_header = require("ngx.resp").add_header
local http = require "paasd.http"
local pages = require "paasd.pages"

local find, random, tostring = string.find, math.random, tostring
local ipairs, pairs, type = ipairs, pairs, type
local ngx, var = ngx, ngx.var

local ASKED = "X-Paasd-Asked"    -- two apps that ask each other would never end
local LOG_EVERY = 10     -- seconds

local M = {}

-- Of a connection or a body, or said by the edge itself.
local KEPT_BACK = {
    ["accept-encoding"] = true, connection = true, ["content-encoding"] = true, ["content-length"] = true,
    ["content-type"] = true, expect = true, forwarded = true, host = true, ["if-match"] = true,
    ["if-modified-since"] = true, ["if-none-match"] = true, ["if-range"] = true, ["if-unmodified-since"] = true,
    ["keep-alive"] = true, ["proxy-authorization"] = true, ["proxy-connection"] = true, proxy = true, range = true,
    te = true, trailer = true, ["transfer-encoding"] = true, upgrade = true, ["x-real-ip"] = true,
}

-- Of an answer that is given to the client.
local GIVEN = {
    ["cache-control"] = "Cache-Control", ["content-type"] = "Content-Type", location = "Location",
    ["www-authenticate"] = "WWW-Authenticate",
}

local REDIRECTS = {[301] = true, [302] = true, [303] = true, [307] = true, [308] = true}

local logged = {}        -- app -> when its trouble was logged

local function is_kept_back(name)
    return KEPT_BACK[name] or find(name, "^x%-forwarded%-") or find(name, "^x%-original%-") or find(name, "^sec%-websocket%-")
end

local function lines_of(settings, request)
    local lines = {
        "GET " .. settings.path .. " HTTP/1.1",
        "Host: " .. settings.authority,
        "X-Forwarded-Method: " .. ngx.req.get_method(),
        "X-Forwarded-Proto: " .. var.scheme,
        "X-Forwarded-Host: " .. var.paasd_host,
        "X-Forwarded-Uri: " .. var.request_uri,
        "X-Forwarded-For: " .. var.remote_addr,
        "X-Real-IP: " .. var.remote_addr,
        "X-Original-Method: " .. ngx.req.get_method(),
        ASKED .. ": 1",
        "X-Original-URL: " .. var.scheme .. "://" .. var.paasd_host .. var.request_uri,
    }
    for name, values in pairs(ngx.req.get_headers(0)) do
        local is_forged = not request.member and find(name, "^x%-paasd%-") and name ~= "x-paasd-asked"
        if not is_kept_back(name) and not is_forged then
            for _, value in ipairs(type(values) == "table" and values or {values}) do
                lines[#lines + 1] = name .. ": " .. tostring(value)
            end
        end
    end
    return lines
end

-- Name of the app of this box that the service is, if it may be asked at its instances.
local function local_app(settings, app)
    local entry = require("paasd.hosts").find(settings.host)
    local is_open = entry and not entry.redirect and not entry.clients and not entry.own and (not entry.gate or entry.app == app)
    return is_open and entry.app
end

local function endpoint_of(service)
    local route = require("paasd.routes").of(service)
    if route.count == 0 then
        if route.hold then
            require("paasd.asleep").want(service)
        end
        return nil
    end
    local endpoint = route.slots[random(route.size)]
    return {address = endpoint.address, port = endpoint.port}
end

local function outside(settings)
    return {address = settings.host, port = settings.port, tls = true, name = settings.host}
end

-- One try more where a connection failed: an instance may have gone a moment ago.
local function asked(settings, app, request)
    if var.http_x_paasd_asked then
        return nil, "it was asked by another app's auth.forward, and asks nobody in turn"
    end
    local service = local_app(settings, app)
    if not service and not settings.tls then
        return nil, settings.host .. " is no app of this box that may be asked so; write https://"
    end
    local lines, answer, err = lines_of(settings, request), nil, nil
    for _ = 1, 2 do
        local target = service and endpoint_of(service) or not service and outside(settings)
        if not target then
            return nil, service .. " has no instance"
        end
        answer, err = http.ask(target, lines)
        if answer or not service or err == "timeout" then
            break
        end
    end
    return answer, err
end

local function unavailable(app, why)
    if ngx.now() >= (logged[app] or 0) + LOG_EVERY then
        logged[app] = ngx.now()
        ngx.log(ngx.ERR, "auth.forward of ", app, ": ", why or "no answer")
    end
    return pages.refuse(503, "busy")
end

-- Only what the service says of a visitor reaches the app under these names, never what the visitor says.
local function pass(settings, answer, request)
    local found = {}
    for _, each in ipairs(answer.headers) do
        local name, value = each[1], each[2]
        found[name] = found[name] or {}
        found[name][#found[name] + 1] = value
    end
    for _, name in ipairs(settings.headers) do
        ngx.req.set_header(name, found[name])
    end
    request.cookies = found["set-cookie"]
end

local function give(answer)
    ngx.status = answer.status
    ngx.header["Cache-Control"] = "no-store"
    for _, each in ipairs(answer.headers) do
        if each[1] == "set-cookie" then
            add_header("Set-Cookie", each[2])
        elseif GIVEN[each[1]] then
            ngx.header[GIVEN[each[1]]] = each[2]
        end
    end
    ngx.header["Content-Length"] = #answer.body
    ngx.print(answer.body)
    return ngx.exit(ngx.HTTP_OK)
end

function M.access(settings, app, request)
    local answer, why = asked(settings, app, request)
    if not answer then
        return unavailable(app, why)
    end
    local status = answer.status
    if status >= 200 and status < 300 then
        return pass(settings, answer, request)
    elseif status == 401 or status == 403 or REDIRECTS[status] then
        return give(answer)
    end
    return unavailable(app, settings.authority .. " answered " .. status)
end

-- A service may renew its cookie with each request.
function M.headers(request)
    for _, cookie in ipairs(request.cookies or {}) do
        add_header("Set-Cookie", cookie)
    end
end

return M
