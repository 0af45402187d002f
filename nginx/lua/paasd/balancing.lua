-- How an endpoint is chosen: round robin, least connections, latency, hash; and which one a sticky session is stuck to.
--
-- A function `choose(plan, track, time)` returns an endpoint of the track, around those that are down, or any one when all
-- are. What it weighs is this worker's own view: a count that all workers share would cost each request more than a
-- better choice saves.

local bit = require "bit"

local random, exp, log, huge, max = math.random, math.exp, math.log, math.huge, math.max
local band, bxor, lshift, rshift, tobit = bit.band, bit.bxor, bit.lshift, bit.rshift, bit.tobit
local sub, gsub, match = string.sub, string.gsub, string.match
local tonumber, ipairs = tonumber, ipairs
local crc32 = ngx.crc32_long
local ngx = ngx

local DECAY = 10         -- seconds in which what was seen of a latency loses its weight
local LEAST = 0.0005     -- seconds: below it latencies are the clock's rounding
local FAILED = 1         -- seconds that an answer 502 to 504 counts for, however quick it came
local UNTRIED = 0.5      -- seconds that a request counts for while an endpoint's first answer is awaited: fewer than FAILED
local HALF_KEY = 256     -- bytes of a hash key that count, from its start and from its end

local COOKIE = "paasd_instance"

local M = {}

local dict = ngx.shared.paasd_tables     -- nothing is ever evicted from it

function M.round(_, track, time)
    local slots, size, position = track.slots, track.size, track.position
    for _ = 1, size do
        local endpoint = slots[position]
        position = position < size and position + 1 or 1
        if endpoint.down_until <= time then
            track.position = position
            return endpoint
        end
    end
    track.position = position < size and position + 1 or 1
    return slots[position]
end

local round = M.round

-- The one with the fewest requests for its weight; equal ones take turns as in round robin.
local function least(plan, track, time)
    local best = round(plan, track, time)
    if not best then
        return nil
    end
    local members, count, index = track.members, track.count, track.turn or 1
    local fewest = best.down_until > time and huge or best.active / best.state.share
    track.turn = index < count and index + 1 or 1
    for _ = 1, count do
        index = index < count and index + 1 or 1
        local endpoint = members[index].endpoint
        if endpoint.down_until <= time and endpoint.active / endpoint.state.share < fewest then
            best, fewest = endpoint, endpoint.active / endpoint.state.share
        end
    end
    return best
end

local function cost(endpoint, time)
    if endpoint.down_until > time then
        return huge
    end
    local state = endpoint.state
    if state.latency == 0 then
        return endpoint.active * UNTRIED
    end
    return state.latency * exp((state.seen - time) / DECAY) * (endpoint.active + 1) / state.share
end

-- Of two random ones that with the lower cost: latency times what is under way, for its weight. Heavier ones are drawn
-- more often, too.
local function quickest(plan, track, time)
    local slots, size = track.slots, track.size
    if track.count < 2 then
        return round(plan, track, time)
    end
    local position = random(size)
    local first = slots[position]
    local second = first
    for _ = 1, 4 do
        second = slots[(position + random(size - 1) - 1) % size + 1]
        if second ~= first then
            break
        end
    end
    local cost_of_first, cost_of_second = cost(first, time), cost(second, time)
    if cost_of_second < cost_of_first then
        return second
    elseif cost_of_first == huge then
        return round(plan, track, time)
    end
    return first
end

-- Latencies rise at once and fall slowly, so that an endpoint that gets stuck is avoided from its first late answer on.
function M.observe(endpoint, seconds, failed, time)
    local state = endpoint.state
    seconds = max(seconds, failed and FAILED or LEAST)
    local remaining = exp((state.seen - time) / DECAY)
    local latency = state.latency * remaining
    state.latency = seconds > latency and seconds or latency + seconds * (1 - remaining)
    state.seen = time
end

-- 32-bit product, from halves so that no step leaves what a double holds exactly.
local function times(a, b)
    return tobit(band(a, 0xffff) * b + lshift(tobit(rshift(a, 16) * b), 16))
end

local function mixed(h)
    h = times(bxor(h, rshift(h, 16)), 0x45d9f3b)
    h = times(bxor(h, rshift(h, 16)), 0x45d9f3b)
    return bxor(h, rshift(h, 16)) + 2147483648
end

local function address_key()
    local address = ngx.var.binary_remote_addr
    return #address > 8 and sub(address, 1, 8) or address     -- a host has a whole /64 of IPv6
end

local function hash_of(plan)
    local key = plan.variable and ngx.var[plan.variable]
    if not key or key == "" then
        key = address_key()
    elseif #key > 2 * HALF_KEY then
        key = sub(key, 1, HALF_KEY) .. sub(key, -HALF_KEY)
    end
    return tobit(crc32(key))
end

-- Rendezvous hashing: each endpoint draws a number for the key, the smallest for its weight wins. Whoever leaves takes
-- only its own keys away, whoever comes takes its share from each.
local function hashed(plan, track, time)
    local members, hash = track.members, plan.hash or hash_of(plan)
    local best, smallest = nil, huge
    for index = 1, track.count do
        local member = members[index]
        local endpoint = member.endpoint
        if endpoint.down_until <= time then
            local draw = mixed(bxor(hash, endpoint.state.seed))
            if not track.even then
                draw = -log((draw + 0.5) / 4294967296) / member.weight
            end
            if draw < smallest then
                best, smallest = endpoint, draw
            end
        end
    end
    return best or round(plan, track, time)
end

-- A key's share of the canary is as firm as its endpoint.
local function takes_canary(plan, canary)
    if plan.choose ~= hashed then
        canary.credit = canary.credit + canary.percent
        if canary.credit < 100 then
            return false
        end
        canary.credit = canary.credit - 100
        return true
    end
    return mixed(plan.hash) % 100 < canary.percent
end

local function stuck(plan, wish, time)
    local endpoint = plan.stuck[ngx.var[plan.cookie] or ""] or plan.stuck[ngx.var[plan.cookie_elsewhere] or ""]
    if not endpoint or endpoint.down_until > time then
        return nil
    end
    if wish == "always" and not endpoint.canary or wish == "never" and endpoint.canary then
        return nil
    end
    return endpoint
end

-- Endpoint of a new request, and the track it was chosen from.
function M.first(plan, route, time)
    local canary = route.canary
    local wish = canary and canary.variable and ngx.var[canary.variable]
    local endpoint = plan.stuck and stuck(plan, wish, time)
    if endpoint then
        return endpoint
    end
    plan.hash = plan.choose == hashed and hash_of(plan)
    local track = route
    if canary and (wish == "always" or wish ~= "never" and takes_canary(plan, canary)) then
        track = canary
    end
    return plan.choose(plan, track, time)
end

-- Endpoint of a request that failed elsewhere, in the track of what is live: none that it has tried already.
function M.another(plan, route, tried, time)
    local before = {}
    for index, endpoint in ipairs(tried) do
        before[index] = endpoint.down_until
        endpoint.down_until = huge
    end
    plan.hash = nil
    local endpoint = plan.choose(plan, route, time)
    local is_new = endpoint and endpoint.down_until < huge
    for index = #tried, 1, -1 do
        tried[index].down_until = before[index]
    end
    return is_new and endpoint or nil
end

-- What cookies are made with, so that none tells an address: the same for all workers, until Nginx itself starts anew.
local function secret()
    local found = dict:get("secret of cookies")
    if not found then
        local file = assert(io.open("/dev/urandom", "rb"))
        found = file:read(32)
        file:close()
        local _, err = dict:safe_add("secret of cookies", found)
        found = err == "exists" and dict:get("secret of cookies") or found
    end
    return found
end

local function id_of(app, release, name)
    local digest = ngx.encode_base64(ngx.hmac_sha1(secret(), app .. " " .. release .. " " .. name), true)
    return (gsub(sub(digest, 1, 16), "[+/]", {["+"] = "-", ["/"] = "_"}))
end

local choices = {["least-connections"] = least, ewma = quickest, hash = hashed}

function M.compile(plan, balance)
    balance = balance or {}
    plan.choose = choices[balance.algorithm] or round
    plan.measures = plan.choose == quickest
    plan.variable = balance.variable
    plan.stuck = balance.sticky and {} or nil
    plan.cookie, plan.cookie_elsewhere = "cookie_" .. COOKIE, "cookie_" .. COOKIE .. "_" .. plan.app
end

-- Make an endpoint of the track ready to be chosen by this plan.
function M.prepare(plan, track, endpoint, weight, total)
    local state = endpoint.state
    track.even = total == weight * track.count and track.even ~= false
    state.share = weight * track.count / total
    state.seed = tobit(crc32(endpoint.name))
    if plan.stuck then
        state.id = state.id or id_of(plan.app, track.release, endpoint.name)
        plan.stuck[state.id] = endpoint
    end
end

function M.new_state()
    return {latency = 0, seen = 0, failures = 0, since = 0}
end

-- Cookie that sticks its client to `endpoint`; nil when it has it already, or when the answer is no reason to come back.
-- What is reached by a route of another app has a name of its own, since both have the same host.
function M.cookie(endpoint, is_elsewhere)
    local id = endpoint.state and endpoint.state.id
    local name = COOKIE .. (is_elsewhere and "_" .. endpoint.plan.app or "")
    if not id or ngx.status >= 500 or ngx.var["cookie_" .. name] == id then
        return nil
    end
    local secure = ngx.var.scheme == "https" and "; Secure" or ""
    return name .. "=" .. id .. "; Path=/; HttpOnly; SameSite=Lax" .. secure
end

-- Seconds until the app's last answer began, or until it was given up.
function M.seconds()
    return tonumber(match(ngx.var.upstream_header_time or "", "([%d.]+)$")
        or match(ngx.var.upstream_response_time or "", "([%d.]+)$")) or 0
end

return M
