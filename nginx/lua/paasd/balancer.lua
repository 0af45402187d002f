-- Picks the endpoint of a request, and the next one when a connection could not be made.

local base = require "resty.core.base"
local balancer = require "ngx.balancer"
local ffi = require "ffi"
local gate = require "paasd.gate"
local routes = require "paasd.routes"
local workers = require "paasd.workers"

local cast, tonumber, gmatch, min = ffi.cast, tonumber, string.gmatch, math.min
local get_request = base.get_request
local set_current_peer, set_more_tries, set_timeouts = balancer.set_current_peer, balancer.set_more_tries, balancer.set_timeouts
local route_of, app_of = routes.of, gate.app
local now = ngx.now

local BUSY = -3          -- NGX_BUSY: Nginx answers 502, and the error page is ours
local MAX_TRIES = 5
local PENALTY = 1        -- seconds a worker avoids an endpoint that refused

local M = {}

-- Request (its address) -> endpoint it was sent to, until it ends: an entry when a request asks again means that its
-- endpoint failed. Much cheaper than ngx.ctx, which makes a table for each request.
local current = {}

-- Requests among them that are WebSockets or event streams, which a retiring instance keeps longer.
local streaming = {}

-- The endpoint of a finished request, whose place it gives back; nil when it never had one.
function M.release()
    local request = tonumber(cast("uintptr_t", get_request()))
    local endpoint = current[request]
    if endpoint then
        current[request] = nil
        endpoint.active = endpoint.active - 1
        if streaming[request] then
            streaming[request] = nil
            endpoint.streams = endpoint.streams - 1
        end
    end
    return endpoint
end

local function next_of(route)
    local position = route.position
    route.position = position < route.size and position + 1 or 1
    return route.slots[position]
end

-- Where a new request goes: the route itself, or its canary. A header or cookie may say `always` or `never`; all others
-- go by its share.
local function track_of(route)
    local canary = route.canary
    if not canary then
        return route
    end
    local wish = canary.variable and ngx.var[canary.variable]
    if wish == "always" then
        return canary
    elseif wish == "never" then
        return route
    end
    canary.credit = canary.credit + canary.percent
    if canary.credit < 100 then
        return route
    end
    canary.credit = canary.credit - 100
    return canary
end

-- As next_of, but around endpoints that refused a moment ago, unless all did.
local function next_up(route)
    local time = now()
    if time >= route.careful_until then
        route.careful_until = nil
        return next_of(route)
    end
    for _ = 1, route.size do
        local endpoint = next_of(route)
        if endpoint.down_until <= time then
            return endpoint
        end
    end
    return next_of(route)
end

-- Bytes that reached an earlier endpoint may have been acted on: such a request is never sent again.
function M.was_sent()
    for number in gmatch(ngx.var.upstream_bytes_sent or "", "%d+") do
        if number ~= "0" then
            return true
        end
    end
    return false
end

local function retried(route, request)
    local failed = current[request]
    M.release()
    if M.was_sent() then
        return false
    end
    if failed then
        failed.down_until = now() + PENALTY
        route.careful_until = failed.down_until
    end
    return true
end

function M.pick()
    local request = tonumber(cast("uintptr_t", get_request()))
    local app = app_of(request)
    if not app then     -- its host name was taken away while its body came
        return ngx.exit(BUSY)
    end
    local route = route_of(app)
    local track = route        -- what a canary refused goes to the others
    if current[request] then
        if not retried(route, request) then
            return ngx.exit(BUSY)
        end
    else
        track = track_of(route)
        if route.count > 1 or track ~= route then
            set_more_tries(min(route.count, MAX_TRIES) - (track == route and 1 or 0))
        end
    end
    local endpoint
    if track.careful_until then
        endpoint = next_up(track)
    else
        endpoint = next_of(track)
    end
    if not endpoint then
        return ngx.exit(BUSY)
    end
    current[request] = endpoint
    endpoint.active = endpoint.active + 1
    if workers.exiting then
        workers.report()
    end
    if route.policy and route.policy.timeouts then
        local timeouts = route.policy.timeouts
        set_timeouts(timeouts.connect, timeouts.send, timeouts.read)
    end
    set_current_peer(endpoint.address, endpoint.port)
end

function M.pick_stream()
    M.pick()
    local request = tonumber(cast("uintptr_t", get_request()))
    local endpoint = current[request]
    if not endpoint then     -- the pick refused, which does not end this function
        return
    end
    streaming[request] = true
    endpoint.streams = endpoint.streams + 1
    if workers.exiting then
        workers.report()
    end
end

return M
