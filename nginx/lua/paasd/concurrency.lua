-- Counts of requests under way that all workers share. Each worker writes only its own, under its name, and nobody reads
-- those of processes that are gone: neither a reload nor a killed worker leaves a wrong count.

local workers = require "paasd.workers"

local ipairs = ipairs

local M = {}

local own = {}           -- key -> count of this worker

local function publish(dict, key, count)
    own[key] = count > 0 and count or nil
    if count > 0 then
        dict:set(key .. workers.name(), count)
    else
        dict:delete(key .. workers.name())
    end
end

-- One more, unless there are `most` already. It is written before the others' are read, so that two workers rather refuse
-- both than let both in.
function M.enter(dict, key, most)
    local count = (own[key] or 0) + 1
    publish(dict, key, count)
    local sum = count
    for _, name in ipairs(workers.others()) do
        sum = sum + (dict:get(key .. name) or 0)
    end
    if sum <= most then
        return true
    end
    publish(dict, key, count - 1)
    return false
end

function M.leave(dict, key)
    publish(dict, key, (own[key] or 1) - 1)
end

return M
