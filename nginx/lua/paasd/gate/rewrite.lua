-- Changes paths before the app sees them. Settings: `[["/old/*", "/new/*"], ["/a", "/b"]]`; the first to match acts.

local sub = string.sub
local ipairs = ipairs
local ngx = ngx

local M = {}

-- A path, and whether anything may follow it.
local function pattern(text)
    if sub(text, -1) == "*" then
        return sub(text, 1, -2), true
    end
    return text, false
end

function M.compile(settings)
    local rules = {}
    for index, each in ipairs(settings) do
        local from, open = pattern(each[1])
        local to, keeps = pattern(each[2])
        rules[index] = {from = from, length = #from, open = open, to = to, keeps = keeps}
    end

    -- By the decoded path. What goes to another app of the project keeps its path.
    local function access(request)
        if request.app ~= request.gate then
            return
        end
        local path = ngx.var.uri
        for index = 1, #rules do
            local rule = rules[index]
            if path == rule.from or rule.open and sub(path, 1, rule.length) == rule.from then
                -- Arguments stay. Any byte may be in a decoded path; it is encoded again for the app.
                ngx.req.set_uri(rule.keeps and rule.to .. sub(path, rule.length + 1) or rule.to, false, true)
                return
            end
        end
    end

    return {access = access}
end

return M
