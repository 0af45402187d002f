-- What Cache-Control says of keeping an answer (RFC 9111, section 5.2.2).

local remembered = require "paasd.remembered"

local find, lower, match = string.find, string.lower, string.match
local concat, tonumber, type = table.concat, tonumber, type

local MOST_KNOWN = 1000

local M = {}

local function says(text, directive)
    return find(text, directive, 1, true) ~= nil
end

local function decode(text)
    text = lower(text)
    local seconds = match(text, "s%-maxage=(%d+)") or match(text, "max%-age=(%d+)")
    local forbids = says(text, "private") or says(text, "no-store") or says(text, "no-cache")
    return {forbids = forbids, seconds = tonumber(seconds)}
end

local read = remembered.by_text(decode, MOST_KNOWN)

-- {forbids = whether a cache that many share must not keep it, seconds = for how long it may} of a header, its values if
-- there are several, or nil.
function M.of(header)
    return read(type(header) == "table" and concat(header, ",") or header or "")
end

return M
