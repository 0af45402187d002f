-- Sends paths to other apps of the project. Settings: `[{"prefix": "/api", "app": "other", "strip": true}]`.

local paths = require "paasd.paths"

local sub = string.sub
local clear_header, ngx = ngx.req.clear_header, ngx

local M = {}

-- Arguments stay. Any byte may be in a decoded path; it is encoded again for the app.
local function strip(path, prefix)
    ngx.req.set_uri(#path > #prefix and sub(path, #prefix + 1) or "/", false, true)
end

function M.compile(settings)
    local find = paths.finder(settings)

    local function access(request)
        local path = ngx.var.uri
        local route = find(path)
        if not route then
            return
        end
        request.app = route.app
        if not request.member then      -- the other app may believe them, and its gate is not passed
            clear_header("X-Paasd-User")
            clear_header("X-Paasd-Key")
        end
        if route.strip then
            strip(path, route.prefix)
        end
    end

    return {access = access}
end

return M
