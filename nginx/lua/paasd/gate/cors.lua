-- Tells browsers which other sites' scripts may use the app, and answers what they ask in advance (preflights).
--
-- Settings: `{"origins": ["https://a.example", "https://*.b.example"], "methods": "GET, POST", "headers": "X-A", "expose":
-- "X-B", "seconds": 600, "credentials": true}`; origins `["*"]` for all.

local add_header = require("ngx.resp").add_header
local pages = require "paasd.pages"

local match, sub = string.match, string.sub
local ipairs, tostring = ipairs, tostring
local ngx, var = ngx, ngx.var

local M = {}

local function matches(each, origin)
    local before, after = each.before, each.after
    if sub(origin, 1, #before) ~= before or sub(origin, -#after) ~= after then
        return false
    end
    return match(sub(origin, #before + 1, -#after - 1), "^[%l%d-][%l%d.-]*$") ~= nil
end

local function checker(origins)
    local exact, wildcards = {}, {}
    for _, origin in ipairs(origins) do
        local before, after = match(origin, "^(.+)%*(.+)$")
        if before then
            wildcards[#wildcards + 1] = {before = before, after = after}
        else
            exact[origin] = true
        end
    end
    return function(origin)
        if exact[origin] then
            return true
        end
        for _, each in ipairs(wildcards) do
            if matches(each, origin) then
                return true
            end
        end
        return false
    end
end

function M.compile(settings)
    local all = settings.origins[1] == "*"
    local allowed = checker(settings.origins)
    local credentials = settings.credentials and "true" or nil
    local seconds = tostring(settings.seconds)

    local function preflight(origin)
        if not all and not allowed(origin) then
            return pages.refuse(403, "cross-origin")
        end
        ngx.status = 204
        ngx.header["Access-Control-Allow-Methods"] = settings.methods
        ngx.header["Access-Control-Allow-Headers"] = settings.headers
        ngx.header["Access-Control-Max-Age"] = seconds
        return ngx.exit(204)
    end

    local function access(request)
        local origin = var.http_origin
        request.lets_origin = origin and not all and allowed(origin)
        if origin and var.request_method == "OPTIONS" and var.http_access_control_request_method then
            return preflight(origin)
        end
    end

    -- Also of the edge's own answers, so that scripts see their status. What the app says of this is replaced: browsers
    -- take two answers for none.
    local function headers()
        local origin = var.http_origin
        local let = origin and (all and "*" or allowed(origin) and origin) or nil
        local header = ngx.header
        header["Access-Control-Allow-Origin"] = let
        header["Access-Control-Allow-Credentials"] = let and credentials
        header["Access-Control-Expose-Headers"] = let and settings.expose
        if not all then
            add_header("Vary", "Origin")
        end
    end

    return {access = access, headers = headers}
end

return M
