-- Owns the shared dictionaries `paasd_tables`, `paasd_policies` and `paasd_pages`: what paasd changes live. Each table has
-- lines of text by key, and a mirror file that Nginx reads at its own start; all of them share one version, so that a
-- request looks at one number.

local shared_number = require "paasd.shared_number"

local dict = ngx.shared.paasd_tables
local gmatch, match, sub = string.gmatch, string.match, string.sub
local ipairs, pairs = ipairs, pairs

local M = {}

local Table = {}
Table.__index = Table

local version = shared_number.new(dict, "version")
local seen                 -- the one that this worker's decoded copies were made from
local forgetters = {}

-- Call `forget` in each worker when anything has changed: its decoded copies are out of date.
function M.on_change(forget)
    forgetters[#forgetters + 1] = forget
end

-- Called before decoded copies are used.
function M.refresh()
    local latest = version[0]
    if latest ~= seen then
        seen = latest
        for _, forget in ipairs(forgetters) do
            forget()
        end
    end
end

-- Have every worker decode everything again.
function M.touch()
    version[0] = dict:incr("version", 1, 0)
end

-- `own` is a dictionary for lines so long that they must not take the others' room.
function M.new(name, own)
    return setmetatable({prefix = name .. ":", loaded = "loaded " .. name, dict = own or dict}, Table)
end

function Table:get(key)
    return self.dict:get(self.prefix .. key)
end

-- An empty line takes the key away.
function Table:store(key, line)
    if line == "" then
        self.dict:delete(self.prefix .. key)
        return true
    end
    return self.dict:safe_set(self.prefix .. key, line)
end

-- key -> line, as the running Nginx has them.
function Table:all()
    local found, length = {}, #self.prefix
    for _, key in ipairs(self.dict:get_keys(0)) do
        if sub(key, 1, length) == self.prefix then
            found[sub(key, length + 1)] = self.dict:get(key)
        end
    end
    return found
end

-- Make the lines `<key> <line>` of `text` true; a key alone is taken away. What does not fit changes nothing.
function Table:patch(text)
    local before = {}
    for key, line in gmatch(text, "(%S+) ?([^\n]*)\n") do
        before[key] = before[key] or self:get(key) or ""
        local ok, err = self:store(key, line)
        if not ok then
            for changed, old in pairs(before) do
                self:store(changed, old)
            end
            M.touch()
            return nil, err
        end
    end
    M.touch()
    return true
end

-- At Nginx's own start the table is empty and comes from the mirror; a reload keeps the live one, which may be newer.
function Table:load(path)
    if self.dict:get(self.loaded) then
        return
    end
    local file = io.open(path, "r")
    if file then
        local text = file:read("*a")
        file:close()
        -- Without its policies an app would be open to everybody.
        assert(self:patch(text), path .. " has more than there is room for")
    end
    self.dict:set(self.loaded, true)
end

return M
