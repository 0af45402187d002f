-- Sends each request on its way, and has those pass the gate whose app has a policy: its parts may answer, change or
-- redirect a request before it goes to the app, and change the answer.

local certificates = require "paasd.certificates"
local hosts = require "paasd.hosts"
local pages = require "paasd.pages"
local requests = require "paasd.requests"
local tables = require "paasd.tables"

local find, tonumber = string.find, tonumber
local this_request = requests.current
local find_host, refresh = hosts.find, tables.refresh
local ngx, var = ngx, ngx.var

local M = {}

-- Request -> what the gate knows of it, until it ends.
local under_way = {}

-- Request -> entry of its host name if there is nothing special about that, until it ends or anything changes.
local plain = {}

tables.on_change(function() plain = {} end)

-- Name of the app that a request is of; nil for a host name that nobody has.
function M.app(request)
    request = request or this_request()
    local known = under_way[request] or plain[request] or find_host(var.host)
    return known and known.app
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
    local entry = plain[request]
    if entry then
        return entry.app
    end
    local known = under_way[request]
    if known then
        return known.passed and known.app or nil
    end
    entry = find_host(var.host)
    if entry and (entry.plain or not entry.gate and not entry.redirect and var.paasd_own == entry.app) then
        return entry.app
    end
    known = renewed_for()
    if known then
        return known.app, true
    end
end

function M.is_open()
    return M.open_app(this_request()) ~= nil
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

-- Have a request pass the gate of its app. In the access phase parts may answer it themselves, then this does not return.
local function pass(request, entry)
    local known = {
        address = request, app = entry.app, gate = entry.app, location = gate_of(entry), parts = entry.gate,
        -- What parts add has its room from the start: a table that grows costs as much as some parts.
        passed = false, key = nil, file = nil, kept = nil, on_renewal = nil, cache_status = nil, counted = nil,
    }
    under_way[request] = known
    local access = known.parts.access
    if access then
        access(known)
    end
    known.passed = true    -- the app answers, and not the gate
    return known
end

-- Named locations: `@answer` gives the edge's own answer, the others are the gate's.
local function special(request, entry)
    if not entry or entry.redirect or entry.own and var.paasd_own ~= entry.app then
        return "@answer"
    end
    if entry.instant and not ngx.is_subrequest then
        local known = under_way[request] or pass(request, entry)    -- it comes again when the app or a snippet redirects it
        return known.location
    elseif entry.gate then
        return entry.asks and "@gate_ask" or gate_of(entry)
    end
    return ""
end

-- Nothing is kept of subrequests, as those of an administrator's `mirror`: no log phase tells of their end. They pass no
-- gate, in whatever phase.
local function way_of(entry)
    local request = this_request()
    if entry and entry.plain and not ngx.is_subrequest then
        plain[request] = entry
        return ""
    end
    plain[request] = nil
    return special(request, entry)
end

-- Where a request goes before anything of its body is read; empty for most.
function M.way()
    refresh()
    local entry = find_host(var.host)
    return entry and entry.secure and "@answer" or way_of(entry)
end

-- The same over HTTPS.
function M.way_tls()
    refresh()
    local entry = find_host(var.host)
    if entry and entry.hsts then
        var.paasd_hsts_of_app = entry.hsts
    end
    return way_of(entry)
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
    local request = this_request()
    local before = under_way[request]
    if before then
        return before.passed or ngx.exit(500)
    end
    local entry = find_host(var.host)
    if not entry or not entry.gate then
        return
    end
    local known = pass(request, entry)
    if entry.asks then
        return ngx.exec(known.location)
    end
end

function M.headers()
    local known = under_way[this_request()]
    if not known then
        known = renewed_for()
        return known and known.on_renewal(known)
    end
    local headers = known.parts.headers
    if headers then
        headers(known)
    end
end

-- Location in which a request goes on that was held.
function M.location()
    local known = under_way[this_request()]
    return known and known.location or var.paasd_stream ~= "" and "@stream" or "@app"
end

-- Whether the limits of the whole box refused a request, which it meets after a gate that lets all pass: a flood is
-- neither logged line by line nor counted by route.
local function was_flood()
    return ngx.status == 429 and (var.limit_req_status == "REJECTED" or var.limit_conn_status == "REJECTED")
end

-- A request has ended: its app, nil if it had none; of one that passed the gate also the app whose gate it was, and under
-- which suffixes of that it is counted besides.
function M.ended()
    local request = this_request()
    local app, known = M.app(request), under_way[request]
    plain[request] = nil
    if known then
        under_way[request] = nil
        if not was_flood() then
            local log = known.parts.log
            if log then
                log(known)
            end
            return app, known.gate, known.counted
        end
    end
    return app
end

return M
