-- Lets in only those who may see the app in paasd. Settings: `{"key": "<base64url>", "seconds": 43200, "members": {"<id>":
-- ["<user>", "<key>"]…}, "host": "blog.example.org", "command": "ssh … apps:sign-in blog"}`.
--
-- A link that paasd gave opens a session, which is a cookie. Who is taken out of `members` has none any more. The app gets
-- to know who asks by a header, and never the cookie.

local b64 = require "ngx.base64"
local pages = require "paasd.pages"
local sign_in = require "paasd.sign_in"

local concat, find, format, gmatch, gsub, lower, match, sub =
    table.concat, string.find, string.format, string.gmatch, string.gsub, string.lower, string.match, string.sub
local ngx, var = ngx, ngx.var

local PREFIX = "/.paasd/"
local USER, KEY = "X-Paasd-User", "X-Paasd-Key"
local WANTED = 900       -- seconds for which it is kept where a visitor wanted to go
local LONGEST = 512      -- bytes of that
local MOST = 16          -- cookies of the name that are looked at; apps beside this one may have set some

local M = {}

-- Over HTTPS with a prefix that keeps other host names from setting it.
local function cookie_name(name)
    return (var.https == "on" and "__Host-paasd_" or "paasd_") .. name
end

local function cookie(name, value, seconds)
    local secure = var.https == "on" and "; Secure" or ""
    return format("%s=%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%s", cookie_name(name), value, seconds, secure)
end

-- Values of the cookies of a name, the first ones.
local function cookies(name)
    local found, wanted = {}, cookie_name(name)
    for piece in gmatch(var.http_cookie or "", "[^;]+") do
        local given, value = match(piece, "^%s*([^=%s]+)=([%w._-]*)%s*$")
        if given == wanted and #found < MOST then
            found[#found + 1] = value
        end
    end
    return found
end

-- Ours are nobody else's: the app might log them, or be another one at some path.
local function hide_cookies()
    local all = var.http_cookie
    if not all or not find(all, "paasd_", 1, true) then
        return
    end
    local kept = {}
    for piece in gmatch(all, "[^;]+") do
        local name = gsub(match(piece, "^%s*([^=%s]*)"), "^__Host%-", "")
        if name ~= "paasd_session" and name ~= "paasd_wanted" then
            kept[#kept + 1] = match(piece, "^%s*(.-)%s*$")
        end
    end
    ngx.req.set_header("Cookie", #kept > 0 and concat(kept, "; ") or nil)
end

-- A path of this host name and nothing else, whatever a browser makes of it.
local function is_local(path)
    return #path <= LONGEST and find(path, "^/[!-~]*$") and not find(path, "^/[/\\]") and not find(path, "\\", 1, true)
        and sub(path, 1, #PREFIX) ~= PREFIX
end

local function wanted()
    local path = b64.decode_base64url(cookies("wanted")[1] or "")
    return path and is_local(path) and path or "/"
end

-- Where to go after signing in, of what a person opens; not of scripts and pictures.
local function remember()
    local dest = var.http_sec_fetch_dest
    local is_page = ngx.req.get_method() == "GET" and find(lower(var.http_accept or ""), "text/html", 1, true)
    if is_page and (not dest or dest == "document") and is_local(var.request_uri) then
        ngx.header["Set-Cookie"] = cookie("wanted", b64.encode_base64url(var.request_uri), WANTED)
    end
end

local function go(to, set)
    ngx.status = 303
    ngx.header["Location"] = to
    ngx.header["Set-Cookie"] = set
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Referrer-Policy"] = "no-referrer"
    ngx.header["Content-Length"] = 0
    return ngx.exit(ngx.HTTP_OK)
end

local function ask(settings, app, note)
    local host = var.host
    local elsewhere = host ~= settings.host and find(host, "^[%w.-]+$") and " --host " .. host or ""
    ngx.header["WWW-Authenticate"] = 'Paasd realm="' .. app .. '"'
    ngx.header["Referrer-Policy"] = "no-referrer"
    return pages.refuse(401, "sign-in", nil, nil, {command = settings.command .. elsewhere, note = note or ""})
end

-- Only what opens the link is let use it up, and not what looks at it beforehand.
local function enter(settings, app)
    if ngx.req.get_method() ~= "GET" or var.http_sec_purpose or var.http_purpose then
        ngx.header["Allow"] = "GET"
        ngx.header["Referrer-Policy"] = "no-referrer"
        return pages.refuse(405, "link-only")
    end
    local link, is_busy = sign_in.redeem(settings.secret, var.arg_token or "")
    if is_busy then
        return pages.refuse(503, "busy")
    elseif not link or not settings.members[link.member] then
        return ask(settings, app, "That link was used, is too old, or is not for this address. Ask for a new one.")
    end
    local session = cookie("session", sign_in.session(settings.secret, link), settings.seconds)
    return go(wanted(), {session, cookie("wanted", "", 0)})
end

local function session_of(settings)
    for _, text in ipairs(cookies("session")) do
        local found = sign_in.find(settings.secret, text, settings.seconds)
        if found and settings.members[found.member] then
            return found
        end
    end
end

-- Other sites may not sign a visitor out.
local function leave(settings)
    local from = var.http_sec_fetch_site
    local session = session_of(settings)
    if not session or from == "cross-site" or from == "same-site" then
        return go("/", nil)
    end
    sign_in.finish(session)
    return go("/", cookie("session", "", 0))
end

-- What a page elsewhere does in a member's name, and be it another app of the same domain, which gets the cookie too. It
-- may lead here, and no more; unless `cors.origins` lets it in. Browsers that do not say where a page is from say its origin
-- where it could do harm.
local function is_foreign(request)
    if request.lets_origin then
        return false
    end
    local method, site, origin = ngx.req.get_method(), var.http_sec_fetch_site, var.http_origin
    local is_reading = (method == "GET" or method == "HEAD") and not var.http_upgrade
    if site == "same-site" or site == "cross-site" then
        return not (is_reading and var.http_sec_fetch_mode == "navigate")
    end
    return not is_reading and origin and lower(origin) ~= lower(var.scheme .. "://" .. var.paasd_host)
end

function M.compile(settings, app)
    settings.secret = assert(b64.decode_base64url(settings.key))
    assert(#settings.secret == 32 and settings.seconds and settings.members and settings.command)

    local function access(request)
        request.personal = true
        local path = var.uri
        if path == PREFIX .. "sign-in" then
            return enter(settings, app)
        elseif path == PREFIX .. "sign-out" then
            return leave(settings)
        end
        local session = session_of(settings)
        if not session then
            remember()
            return ask(settings, app)
        end
        if is_foreign(request) then
            return pages.refuse(403, "cross-origin")
        end
        local member = settings.members[session.member]
        request.member = true
        ngx.req.set_header(USER, member[1])
        ngx.req.set_header(KEY, member[2])
        hide_cookies()
    end

    return {access = access}
end

return M
