-- Circuit breakers: an app that fails too often gets no requests for a while, then a few as probes.
--
-- What all workers share is in the dictionary `paasd_balancing`: `state|<app>` = `<epoch> <until>`, where an epoch begins
-- with each change of state and `until` is 0 while closed; in an epoch, the counts of requests and errors by tenths of the
-- window, and those of probes. Workers add up by themselves and look there ten times a second.

local floor, ceil, max, format, match = math.floor, math.ceil, math.max, string.format, string.match
local tonumber, ipairs, concat = tonumber, ipairs, table.concat

local dict = ngx.shared.paasd_balancing
local LOOK = 0.1         -- seconds between two looks of a worker
local SLOTS = 10         -- parts of the window
local ERROR = 2 ^ 26     -- one error in a count that has requests in its lower part
local FORGOTTEN = 600    -- seconds without probes after which an open one is closed
local LOST = 10          -- seconds, at least, after which probes that have not ended are given up

local M = {}

local probing = {}       -- request -> epoch that it is a probe of
local refused = {}       -- request -> its breaker, which answers it

-- What is known of an app whose name others may have from now on.
function M.forget_app(app)
    dict:delete("state|" .. app)
    dict:delete("seen|" .. app)
end

function M.compile(app, settings)
    local breaker = {
        app = app, share = settings.share, window = settings.window or 10, least = settings.least or 20,
        time = settings.time or 30, probes = settings.probes or 3, answer = settings.answer or 503,
        requests = 0, errors = 0,
        look_at = 0, flush_at = 0, used_up = 0, epoch = "0", ends = 0, current = 0,
    }
    breaker.slot = breaker.window / SLOTS
    return breaker
end

local function look(breaker, time)
    breaker.look_at = time + LOOK
    local text = dict:get("state|" .. breaker.app)
    if text ~= breaker.text then
        local epoch, ends = match(text or "0 0", "^(%S+) (%S+)$")
        breaker.text, breaker.epoch, breaker.ends = text, epoch, tonumber(ends)
        breaker.used_up, breaker.requests, breaker.errors = 0, 0, 0
    end
end

local function change(breaker, ends, kept, time)
    dict:set("state|" .. breaker.app, format("%.3f %.3f", time, ends), kept)
    look(breaker, time)
end

local function open(breaker, time)
    change(breaker, time + breaker.time, breaker.time + FORGOTTEN, time)
end

local function key(breaker, epoch, what)
    return "epoch|" .. breaker.app .. "|" .. epoch .. "|" .. what
end

-- While half open: whether one more probe may go. Streams, which may never end and which the client's word makes, are none.
local function takes_probe(breaker, request, is_stream, time)
    if is_stream or time < breaker.used_up then
        return false
    end
    local probes = key(breaker, breaker.epoch, "probes")
    local number = dict:incr(probes, 1, 0, max(breaker.time, LOST))
    if not number or number > breaker.probes then
        dict:incr(probes, -1)
        breaker.used_up = time + LOOK
        return false
    end
    probing[request] = breaker.epoch
    return true
end

-- Whether a new request may go to the app.
function M.lets(breaker, request, is_stream, time)
    if time >= breaker.look_at then
        look(breaker, time)
    end
    if breaker.ends == 0 then
        return true
    end
    if time >= breaker.ends and takes_probe(breaker, request, is_stream, time) then
        return true
    end
    refused[request] = breaker
    return false
end

-- Whether the app gets nothing at all, or probes alone.
function M.is_open(breaker, time)
    if time >= breaker.look_at then
        look(breaker, time)
    end
    return breaker.ends ~= 0
end

local function judge(breaker, epoch, is_error, time)
    look(breaker, time)
    if epoch ~= breaker.epoch then
        return
    end
    if is_error then
        return open(breaker, time)
    end
    local good = dict:incr(key(breaker, epoch, "good"), 1, 0, breaker.time + FORGOTTEN)
    if good and good >= breaker.probes then
        change(breaker, 0, 2 * breaker.window, time)
    end
end

local function sum(breaker, slot)
    local both = 0
    for earlier = slot - SLOTS + 1, slot do
        both = both + (dict:get(key(breaker, breaker.epoch, earlier)) or 0)
    end
    return both % ERROR, floor(both / ERROR)
end

-- Hand over what this worker counted in the tenth of the window that `breaker.current` is.
local function hand_over(breaker)
    local kept = breaker.window + breaker.slot
    if breaker.ends == 0 and breaker.requests > 0 then
        dict:incr(key(breaker, breaker.epoch, breaker.current), breaker.requests + breaker.errors * ERROR, 0, kept)
    end
    breaker.requests, breaker.errors = 0, 0
end

-- Open if all workers have seen too much.
local function flush(breaker, time)
    breaker.flush_at = time + LOOK
    look(breaker, time)
    hand_over(breaker)
    if breaker.ends > 0 then
        return
    end
    local requests, errors = sum(breaker, breaker.current)
    local opens = requests >= breaker.least and errors * 100 >= breaker.share * requests and errors > 0
    local kept = opens and breaker.time + FORGOTTEN or breaker.window + breaker.slot
    dict:set("seen|" .. breaker.app, requests .. " " .. errors, kept)
    if opens then
        open(breaker, time)
    end
end

-- What became of a request that went to the app; `is_error` is nil when its client left before that was known.
function M.note(breaker, request, is_error, time)
    local epoch = probing[request]
    if epoch then
        probing[request] = nil
        if is_error == nil then
            dict:incr(key(breaker, epoch, "probes"), -1)
        else
            judge(breaker, epoch, is_error, time)
        end
        return
    end
    if is_error ~= nil then
        local slot = floor(time / breaker.slot)
        if slot ~= breaker.current then
            hand_over(breaker)
            breaker.current = slot
        end
        breaker.requests = breaker.requests + 1
        if is_error then
            breaker.errors = breaker.errors + 1
        end
        if time >= breaker.flush_at then
            flush(breaker, time)
        end
    end
end

-- Status and seconds until the next try, for a request that was refused; nothing for others.
function M.answer(request)
    local breaker = refused[request]
    if breaker then
        return breaker.answer, max(1, ceil(breaker.ends - ngx.now()))
    end
end

-- A request without an endpoint has ended.
function M.forget(request)
    refused[request] = nil
    probing[request] = nil
end

-- Lines `<app> <closed, open or half-open> <seconds until the probes> <requests> <errors>` of breakers that have counted
-- lately; the numbers are those of the window, or of the one that opened it.
function M.text()
    local lines, time = {}, ngx.now()
    for _, name in ipairs(dict:get_keys(0)) do
        local app = match(name, "^seen|(.+)$")
        if app then
            local ends = tonumber(match(dict:get("state|" .. app) or "0 0", " (%S+)$"))
            local state = ends == 0 and "closed" or ends > time and "open" or "half-open"
            lines[#lines + 1] = format("%s %s %.3f %s\n", app, state, max(0, ends - time), dict:get(name) or "0 0")
        end
    end
    return concat(lines)
end

return M
