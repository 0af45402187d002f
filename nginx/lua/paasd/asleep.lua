-- Holds requests to sleeping apps until they are awake. Owns the shared dictionary `paasd_asleep`: which apps are wanted,
-- which paasd takes from here over the control socket, and which could not be woken a moment ago.
--
-- Costs apps that are awake nothing: a request comes here only after it found no endpoint.

local routes = require "paasd.routes"
local balancer = require "paasd.balancer"
local gate = require "paasd.gate"
local workers = require "paasd.workers"
local pages = require "paasd.pages"

local dict = ngx.shared.paasd_asleep
local match, concat, ipairs = string.match, table.concat, ipairs
local max, ceil, floor = math.max, math.ceil, math.floor

local MOST_HELD = 512    -- requests of one app; the others get the page at once
local STEP = 0.01        -- seconds between two looks of a held request
local MOST_LOOKS = 5000  -- a second, of all that a worker holds of one app
local FIRST = 4          -- requests that an instance gets at once when it has just woken; servers have short queues
local DOUBLED = 0.125    -- seconds after which it gets twice as many
local POLL = 0.02        -- seconds between two looks of paasd's own request
local RENEW = 1          -- seconds: what a daemon took and died with is told to the next one

local M = {}

local held = {}          -- app -> requests that this worker holds
local woke = {}          -- app -> when it had endpoints again; while some of them still wait for their turn

local function note(app)
    dict:set("wanted:" .. app, true, 5 * RENEW)
    dict:set("news", true)
end

M.want = note

-- Whether one more may go: all at once would overflow the queue of an app that has only just begun to take connections.
local function has_room(app, route, time)
    local under_way = 0
    for _, endpoint in ipairs(route.slots) do
        under_way = under_way + endpoint.active
    end
    woke[app] = woke[app] or time
    local first = max(1, floor(FIRST / ngx.worker.count()))
    return under_way < route.count * first * 2 ^ ((time - woke[app]) / DOUBLED)
end

-- Until the app has endpoints: true. False when it is not asleep any more, could not be woken, or the time is over.
local function wait(app, seconds)
    local deadline, noted = ngx.now() + seconds, 0
    while true do
        local route, time = routes.of(app), ngx.now()
        if route.count > 0 then
            if time >= deadline or has_room(app, route, time) then
                return true
            end
        else
            if not route.hold or dict:get("failed:" .. app) or workers.is_orphan() then
                return false
            end
            if time >= noted + RENEW then
                note(app)
                noted = time
            end
            if time >= deadline then
                return false
            end
        end
        ngx.sleep(max(STEP, held[app] / MOST_LOOKS))
    end
end

local function hold(app, seconds)
    if (held[app] or 0) >= ceil(MOST_HELD / ngx.worker.count()) then
        note(app)
        return false
    end
    held[app] = (held[app] or 0) + 1
    local awake = wait(app, seconds)
    held[app] = held[app] - 1
    if held[app] == 0 then
        held[app], woke[app] = nil, nil
    end
    return awake
end

-- For a request that reached no endpoint. One whose bytes an instance has had is not sent again.
function M.failed()
    local app = gate.app()
    if not app then
        return pages.send(404)
    end
    if not gate.is_open() then
        return pages.send(503, "not-ready")
    end
    if balancer.was_refused() then
        return balancer.answer_refused()
    end
    local seconds = routes.of(app).hold
    if not seconds or balancer.was_sent() then
        return pages.failed(app)
    end
    if hold(app, seconds) then
        balancer.release()
        return ngx.exec(gate.location())
    end
    if not routes.of(app).hold then
        return pages.failed(app)
    end
    return pages.send(503, dict:get("failed:" .. app) and "not-woken" or "waking", nil, app)
end

local function taken()
    local names = {}
    for _, key in ipairs(dict:get_keys(0)) do
        local app = match(key, "^wanted:(.+)$")
        if app then
            dict:delete(key)
        end
        if app and routes.of(app).hold then
            names[#names + 1] = app
        end
    end
    return names
end

-- Names of apps that are wanted, a line each, as soon as there are any; nothing when there are none for so long.
function M.wanted(seconds)
    local deadline = ngx.now() + seconds
    while true do
        if dict:get("news") then
            dict:delete("news")
            local names = taken()
            if #names > 0 then
                return concat(names, "\n") .. "\n"
            end
        end
        if ngx.now() >= deadline or ngx.worker.exiting() then
            return ""
        end
        ngx.sleep(POLL)
    end
end

-- The app could not be woken: for so many seconds, or until it gets a route, nobody is held and paasd not asked.
function M.refuse(app, seconds)
    dict:set("failed:" .. app, true, seconds)
end

-- The app goes to sleep or has woken: what was known of it before is over. Who is still held says so again.
function M.forget(app)
    dict:delete("wanted:" .. app)
    dict:delete("failed:" .. app)
end

return M
