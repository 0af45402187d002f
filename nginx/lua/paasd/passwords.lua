-- Checks names and passwords against slow hashes, without holding up anything else: one at a time in a thread of its own.
--
-- What was right is remembered for a while, under a keyed hash. Wrong ones cost their client a token each: ten at once and
-- ten a minute, so that guessing is slow and one address cannot keep the thread to itself.

local b64 = require "ngx.base64"
local lrucache = require "resty.lrucache"
local semaphore = require "ngx.semaphore"
local buckets = require "paasd.buckets"
local clients = require "paasd.clients"
local secret = require "paasd.secret"

local find, match, ngx = string.find, string.match, ngx
local dict = ngx.shared.paasd_limits

local REMEMBERED = 1000
local SECONDS = 300
local EVERY, BURST = 6, 10
local MOST_WAITING = 64
local PATIENCE = 5       -- seconds
local LONGEST = 1024     -- bytes of a name and a password

local M = {}

local known = lrucache.new(REMEMBERED)
local turn               -- a thread's queue that overflows brings its worker down, so that it never gets more than one
local waiting, since = 0, 0

-- Of `$pbkdf2-sha256$<iterations>$<salt>$<hash>`.
function M.parse(text)
    local iterations, salt, hash = match(text, "^%$pbkdf2%-sha256%$(%d+)%$([%w_-]+)%$([%w_-]+)$")
    salt, hash = b64.decode_base64url(salt), b64.decode_base64url(hash)
    assert(#salt >= 16 and #hash == 32)
    return {text = text, iterations = tonumber(iterations), salt = salt, hash = hash}
end

-- A turn whose request ended in the middle comes back by itself.
local function wait_for_turn()
    turn = turn or semaphore.new(1)
    waiting = waiting + 1
    local ok = waiting <= MOST_WAITING and turn:wait(PATIENCE)
    waiting = waiting - 1
    if ok or ngx.now() - since > PATIENCE and waiting < MOST_WAITING then
        since = ngx.now()
        return true
    end
    return false
end

-- 32 bytes; nil when there is no time for it.
local function derived(stored, password)
    if not wait_for_turn() then
        return nil
    end
    local ok, bytes = ngx.run_worker_thread(
        "paasd_passwords", "paasd.derive", "derive", password, stored.salt, stored.iterations)
    turn:post(1)
    return ok and type(bytes) == "string" and bytes or nil
end

-- Whether `users` has this `<name>:<password>`: true or false; nil and the seconds to wait when it cannot be said now.
function M.check(app, users, credentials)
    local name, password = match(credentials, "^([^:]*):(.*)$")
    -- PBKDF2 takes a password and the same with zero bytes behind it for one.
    if not name or #credentials > LONGEST or find(credentials, "%c") then
        return false
    end
    local stored = users[name]
    local key = stored and secret.sign(app .. "|" .. stored.text .. "|" .. credentials)
    if key and known:get(key) then
        return true
    end
    local tries = ngx.md5_bin(app .. "|password|" .. clients.source())
    local wait = buckets.take(dict, tries, EVERY, BURST, buckets.now())
    if wait then
        return nil, math.ceil(wait), 429
    end
    local _, anybody = next(users)      -- who is not there takes as long as who is
    local bytes = derived(stored or anybody, password)
    if not bytes then
        buckets.give_back(dict, tries, EVERY)
        return nil, 1, 503
    end
    if not stored or not secret.equal(bytes, stored.hash) then
        return false
    end
    buckets.give_back(dict, tries, EVERY)
    known:set(key, true, SECONDS)
    return true
end

return M
