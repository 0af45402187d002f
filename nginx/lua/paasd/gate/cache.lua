-- Has answers kept and given out again, as far as the app's own Cache-Control allows. Settings:
-- `{"id": "…", "version": 3, "purged": [["/news/*", 7]], "files": 2592000}`; a key has the app's id, so that no later app of
-- the same name gets these answers, and the number of the last purge that concerned its path.
--
-- A release keeps its own answers. Files whose names change with their content (`app-3f2a91c0.js`) are kept for all
-- releases together, so those of the last one stay reachable after a deployment.

local lrucache = require "resty.lrucache"
local remembered = require "paasd.remembered"
local room = require "paasd.room"
local routes = require "paasd.routes"

local find, format, match, max, sub = string.find, string.format, string.match, math.max, string.sub
local concat, ipairs, tonumber, tostring, type = table.concat, ipairs, tonumber, tostring, type
local cache_control = require("paasd.cache_control").of
local get_method, now, ngx, var = ngx.req.get_method, ngx.now, ngx, ngx.var

local LONGEST = 1024     -- bytes of a path with its query; longer ones are not kept
local MOST_KNOWN = 10000
local MOST_KEYS = 100
local REMEMBERED = 60    -- seconds in which an address whose answer was not kept is not asked about one by one

-- What was seen -> Cache-Status (RFC 9211).
local HITS = {
    HIT = "paasd; hit", STALE = "paasd; hit; detail=stale", UPDATING = "paasd; hit; detail=stale",
    REVALIDATED = "paasd; fwd=stale; fwd-status=304",
}
local MISSES = {MISS = "paasd; fwd=uri-miss", EXPIRED = "paasd; fwd=stale"}
local PASSED_BY = "paasd; fwd=bypass"

-- Of frameworks that put nothing else there.
local HASHED_ONLY = {"/_next/static/", "/_app/immutable/"}
-- Where hashes are in letters of both cases.
local HASHED = {"/assets/", "/_nuxt/", "/_astro/", "/build/"}
-- Elsewhere only these: pictures and documents may be somebody's own, and have names that look the same.
local CODE = {
    css = true, js = true, mjs = true, wasm = true, woff = true, woff2 = true, ttf = true, otf = true, eot = true,
}

-- Whatever an app says of others: those that a visitor can provoke must not meet the next one.
local KEPT = {
    [200] = true, [203] = true, [204] = true, [301] = true, [302] = true, [303] = true, [307] = true, [308] = true,
    [404] = true, [410] = true,
}
local LONGEST_VARY = 128      -- bytes; Nginx keeps no answer with more
local LARGEST = 1e8           -- bytes; the cache is made smaller only after an answer has come

local M = {}

-- Addresses whose answers were not kept, until when there may be one: requests for them need not wait for one another.
local unkept, unkept_until = assert(lrucache.new(10000)), 0

local function is_below(path, prefixes)
    for _, prefix in ipairs(prefixes) do
        if find(path, prefix, 1, true) then
            return true
        end
    end
    return false
end

-- `any` or `code` for a path that names a file by a hash of its content, false for others. A hash has 8 hexadecimal digits
-- or more, digits and letters among them; where bundlers put their files, 8 letters of both cases are one, too.
local function names_file(path)
    local name, extension = match(path, "/([^/]+)%.(%w+)$")
    if not name then
        return false
    elseif is_below(path, HASHED_ONLY) then
        return "any"
    elseif not CODE[extension] then
        return false
    end
    for word in name:gmatch("[%w_]+") do
        if #word >= 8 and find(word, "%d") and find(word, "%l") and not find(word, "[^%da-f]") then
            return "code"
        end
    end
    local hash = match(name, "[-.]([%w_-]+)$")
    return hash and #hash >= 8 and find(hash, "%l") and find(hash, "%u") and is_below(path, HASHED) and "code" or false
end

local is_file = remembered.by_text(names_file, MOST_KNOWN)

local function last_purge(settings, path)
    local version = settings.version
    for _, each in ipairs(settings.purged) do
        local pattern = each[1]
        if path == pattern or sub(pattern, -1) == "*" and sub(path, 1, #pattern - 1) == sub(pattern, 1, -2) then
            version = max(version, each[2])
        end
    end
    return version
end

-- Whether the app forbids it, in a way that Nginx does not see in all cases.
local function is_forbidden(header)
    local said = cache_control(header["Cache-Control"])
    if said.forbids or said.seconds then
        return said.forbids or said.seconds == 0
    end
    local expires = header["Expires"]
    return expires and (type(expires) == "table" or (ngx.parse_http_time(expires) or 0) <= ngx.time())
end

-- Whether this answer of the app is kept; of files, which all releases share, only the file itself.
local function is_kept(request, header)
    local vary, status = header["Vary"], ngx.status
    return KEPT[status] and (status == 200 or not request.file) and var.paasd_unkept == "" and header["Set-Cookie"] == nil
        and (vary == nil or type(vary) == "string" and vary ~= "*" and #vary <= LONGEST_VARY)
        and (tonumber(header["Content-Length"]) or 0) <= LARGEST
        and var.upstream_http_x_accel_expires ~= "0" and not is_forbidden(header)
end

-- Browsers may keep such a file as well, when the app says nothing of it.
local function allow_browsers(settings, header)
    if settings.files and ngx.status == 200 and not header["Cache-Control"] and not header["Expires"] then
        header["Cache-Control"] = format("public, max-age=%d, immutable", settings.files)
    end
end

-- RFC 9111, section 5.1, by the app's own Date, which Nginx keeps with the answer. Not when that is too old, since Nginx
-- does not renew it with an answer that the app has confirmed.
local function age(header)
    local date = var.upstream_http_date
    local made = date and ngx.parse_http_time(date)
    local seconds = made and max(0, ngx.time() - made)
    local most = cache_control(header["Cache-Control"]).seconds
    return seconds and (not most or seconds <= most) and seconds or nil
end

-- What Nginx makes the whole key of: `$paasd_cache_key` goes before the address.
local function address(request)
    return concat({request.key, var.scheme, var.paasd_host, var.request_uri}, " ")
end

-- Hardly anything is, so that most requests need not put their address together.
local function is_unkept(request)
    return now() < unkept_until and unkept:get(address(request))
end

-- What came from the app, and is kept or not; what turns out otherwise than it was is remembered so.
local function judge(request)
    local header = ngx.header
    request.kept = is_kept(request, header)
    if request.kept then
        unkept:delete(address(request))
        return
    end
    var.paasd_unkept = "1"    -- Nginx asks for it after this
    if KEPT[ngx.status] then
        unkept:set(address(request), true, REMEMBERED)
        unkept_until = now() + REMEMBERED
    end
end

-- Not what goes to another app, may be somebody's own, or asks for something else than its path says.
local function concerns(request)
    local method = get_method()
    return request.app == request.gate and not request.personal and (method == "GET" or method == "HEAD")
        and var.paasd_particular == "" and room.is_there()
end

-- Function of release and purge: what keys begin with, as one string for all requests that do.
local function keys_of(id)
    local found, known = {}, 0
    return function(release, purge)
        local keys = found[release]
        local key = keys and keys[purge]
        if not key then
            if known == MOST_KEYS then
                found, known = {}, 0
            end
            key = concat({id, purge, release}, " ")
            found[release] = found[release] or {}
            found[release][purge], known = key, known + 1
        end
        return key
    end
end

local function access_of(settings)
    local key_of = keys_of(settings.id)
    return function(request)
        if not concerns(request) then
            return
        end
        local path, route = var.uri, routes.last_of(request.app)
        if #var.request_uri > LONGEST then
            return
        end
        local file = is_file(path)
        if route.count == 0 or route.canary and not file then
            return
        end
        local key = key_of(file and "-" or route.release or "?", last_purge(settings, path))
        request.key, request.file, request.on_renewal = key, file, judge
        if is_unkept(request) then
            return
        end
        var.paasd_cache, var.paasd_cache_key = file and "paasd_files" or "paasd_answers", key
        if file and settings.files then
            var.paasd_is_file = file
        end
    end
end

local function headers_of(settings)
    return function(request)
        if not request.key or not request.passed then
            return
        end
        local status, header = var.upstream_cache_status, ngx.header
        request.cache_status = status
        local hit, miss = HITS[status], MISSES[status]
        header["Cache-Status"] = hit or miss or PASSED_BY
        if not hit then
            judge(request)
        elseif status ~= "REVALIDATED" then
            header["Age"] = age(header)
            if status == "STALE" then      -- Nginx asks the app now, as a request of its own
                var.paasd_cached_for = format("%.0f", request.address)
            end
        end
        if request.file and (hit or miss and request.kept) then
            allow_browsers(settings, header)
        end
    end
end

-- What the app confirmed has been asked for, too.
local function log(request)
    local status = request.cache_status
    local missed = status == "REVALIDATED" or MISSES[status] and request.kept
    local kind = missed and "@miss" or HITS[status] and "@hit"
    if kind then
        request.counted = request.counted or {}
        request.counted[#request.counted + 1] = kind
    end
end

function M.compile(settings)
    assert(tostring(settings.id) and tonumber(settings.version))
    settings.purged = settings.purged or {}
    return {access = access_of(settings), headers = headers_of(settings), log = log}
end

return M
