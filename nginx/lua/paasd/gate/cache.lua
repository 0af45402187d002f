-- Has answers kept and given out again, as far as the app's own Cache-Control allows. Settings:
-- `{"id": "…", "version": 3, "purged": [["/news/*", 7]], "files": 2592000}`; a key has the app's id, so that no later app of
-- the same name gets these answers, and the number of the last purge that concerned its path.
--
-- A release keeps its own answers. Files whose names change with their content (`app-3f2a91c0.js`) are kept for all
-- releases together, so those of the last one stay reachable after a deployment.

local lrucache = require "resty.lrucache"
local room = require "paasd.room"
local routes = require "paasd.routes"

local find, format, lower, match, max, sub =
    string.find, string.format, string.lower, string.match, math.max, string.sub
local concat, ipairs, tonumber, tostring, type = table.concat, ipairs, tonumber, tostring, type
local get_method, ngx, var = ngx.req.get_method, ngx, ngx.var

local ZONE = "paasd_answers"
local LONGEST = 1024     -- bytes of a path with its query; longer ones are not kept
local MOST_KNOWN = 10000
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

local M = {}

-- Keys of answers that were not kept: requests for them need not wait for one another.
local unkept = assert(lrucache.new(10000))

local files, known = {}, 0     -- path -> whether it is a file; paths are chosen by whoever asks

local function is_below(path, prefixes)
    for _, prefix in ipairs(prefixes) do
        if find(path, prefix, 1, true) then
            return true
        end
    end
    return false
end

-- Whether a path's last segment holds a hash of the content: 8 hexadecimal digits or more, digits and letters among them;
-- where bundlers put their files, 8 letters of both cases, too.
local function names_file(path)
    local name = match(path, "/([^/]+%.[%w.]+)$")
    if not name or find(name, "%.html?$") then
        return false
    elseif is_below(path, HASHED_ONLY) then
        return true
    end
    for word in name:gmatch("[%w_]+") do
        if #word >= 8 and find(word, "%d") and find(word, "%l") and not find(word, "[^%da-f]") then
            return true
        end
    end
    local hash = match(name, "[-.]([%w_-]+)%.[%w.]+$")
    return hash and #hash >= 8 and find(hash, "%l") and find(hash, "%u") and is_below(path, HASHED) or false
end

local function is_file(path)
    local found = files[path]
    if found == nil then
        if known == MOST_KNOWN then
            files, known = {}, 0
        end
        found = names_file(path)
        files[path], known = found, known + 1
    end
    return found
end

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

-- Not what goes to another app, may be somebody's own, or asks for something else than its path says.
local function concerns(request)
    local method = get_method()
    return request.app == request.gate and not request.personal and (method == "GET" or method == "HEAD")
        and var.paasd_particular == "" and room.is_there()
end

local function access_of(settings)
    return function(request)
        if not concerns(request) then
            return
        end
        local path, uri, route = var.uri, var.request_uri, routes.last_of(request.app)
        if #uri > LONGEST then
            return
        end
        local file = is_file(path)
        if route.count == 0 or route.canary and not file then
            return
        end
        local release = file and "-" or route.release or "?"
        local key = concat({settings.id, last_purge(settings, path), release, var.scheme, var.paasd_host, uri}, " ")
        request.key, request.file = key, file
        if unkept:get(key) then
            return
        end
        var.paasd_cache, var.paasd_cache_key = ZONE, key
        if file then
            var.paasd_is_file = "1"
        end
    end
end

-- Whether Nginx keeps no such answer.
local function is_refused(header)
    if header["Set-Cookie"] ~= nil or header["Vary"] == "*" then
        return true
    end
    local said = header["Cache-Control"]
    said = lower(type(said) == "table" and concat(said, ",") or said or "")
    return find(said, "private", 1, true) or find(said, "no-store", 1, true) or find(said, "no-cache", 1, true)
        or find(said, "max%-age=0") and not find(said, "s%-maxage=[1-9]")
end

-- Browsers may keep such a file as well, when the app says nothing of it.
local function allow_browsers(settings, header, hit)
    if settings.files and ngx.status == 200 and not header["Cache-Control"] and not header["Expires"] and not is_refused(header)
        and (hit or var.paasd_unkept == "") then
        header["Cache-Control"] = format("public, max-age=%d, immutable", settings.files)
    end
end

-- RFC 9111, section 5.1. Nginx keeps the app's own Date with the answer.
local function age()
    local date = var.upstream_http_date
    local made = date and ngx.parse_http_time(date)
    return made and max(0, ngx.time() - made)
end

local function headers_of(settings)
    return function(request)
        if not request.key or not request.passed then
            return
        end
        local status, header = var.upstream_cache_status, ngx.header
        local hit, miss = HITS[status], MISSES[status]
        header["Cache-Status"] = hit or miss or PASSED_BY
        if hit then
            header["Age"] = age()
            if status == "STALE" then      -- Nginx asks the app now, as a request of its own
                var.paasd_cached_for = format("%.0f", request.address)
            end
        elseif miss and ngx.status < 500 and (var.paasd_unkept ~= "" or is_refused(header)) then
            unkept:set(request.key, true, REMEMBERED)
        end
        if request.file then
            allow_browsers(settings, header, hit)
        end
    end
end

local function log(request)
    local status = var.upstream_cache_status
    local kind = HITS[status] and "@hit" or MISSES[status] and "@miss"
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
