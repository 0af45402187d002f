-- Links and sessions of an app's members: texts that nobody makes without the app's key, which paasd and the edge share.
-- Owns the shared dictionaries `paasd_sign_ins` and `paasd_sign_outs`: links that were used and sessions that were ended,
-- until they are over anyway. What is full of one keeps nothing out of the other.
--
-- A text is `<member>.<time it was made>.<id>.<signature>`; the signature also covers what it is for, and the one scheme and
-- host name where it holds. A session has the id of its link.

local b64 = require "ngx.base64"
local secret = require "paasd.secret"

local used, ended = ngx.shared.paasd_sign_ins, ngx.shared.paasd_sign_outs
local concat, match, ngx, tonumber, var = table.concat, string.match, ngx, tonumber, ngx.var

local LINK = 300         -- seconds for which a link holds; paasd says the same
local LONGEST_SESSION = 30 * 86400
local LONGEST = 200      -- bytes of a text
local AHEAD = 5          -- seconds: paasd's clock is the same one, read a moment later

local M = {}

local function signature(key, purpose, text)
    local signed = concat({purpose, var.scheme, var.host, text}, "\n")
    return b64.encode_base64url(secret.hmac(key, signed))
end

-- {member, time, id} of a text that holds for so many seconds; nil for all others.
local function read(key, purpose, text, seconds)
    if #text > LONGEST then
        return nil
    end
    local signed, member, time, id, given = match(text, "^((%w+)%.(%d+)%.([%w_-]+))%.([%w_-]+)$")
    if not signed or not secret.equal(given, signature(key, purpose, signed)) then
        return nil
    end
    local age = ngx.time() - tonumber(time)
    return age >= -AHEAD and age < seconds and {member = member, time = tonumber(time), id = id} or nil
end

-- In the master. Which links were used is forgotten when Nginx itself starts, so older ones hold no more.
function M.load()
    used:safe_add("started", ngx.time())
end

-- What a link says, once; nil for one that does not hold (any more). Nil and true: that cannot be said now.
function M.redeem(key, text)
    local link = read(key, "link", text, LINK)
    if not link or link.time < used:get("started") then
        return nil
    end
    local first, err = used:safe_add("link " .. link.id, true, LINK + 2 * AHEAD)
    if first then
        return link
    end
    return nil, err ~= "exists"
end

-- Text of a session that begins now, for whom the link was.
function M.session(key, link)
    local text = concat({link.member, ngx.time(), link.id}, ".")
    return text .. "." .. signature(key, "session", text)
end

function M.find(key, text, seconds)
    local session = read(key, "session", text, seconds)
    return session and not ended:get(session.id) and session or nil
end

-- Whatever copies of it there are hold no more, even if the time that sessions have is made longer.
function M.finish(session)
    ended:set(session.id, true, LONGEST_SESSION)
end

return M
