-- Sends each request on its way, and has those pass the gate whose app has a policy: its parts may answer, change or
-- redirect a request before it goes to the app, and change the answer.

local base = require "resty.core.base"
local ffi = require "ffi"
local certificates = require "paasd.certificates"
local hosts = require "paasd.hosts"
local pages = require "paasd.pages"
local tables = require "paasd.tables"

local cast, find, tonumber, ipairs = ffi.cast, string.find, tonumber, ipairs
local get_request = base.get_request
local find_host, refresh = hosts.find, tables.refresh
local ngx, var = ngx, ngx.var

local M = {}

-- Request (its address) -> what the gate knows of it, until it ends.
local under_way = {}

local function address()
    return tonumber(cast("uintptr_t", get_request()))
end

-- Name of the app that a request is of; nil for a host name that nobody has.
function M.app(request)
    local known = under_way[request or address()]
    if known then
        return known.app
    end
    local entry = find_host(var.host)
    return entry and entry.app
end

-- The request for which Nginx asks by itself now, to renew an answer that it has just given out of the cache.
local function renewed_for()
    local known = ngx.is_subrequest and under_way[tonumber(var.paasd_cached_for)]
    return known and known.passed and known
end

-- Name of the app that a request may be sent to, and whether nobody waits for the answer. What came before its name got a
-- gate, or moved to an app with one, and was long in coming, has not passed it.
function M.open_app(request)
    refresh()
    local known = under_way[request]
    if known then
        return known.passed and known.app or nil
    end
    local entry = find_host(var.host)
    if entry and (entry.plain or not entry.gate and not entry.redirect and var.paasd_own == entry.app) then
        return entry.app
    end
    local known = renewed_for()
    if known then
        return known.app, true
    end
end

function M.is_open()
    return M.open_app(address()) ~= nil
end

-- The location from which a request that passed the gate goes to the app.
local function gate_of(entry)
    if entry.grpc then
        local kind = var.content_type or ""
        if kind == "application/grpc" or find(kind, "^application/grpc[+;]") then
            return "@gate_grpc"
        end
    end
    return var.paasd_stream ~= "" and "@gate_stream" or entry.way
end

-- Named locations: `@answer` gives the edge's own answer, the others pass the gate.
local function special(entry)
    if not entry or entry.redirect or entry.own and var.paasd_own ~= entry.app then
        return "@answer"
    end
    if entry.gate then
        return entry.asks and "@gate_ask" or gate_of(entry)
    end
    return ""
end

-- Where a request goes before anything of its body is read; empty for most.
function M.way()
    refresh()
    local entry = find_host(var.host)
    if entry and entry.plain and not entry.secure then
        return ""
    end
    return entry and entry.secure and "@answer" or special(entry)
end

-- The same over HTTPS.
function M.way_tls()
    refresh()
    local entry = find_host(var.host)
    if entry and entry.hsts then
        var.paasd_hsts_of_app = entry.hsts
    end
    return entry and entry.plain and "" or special(entry)
end

-- For an authority that asks for the answer to its challenge, which no policy may keep it from.
function M.way_of_challenge()
    if certificates.challenge_answer() then
        return "@challenge"
    end
    return var.https == "on" and M.way_tls() or M.way()
end

-- What no app answers: redirects, and names that nobody has.
function M.answer()
    local entry = find_host(var.host)
    if not entry then
        return pages.send(404)
    end
    if entry.secure and var.https ~= "on" then
        if pages.has_https() then
            return pages.to_https()
        end
        return pages.send(403)    -- nobody can show the certificate that is needed
    end
    if entry.redirect then
        return ngx.redirect(entry.redirect.target .. var.request_uri, entry.redirect.status)
    end
    return pages.send(503, "not-ready")
end

-- The access phase of the gate. A request that was held, or failed, comes again and has passed already.
function M.enter()
    local request = address()
    local before = under_way[request]
    if before then
        return before.passed or ngx.exit(500)
    end
    local entry = find_host(var.host)
    if not entry or not entry.gate then
        return
    end
    local known = {address = request, app = entry.app, gate = entry.app, location = gate_of(entry), parts = entry.gate}
    under_way[request] = known
    for _, access in ipairs(known.parts.access) do
        access(known)
    end
    known.passed = true    -- the app answers, and not the gate
    if entry.asks then
        return ngx.exec(known.location)
    end
end

function M.headers()
    local known = under_way[address()]
    if not known then
        known = renewed_for()
        return known and known.on_renewal(known)
    end
    for _, headers in ipairs(known.parts.headers) do
        headers(known)
    end
end

-- Location in which a request goes on that was held.
function M.location()
    local known = under_way[address()]
    return known and known.location or var.paasd_stream ~= "" and "@stream" or "@app"
end

-- A request has ended: its app, nil if it had none; of one that passed the gate also the app whose gate it was, and under
-- which suffixes of that it is counted besides.
function M.ended()
    local request = address()
    local app, known = M.app(request), under_way[request]
    if known then
        under_way[request] = nil
        for _, log in ipairs(known.parts.log) do
            log(known)
        end
        return app, known.gate, known.counted
    end
    return app
end

return M
