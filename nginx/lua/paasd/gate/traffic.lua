-- Names the route that a request is counted under besides its app. Settings: `{"routes": ["/api", "/api/v2"]}`.
--
-- The first part of the gate: a request counts by the path that was asked, whoever answers it in the end.

local paths = require "paasd.paths"

local ngx = ngx

local M = {}

function M.compile(settings)
    local rows = {}
    for index, prefix in ipairs(settings.routes) do
        rows[index] = {prefix = prefix, name = ":" .. prefix}
    end
    local find = paths.finder(rows)

    local function access(request)
        local row = find(ngx.var.uri)
        if row then
            request.counted = request.counted or {}
            request.counted[#request.counted + 1] = row.name
        end
    end

    return {access = access}
end

return M
