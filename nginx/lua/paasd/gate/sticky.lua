-- Gives visitors the cookie that keeps them at one instance; which one it is, the balancer has chosen.

local add_header = require("ngx.resp").add_header

local M = {}

function M.compile()
    local function headers()
        local cookie = require("paasd.balancer").cookie()
        if cookie then
            add_header("Set-Cookie", cookie)
        end
    end
    return {headers = headers}
end

return M
