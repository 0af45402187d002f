-- Sends paths to other apps of the project. Settings: `[{"prefix": "/api", "app": "other", "strip": true}]`.

local byte, sort, sub = string.byte, table.sort, string.sub
local clear_header, ngx = ngx.req.clear_header, ngx

local SLASH = byte("/")

local M = {}

function M.compile(settings)
    local routes = {}
    for index, each in ipairs(settings) do
        routes[index] = {prefix = each.prefix, length = #each.prefix, app = each.app, strip = each.strip}
    end
    sort(routes, function(a, b) return a.length > b.length end)

    -- By the decoded path, in whole segments. The first to match is the longest.
    local function access(request)
        local path = ngx.var.uri
        for index = 1, #routes do
            local route = routes[index]
            local after = byte(path, route.length + 1)
            if (not after or after == SLASH) and sub(path, 1, route.length) == route.prefix then
                request.app = route.app
                if not request.member then      -- the other app may believe them, and its gate is not passed
                    clear_header("X-Paasd-User")
                    clear_header("X-Paasd-Key")
                end
                if route.strip then
                    -- Arguments stay. Any byte may be in a decoded path; it is encoded again for the app.
                    ngx.req.set_uri(after and sub(path, route.length + 1) or "/", false, true)
                end
                return
            end
        end
    end

    return {access = access}
end

return M
