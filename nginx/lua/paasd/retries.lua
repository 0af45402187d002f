-- When a request that failed at one endpoint is sent to another one, and how many of them may be.
--
-- Refused connections cost an app nothing and are always tried elsewhere, as in apps without this policy. What an app has
-- had the bytes of is sent again only for the failures asked for, only by idempotent methods (Nginx sees to that), and as
-- far as the budget goes: of the requests of the last ten seconds so many per cent, in each worker.

local failures = require "paasd.failures"

local floor, min, max = math.floor, math.min, math.max

local SECONDS = 10
local ALWAYS = 3         -- retries in that time that need no budget, for apps with few requests

local M = {}

function M.compile(settings, before)
    local budget = {second = 0, requests = {}, retries = {}}
    for slot = 1, SECONDS do
        budget.requests[slot], budget.retries[slot] = 0, 0
    end
    local on = failures.set(settings.on, {"connect"})
    return {
        count = settings.count or 4, on = on, by_status = on["502"] or on["503"] or on["504"], share = (settings.budget or 20) / 100,
        spent = before and before.spent or budget,
    }
end

-- The slot of the present second; those in between were seconds without requests.
local function slot_of(spent, time)
    local second = floor(time)
    if second ~= spent.second then
        for passed = max(spent.second + 1, second - SECONDS + 1), second do
            spent.requests[passed % SECONDS + 1], spent.retries[passed % SECONDS + 1] = 0, 0
        end
        spent.second = second
    end
    return second % SECONDS + 1
end

local function is_left(retries, time)
    local spent, requests, sent = retries.spent, 0, 0
    slot_of(spent, time)
    for slot = 1, SECONDS do
        requests, sent = requests + spent.requests[slot], sent + spent.retries[slot]
    end
    local allowed = requests * retries.share
    return retries.share > 0 and sent + 1 <= max(allowed, ALWAYS)
end

-- How many more endpoints a new request may try, of `most`. Nginx hands an app's 502 on, body and all, only when no try is
-- left; so a request whose answer could be retried gets none while the budget is used up.
function M.begin(retries, most, is_stream, time)
    local spent = retries.spent
    local slot = slot_of(spent, time)
    spent.requests[slot] = spent.requests[slot] + 1
    if retries.by_status and not is_stream and not is_left(retries, time) then
        return 0
    end
    return min(most, retries.count)
end

-- Whether a request that failed as `kind` is sent to another endpoint.
function M.again(retries, kind, was_sent, time)
    if not was_sent then
        return retries.on.connect
    end
    if not retries.on[kind] or not is_left(retries, time) then
        return false
    end
    local spent = retries.spent
    local slot = slot_of(spent, time)
    spent.retries[slot] = spent.retries[slot] + 1
    return true
end

return M
