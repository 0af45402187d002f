-- Names the route that a request is counted under besides its app. Settings: `{"routes": ["/api", "/api/v2"]}`.
--
-- The first part of the gate: a request counts by the path that was asked, whoever answers it in the end.

local byte, sort, sub = string.byte, table.sort, string.sub
local ngx = ngx

local SLASH = byte("/")

local M = {}

function M.compile(settings)
    local routes = {}
    for index, prefix in ipairs(settings.routes) do
        routes[index] = {prefix = prefix, length = #prefix, row = ":" .. prefix}
    end
    sort(routes, function(a, b) return a.length > b.length end)

    -- By the decoded path, in whole segments. The first to match is the longest.
    local function access(request)
        local path = ngx.var.uri
        for index = 1, #routes do
            local route = routes[index]
            local after = byte(path, route.length + 1)
            if (not after or after == SLASH) and sub(path, 1, route.length) == route.prefix then
                request.counted = request.counted or {}
                request.counted[#request.counted + 1] = route.row
                return
            end
        end
    end

    return {access = access}
end

return M
