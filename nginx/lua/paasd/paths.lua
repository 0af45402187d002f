-- Decoded paths against prefixes, in whole segments: `/api` has `/api` and `/api/v2`, and not `/apis`.

local byte, sort, sub = string.byte, table.sort, string.sub
local ipairs = ipairs

local SLASH = byte("/")

local M = {}

function M.is_below(path, prefix)
    local after = byte(path, #prefix + 1)
    return (not after or after == SLASH) and sub(path, 1, #prefix) == prefix
end

local is_below = M.is_below

-- Function of a path: which of some tables with a `prefix` has the longest that it is below, nil for none.
function M.finder(tables)
    local sorted = {}
    for index, each in ipairs(tables) do
        sorted[index] = each
    end
    sort(sorted, function(a, b) return #a.prefix > #b.prefix end)
    return function(path)
        for index = 1, #sorted do
            if is_below(path, sorted[index].prefix) then
                return sorted[index]
            end
        end
    end
end

return M
