-- Lets in or keeps out by the client's address.

local bit = require "bit"
local pages = require "paasd.pages"

local byte, gmatch, match = string.byte, string.gmatch, string.match
local band, lshift = bit.band, bit.lshift
local ipairs, tonumber = ipairs, tonumber

local M = {}

-- Bytes of an address in network order, as $binary_remote_addr has them; `text` is in its usual form.
local function packed(text)
    if match(text, "^[%d.]+$") then
        local a, b, c, d = match(text, "^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
        return string.char(a, b, c, d)
    end
    local head, tail = match(text, "^(.-)::(.*)$")
    local groups, rest = {}, {}
    for group in gmatch(head or text, "%x+") do
        groups[#groups + 1] = tonumber(group, 16)
    end
    for group in gmatch(tail or "", "%x+") do
        rest[#rest + 1] = tonumber(group, 16)
    end
    for _ = 1, 8 - #groups - #rest do
        groups[#groups + 1] = 0
    end
    for _, group in ipairs(rest) do
        groups[#groups + 1] = group
    end
    local bytes = {}
    for index, group in ipairs(groups) do
        bytes[index] = string.char(bit.rshift(group, 8), band(group, 255))
    end
    return table.concat(bytes)
end

local function network(text)
    local address, prefix = match(text, "^(.-)/(%d+)$")
    return {bytes = packed(address), prefix = tonumber(prefix)}
end

local function contains(each, address)
    if #each.bytes ~= #address then
        return false
    end
    local whole = math.floor(each.prefix / 8)
    if whole > 0 and each.bytes:sub(1, whole) ~= address:sub(1, whole) then
        return false
    end
    local bits = each.prefix % 8
    if bits == 0 then
        return true
    end
    local mask = band(lshift(255, 8 - bits), 255)
    return band(byte(each.bytes, whole + 1), mask) == band(byte(address, whole + 1), mask)
end

-- Whether an address, as bytes, lies in one of the networks of a compiled list.
function M.among(list, address)
    for _, each in ipairs(list) do
        if contains(each, address) then
            return true
        end
    end
    return false
end

-- Networks in their usual form, `10.0.0.0/8`.
function M.list(texts)
    local found = {}
    for index, text in ipairs(texts or {}) do
        found[index] = network(text)
    end
    return found
end

function M.compile(settings)
    local allowed, denied = settings.allow and M.list(settings.allow), M.list(settings.deny)
    local function access()
        local address = ngx.var.binary_remote_addr
        if M.among(denied, address) or allowed and not M.among(allowed, address) then
            return pages.refuse(403, "denied")
        end
    end
    return {access = access}
end

return M
