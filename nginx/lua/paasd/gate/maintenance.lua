-- Answers for an app that is being worked on. Settings: `{"allow": ["10.0.0.0/8"], "seconds": 60}`.

local addresses = require "paasd.gate.addresses"
local pages = require "paasd.pages"

local M = {}

function M.compile(settings, app)
    local allowed, seconds = addresses.list(settings.allow), settings.seconds

    local function access()
        if not addresses.among(allowed, ngx.var.binary_remote_addr) then
            return pages.refuse(503, "maintenance", seconds, app)
        end
    end

    return {access = access}
end

return M
