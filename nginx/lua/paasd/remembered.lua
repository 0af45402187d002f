-- What was worked out, kept for the next time.

local M = {}

-- `make`, a function of one text, asked once for each. All is forgotten when there are `most`: whoever asks may choose them.
function M.by_text(make, most)
    local found, known = {}, 0
    return function(text)
        local value = found[text]
        if value == nil then
            if known == most then
                found, known = {}, 0
            end
            value = make(text)
            found[text], known = value, known + 1
        end
        return value
    end
end

return M
