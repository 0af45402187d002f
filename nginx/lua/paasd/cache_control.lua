-- What Cache-Control says of keeping an answer (RFC 9111, section 5.2.2).

local find, lower, match = string.find, string.lower, string.match
local concat, tonumber, type = table.concat, tonumber, type

local MOST_KNOWN = 1000

local M = {}

local read, known = {}, 0      -- text -> what it says

local function says(text, directive)
    return find(text, directive, 1, true) ~= nil
end

local function decode(text)
    text = lower(text)
    local seconds = match(text, "s%-maxage=(%d+)") or match(text, "max%-age=(%d+)")
    local forbids = says(text, "private") or says(text, "no-store") or says(text, "no-cache")
    return {forbids = forbids, seconds = tonumber(seconds)}
end

-- {forbids = whether a cache that many share must not keep it, seconds = for how long it may} of a header, its values if
-- there are several, or nil.
function M.of(header)
    local text = type(header) == "table" and concat(header, ",") or header or ""
    local found = read[text]
    if not found then
        if known == MOST_KNOWN then
            read, known = {}, 0
        end
        found = decode(text)
        read[text], known = found, known + 1
    end
    return found
end

return M
