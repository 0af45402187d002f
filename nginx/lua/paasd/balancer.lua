-- Picks the endpoint of a request, and the next one when a connection could not be made.

local balancer = require "ngx.balancer"
local balancing = require "paasd.balancing"
local breaker = require "paasd.breaker"
local ejection = require "paasd.ejection"
local failures = require "paasd.failures"
local gate = require "paasd.gate"
local pages = require "paasd.pages"
local plans = require "paasd.plans"
local requests = require "paasd.requests"
local retries = require "paasd.retries"
local routes = require "paasd.routes"
local workers = require "paasd.workers"

local gmatch, min, max = string.gmatch, math.min, math.max
local this_request = requests.current
local set_current_peer, set_more_tries = balancer.set_current_peer, balancer.set_more_tries
local set_timeouts = balancer.set_timeouts
local last_route_of, app_of, open_app = routes.last_of, gate.app, gate.open_app
local now = ngx.now

local BUSY = -3          -- NGX_BUSY: Nginx answers 502, and the error page is ours
local MAX_TRIES = 5
local PENALTY = 1        -- seconds a worker avoids an endpoint that refused

local M = {}

-- Request -> endpoint it was sent to, until it ends: an entry when a request asks again means that its endpoint failed.
local current = {}

-- Requests among them that are WebSockets or event streams, which a retiring instance keeps longer.
local streaming = {}

-- Endpoints that a request of an app with a plan has failed at, from its second try on.
local tried = {}

-- The endpoint of a finished request, whose place it gives back; nil when it never had one.
function M.release()
    local request = this_request()
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

local function take(request, endpoint)
    current[request] = endpoint
    endpoint.active = endpoint.active + 1
    if workers.exiting then
        workers.report()
    end
    set_current_peer(endpoint.address, endpoint.port)
end

-- Endpoint of the next try of a request that `failed`, nil when there is none to be.
local function next_try(plan, route, request, failed, time)
    local kind, was_sent = failures.kind(0), M.was_sent()
    local again
    if plan.retries then
        again = retries.again(plan.retries, kind, was_sent, time)
    else
        again = not was_sent
    end
    local those = tried[request] or {}
    tried[request] = those
    if not again then      -- the log phase tells the plan of it
        those.given_up = true
        return nil
    end
    M.release()
    plans.failed(plan, failed, kind, time)
    if not was_sent then
        failed.down_until = max(failed.down_until, time + PENALTY)
    end
    those[#those + 1] = failed
    return balancing.another(plan, route, those, time)
end

local function first_try(plan, route, is_stream, time)
    local endpoint = balancing.first(plan, route, time)
    local most = min(route.count, MAX_TRIES) - (endpoint and endpoint.canary and 0 or 1)
    if plan.retries then
        most = retries.begin(plan.retries, most, is_stream, time)
    end
    if most > 0 then
        set_more_tries(most)
    end
    return endpoint
end

-- For an app whose policy has parts that act here.
local function pick_by_plan(app, route, request, is_stream)
    local plan, time = route.plan or plans.of(app, route), now()
    if plan.eject then
        ejection.look(plan.eject, plan.tracks, time)
    end
    local failed, endpoint = current[request], nil
    if failed then
        endpoint = next_try(plan, route, request, failed, time)
    elseif plan.breaker and route.count > 0 and not breaker.lets(plan.breaker, request, is_stream, time) then
        -- Its error page gives the breaker's answer, unless the cache has one that is out of date.
        return ngx.exit(ngx.var.paasd_cache ~= "off" and BUSY or ngx.ERROR)
    else
        endpoint = first_try(plan, route, is_stream, time)
    end
    if not endpoint then
        return ngx.exit(BUSY)
    end
    local timeouts = plan.timeouts
    if timeouts then
        local silence = is_stream and timeouts.stream
        set_timeouts(timeouts.connect, silence or timeouts.send, silence or timeouts.read)
    end
    take(request, endpoint)
end


-- The cache renews an answer: one try, of which the log phase never hears, so nothing is counted.
local function renew(app)
    local route, time, endpoint = last_route_of(app), now(), nil
    if route.policy then
        local plan = route.plan or plans.of(app, route)
        if not (plan.breaker and breaker.is_open(plan.breaker, time)) then
            endpoint = balancing.another(plan, route, {}, time)
            local timeouts = plan.timeouts
            if timeouts then
                set_timeouts(timeouts.connect, timeouts.send, timeouts.read)
            end
        end
    else
        endpoint = route.careful_until and next_up(route) or next_of(route)
    end
    if not endpoint then
        return ngx.exit(BUSY)
    end
    set_current_peer(endpoint.address, endpoint.port)
end

function M.pick(is_stream)
    local request = this_request()
    local app, is_renewal = open_app(request)
    if not app then     -- its host name was taken away while its body came
        return ngx.exit(BUSY)
    elseif is_renewal then
        return renew(app)
    end
    local route = last_route_of(app)
    if route.policy then
        return pick_by_plan(app, route, request, is_stream)
    end
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
    take(request, endpoint)
end

function M.pick_stream()
    M.pick(true)
    local request = this_request()
    local endpoint = current[request]
    if not endpoint or streaming[request] then     -- the pick refused, which does not end this function
        return
    end
    streaming[request] = true
    endpoint.streams = endpoint.streams + 1
    if workers.exiting then
        workers.report()
    end
end

-- A request has ended at `endpoint`, which belongs to a plan.
function M.ended(endpoint, status)
    local request = this_request()
    local those = tried[request]
    tried[request] = nil
    plans.ended(endpoint, request, status, those and those.given_up)
end

-- A request has ended without an endpoint.
function M.refused()
    local request = this_request()
    tried[request] = nil
    breaker.forget(request)
end

-- Answers a request that a breaker refused, or that failed here in a way that nobody foresaw.
function M.answer_refused()
    local status, seconds = breaker.answer(this_request())
    if status then
        return pages.send(status, "breaker-open", seconds, app_of())
    end
    return pages.send(500)
end

-- Whether a breaker refused this request.
function M.was_refused()
    return breaker.answer(this_request()) ~= nil
end

-- Cookie that sticks this request's client to its endpoint, if there is a need for one.
function M.cookie(is_elsewhere)
    local endpoint = current[this_request()]
    return endpoint and endpoint.plan and balancing.cookie(endpoint, is_elsewhere)
end

return M
