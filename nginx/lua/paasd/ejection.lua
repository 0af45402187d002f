-- Takes endpoints out that fail again and again, for a while that grows. In the shared dictionary `paasd_balancing` under
-- `out|<app>|<release> <endpoint>`: `<until> <times>`.
--
-- Each worker counts the failures it sees; what it ejects, the others know within a tenth of a second. An ejected endpoint
-- is one with a late `down_until`. Never more than half of a track are out, so at least one stays.

local failures = require "paasd.failures"

local floor, min, max, format, match = math.floor, math.min, math.max, string.format, string.match
local tonumber, ipairs = tonumber, ipairs

local dict = ngx.shared.paasd_balancing
local LOOK = 0.1         -- seconds between two looks at what other workers ejected
local LONGEST = 300      -- seconds, unless the first time is set longer
local REMEMBERED = 300   -- seconds after its return in which an endpoint's next ejection is a longer one
local KINDS = {"connect", "timeout", "502", "503", "504"}

local M = {}

function M.compile(app, settings)
    return {
        app = app, least = settings.failures, window = settings.window or 30, time = settings.time or 30,
        on = failures.set(settings.on, KINDS), look_at = 0, seen = false,
    }
end

local function key_of(eject, track, endpoint)
    return "out|" .. eject.app .. "|" .. track.release .. " " .. endpoint.name
end

local function read(eject, track, endpoint)
    local ends, times = match(dict:get(key_of(eject, track, endpoint)) or "", "^([%d.]+) (%d+)$")
    return tonumber(ends) or 0, tonumber(times) or 0
end

local function adopt(eject, track, time)
    local room = floor(track.count / 2)
    for _, member in ipairs(track.members) do
        local ends = read(eject, track, member.endpoint)
        if ends > time and room > 0 then
            room = room - 1
            member.endpoint.down_until = max(member.endpoint.down_until, ends)
        end
    end
end

-- What other workers found out.
function M.look(eject, tracks, time)
    if time < eject.look_at then
        return
    end
    eject.look_at = time + LOOK
    local version = dict:get("outs|" .. eject.app)
    if version ~= eject.seen then
        eject.seen = version
        for _, track in ipairs(tracks) do
            adopt(eject, track, time)
        end
    end
end

local function out(eject, track, time)
    local count = 0
    for _, member in ipairs(track.members) do
        local ends = read(eject, track, member.endpoint)
        if ends > time then
            count = count + 1
        end
    end
    return count
end

local function take_out(eject, endpoint, time)
    local track = endpoint.state.track
    if endpoint.state.endpoint ~= endpoint or out(eject, track, time) + 1 > floor(track.count / 2) then
        return
    end
    local ends, times = read(eject, track, endpoint)
    if ends > time then    -- answers that were still under way
        return
    end
    local seconds = min(eject.time * (times + 1), max(eject.time, LONGEST))
    dict:set(key_of(eject, track, endpoint), format("%.3f %d", time + seconds, times + 1), seconds + REMEMBERED)
    dict:incr("outs|" .. eject.app, 1, 0)
    endpoint.down_until = max(endpoint.down_until, time + seconds)
    endpoint.state.failures = 0
end

-- What became of one try at `endpoint`; no `kind` when it went well.
function M.note(eject, endpoint, kind, time)
    local state = endpoint.state
    if not kind or not eject.on[kind] then
        state.failures = 0
        return
    end
    if state.failures == 0 or time - state.since > eject.window then
        state.failures, state.since = 0, time
    end
    state.failures = state.failures + 1
    if state.failures >= eject.least then
        take_out(eject, endpoint, time)
    end
end

-- Lines `<app> <release> <endpoint> <seconds left> <times>` of what is out now.
function M.text()
    local lines, time = {}, ngx.now()
    for _, key in ipairs(dict:get_keys(0)) do
        local app, endpoint = match(key, "^out|([^|]+)|(.+)$")
        if app then
            local ends, times = match(dict:get(key) or "", "^([%d.]+) (%d+)$")
            if ends and tonumber(ends) > time then
                lines[#lines + 1] = format("%s %s %.3f %s\n", app, endpoint, tonumber(ends) - time, times)
            end
        end
    end
    return table.concat(lines)
end

return M
