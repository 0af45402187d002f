-- What an app's policy asks of the balancer, compiled by each worker for each version of the app's route. Only apps whose
-- policy has such parts get a plan; what it has learnt of an endpoint is handed on to the next plan.

local balancing = require "paasd.balancing"
local breaker = require "paasd.breaker"
local ejection = require "paasd.ejection"
local failures = require "paasd.failures"
local retries = require "paasd.retries"
local routes = require "paasd.routes"

local ipairs, pairs = ipairs, pairs
local now = ngx.now

local SWEEP = 60         -- seconds between two looks for plans of apps that are gone

local M = {}

local plans = {}         -- app -> its latest plan
local swept = 0

-- Endpoints keep their state as long as they belong to the same release: another one may get the address later.
local function prepare(plan, track, before)
    local total = 0
    for _, member in ipairs(track.members) do
        total = total + member.weight
    end
    for _, member in ipairs(track.members) do
        local endpoint = member.endpoint
        local name = track.release .. " " .. endpoint.name
        local state = before and before.states[name] or balancing.new_state()
        state.track, state.endpoint = track, endpoint
        endpoint.plan, endpoint.state = plan, state
        plan.states[name] = state
        balancing.prepare(plan, track, endpoint, member.weight, total)
    end
end

local function sweep(time)
    if time < swept + SWEEP then
        return
    end
    swept = time
    for app in pairs(plans) do
        if not routes.table:get(app) then
            plans[app] = nil
        end
    end
end

function M.of(app, route)
    local policy, before = route.policy, plans[app]
    local plan = {app = app, states = {}, tracks = route.canary and {route, route.canary} or {route}}
    balancing.compile(plan, policy.balance)
    for _, track in ipairs(plan.tracks) do
        prepare(plan, track, before)
    end
    plan.eject = policy.eject and ejection.compile(app, policy.eject)
    plan.retries = policy.retries and retries.compile(policy.retries, before and before.retries)
    plan.breaker = policy.breaker and breaker.compile(app, policy.breaker)
    plan.timeouts = policy.timeouts
    plan.watches = plan.eject or plan.measures
    route.plan, plans[app] = plan, plan
    sweep(now())
    return plan
end

-- A try at `endpoint` that was not the last one has failed as `kind`.
function M.failed(plan, endpoint, kind, time)
    if plan.measures then
        balancing.observe(endpoint, 0, true, time)
    end
    if plan.eject then
        ejection.note(plan.eject, endpoint, kind, time)
    end
end

-- A request has ended at `endpoint`; `given_up` when Nginx asked for another one in vain, which it lists as one more try.
-- One that its client left says nothing of app and endpoint.
function M.ended(endpoint, request, status, given_up)
    local plan, time = endpoint.plan, now()
    local left = status == 499
    if plan.watches and not left then
        local kind = status >= 502 and status <= 504 and failures.kind(given_up and 1 or 0) or nil
        if plan.measures then
            balancing.observe(endpoint, balancing.seconds(), kind, time)
        end
        if plan.eject then
            ejection.note(plan.eject, endpoint, kind, time)
        end
    end
    if plan.breaker then
        if left then
            breaker.note(plan.breaker, request, nil, time)
        else
            breaker.note(plan.breaker, request, status >= 500, time)
        end
    end
end

return M
