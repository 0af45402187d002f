-- The edge's own answers, for when no app gave one. HTML for people, JSON for whoever prefers it.

local own_pages = require "paasd.own_pages"
local routes = require "paasd.routes"

local find, gsub, lower = string.find, string.gsub, string.lower
local tostring = tostring

local M = {}

local https_port

local RETRY_AFTER = 3

local answers = {
    [401] = {file = "unauthorized.html", code = "unauthorized", detail = "A name and its password are needed."},
    ["sign-in"] = {file = "sign-in.html", code = "sign-in", detail = "Sign in: {{command}}"},
    ["link-only"] = {file = "link-only.html", code = "link-only", detail = "This link is opened, by GET."},
    [403] = {file = "forbidden.html", code = "forbidden", detail = "This app may only be asked over HTTPS."},
    [404] = {file = "unknown-host.html", code = "unknown-host", detail = "No app answers at this host name."},
    [500] = {file = "app-silent.html", code = "internal-error", detail = "The request could not be passed on."},
    [502] = {file = "app-silent.html", code = "app-silent", detail = "The app did not answer."},
    [503] = {file = "no-instance.html", code = "no-instance", detail = "No instance of this app is running."},
    [504] = {file = "app-slow.html", code = "app-slow", detail = "The app did not answer in time."},
    ["not-ready"] = {file = "no-instance.html", code = "not-ready", detail = "The app's own site is not ready yet."},
    denied = {file = "denied.html", code = "denied", detail = "This address may not ask this app."},
    ["cross-origin"] = {
        file = "cross-origin.html", code = "cross-origin", detail = "Scripts of that origin may not use this app.",
    },
    ["breaker-open"] = {
        file = "breaker-open.html", code = "breaker-open", detail = "The app failed too often; try again in a moment.",
    },
    maintenance = {
        file = "maintenance.html", code = "maintenance", detail = "The app is being worked on; try again later.",
    },
    ["too-many"] = {
        file = "too-many.html", code = "too-many-requests", detail = "Too many requests; try again in a moment.",
    },
    ["under-attack"] = {file = "under-attack.html", code = "under-attack", detail = "Prove some work first."},
    ["browsers-only"] = {
        file = "browsers-only.html", code = "under-attack", detail = "Only browsers are let in for now; try again later.",
    },
    busy = {file = "busy.html", code = "busy", detail = "It could not be checked who you are; try again in a moment."},
    waking = {file = "waking.html", code = "waking", detail = "The app is being woken; try again in a moment."},
    ["not-woken"] = {file = "not-woken.html", code = "not-woken", detail = "The app could not be started."},
}

-- Read once in the master: a worker need not be able to read the files.
function M.load(directory, port_of_https)
    https_port = port_of_https
    for _, answer in pairs(answers) do
        local file = assert(io.open(directory .. "/" .. answer.file, "r"))
        answer.html = file:read("*a")
        file:close()
    end
end

local function prefers_json()
    local accept = lower(ngx.var.http_accept or "")
    local json, html = find(accept, "application/json", 1, true), find(accept, "text/html", 1, true)
    return json and (not html or json < html)
end

-- Which of its own pages an app may have for an answer.
local function kind_of(status, why)
    if why == "maintenance" then
        return why
    elseif why ~= "waking" and why ~= "not-ready" and status >= 502 then
        return tostring(status)
    end
end

-- `why` chooses among several pages of a status; `seconds` is when to try again; `app` whose own page may be shown;
-- `values` stand in the page as `{{name}}`.
function M.send(status, why, seconds, app, values)
    local answer, kind = answers[why or status], kind_of(status, why)
    local body, detail = app and kind and own_pages.of(app, kind) or answer.html, answer.detail
    if values then
        body, detail = gsub(body, "{{(%l+)}}", values), gsub(detail, "{{(%l+)}}", values)
    end
    ngx.status = status
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Content-Type"] = "text/html; charset=utf-8"
    if status >= 500 or seconds then
        ngx.header["Retry-After"] = seconds or RETRY_AFTER
    end
    if prefers_json() then
        ngx.header["Content-Type"] = "application/problem+json"
        body = string.format('{"type":"about:blank#%s","title":"%s","status":%d,"code":"%s","detail":"%s"}\n',
            answer.code, answer.code:gsub("-", " "), status, answer.code, detail)
    end
    ngx.header["Content-Length"] = #body
    ngx.print(body)
end

-- In the gate: answers, and the request goes no further.
function M.refuse(status, why, seconds, app, values)
    M.send(status, why, seconds, app, values)
    return ngx.exit(ngx.HTTP_OK)
end

-- For a client that asks for too much of the whole box.
function M.limited()
    return M.send(429, "too-many", 1)
end

function M.has_https()
    return https_port ~= 0
end

-- The redirect is not to be remembered for good: the app may lose its certificate.
function M.to_https()
    local port = https_port ~= 443 and ":" .. https_port or ""
    ngx.header["Cache-Control"] = "no-store"
    return ngx.redirect("https://" .. ngx.var.host .. port .. ngx.var.request_uri, 308)
end

-- For an app that could not be reached: 503 when it has nowhere to go, else what became of the last try.
function M.failed(app)
    if routes.of(app).count == 0 then
        return M.send(503, nil, nil, app)
    end
    -- After a time-out Nginx may list one more try, a 502, which the balancer refused.
    local timed_out = find(ngx.var.upstream_status or "", "504[, 502]*$")
    return M.send(timed_out and 504 or 502, nil, nil, app)
end

return M
