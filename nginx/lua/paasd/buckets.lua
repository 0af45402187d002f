-- Token buckets that all workers share, one number each: the time at which the bucket will be full again (GCRA).
--
-- Taking is one atomic addition, so no two workers spend the same token. What is left of a race: a request may be refused
-- while another worker has not yet taken back the token of one that it refuses; and one too many may pass in the
-- millisecond in which an entry ends. Entries end when their bucket is full. When memory ends, those go first that were
-- asked for longest ago: what is forgotten is a full bucket, which keeps nobody out.

local max = math.max

local EPOCH = 1.7e9      -- keeps the numbers small and so exact
local TICK = 0.001       -- seconds; an entry that should end in less would stay for ever
local TINY = 1e-6
local CLOCK = 60         -- seconds beyond all reason: the clock was set back

local M = {}

function M.now()
    return ngx.now() - EPOCH
end

local function fill(dict, key, every, time)
    dict:set(key, time + every, every + TICK)
end

-- Take one token of a bucket that has `burst` and gets another `every` so many seconds. Nil if there was one, else the
-- seconds until there will be.
function M.take(dict, key, every, burst, time)
    local full = dict:incr(key, every, time, every + TICK)
    if not full or full < time + every - TINY then
        return fill(dict, key, every, time)
    end
    local wait = full - time - burst * every
    if wait <= TINY then
        dict:expire(key, full - time + TICK)
        return nil
    end
    if wait > every * (1 + ngx.worker.count()) + CLOCK then
        return fill(dict, key, every, time)
    end
    dict:incr(key, -every)
    return max(wait, TICK)
end

-- For what was taken and is not used after all.
function M.give_back(dict, key, every)
    dict:incr(key, -every)
end

return M
