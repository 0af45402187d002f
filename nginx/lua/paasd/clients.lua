-- By what the edge tells clients apart: the address of the connection, never what a header says.

local find, sub = string.find, string.sub
local var = ngx.var

local MAPPED = "^" .. string.rep("%z", 10) .. "\255\255"    -- an IPv4 address that came to a socket of IPv6

local M = {}

-- Bytes of the client's IPv4 address, or of its IPv6 network: whoever has one address has the whole /64.
function M.source()
    local address = var.binary_remote_addr
    if #address ~= 16 then
        return address
    end
    return find(address, MAPPED) and sub(address, 13) or sub(address, 1, 8)
end

return M
