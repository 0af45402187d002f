-- Owns the shared dictionary `paasd_tls`: certificates with their keys, which host names have one, which are redirected to
-- HTTPS, and answers to ACME challenges.
--
-- A certificate is text: a line `<least TLS version> <name> …`, then its key and its chain in PEM. Its id never comes again
-- for another one. A worker parses it once: doing so in each handshake would make handshakes three times as dear.

local ssl = require "ngx.ssl"
local staples = require "paasd.staples"

local dict = ngx.shared.paasd_tls
local gmatch, match, lower = string.gmatch, string.match, string.lower
local ipairs, pairs, tonumber = ipairs, pairs, tonumber
local ERROR = ngx.ERROR
local CHALLENGE_TIME = 3600    -- seconds an answer is kept for an authority that never asks
local VERSIONS = {["1.2"] = 0x0303, ["1.3"] = 0x0304}

local M = {changed = function() end}

local seen             -- version of the dictionary that `by_name` was made from
local by_name = {}     -- host name, perhaps `*.parent` -> parsed certificate
local parsed = {}      -- id -> {text, chain, key, least, staple}

local function parse(id, text)
    local version, pem = match(text, "^(%S+)[^\n]*\n(.*)$")
    local chain, chain_error = ssl.parse_pem_cert(pem or "")
    local key, key_error = ssl.parse_pem_priv_key(pem or "")
    if not chain or not key then
        ngx.log(ngx.ERR, "certificate ", id, " cannot be read: ", chain_error or key_error)
        return nil
    end
    return {text = text, chain = chain, key = key, least = VERSIONS[version] or VERSIONS["1.3"]}
end

-- A text that was put right keeps its id, so the text decides.
local function of_id(id)
    local text = dict:get("certificate:" .. id)
    local found = parsed[id]
    if text and (not found or found.text ~= text) then
        found = parse(id, text)
        parsed[id] = found
    end
    if not text or not found then
        return nil
    end
    found.staple = staples.of(id)
    return found
end

local function forget(version)
    seen = version
    by_name = {}
    for id in pairs(parsed) do
        if not dict:ttl("certificate:" .. id) then
            parsed[id] = nil
        end
    end
end

-- Only names that have a certificate are remembered, so that strangers cannot fill a worker's memory with others.
local function named(name)
    local found = by_name[name]
    if not found then
        local id = dict:get("name:" .. name)
        found = id and of_id(id)
        by_name[name] = found
    end
    return found
end

local function of_host(host)
    local version = dict:get("version")
    if version ~= seen then
        forget(version)
    end
    local found = named(host)
    if not found then
        local parent = match(host, "^[^.]+(%..+)$")
        found = parent and named("*" .. parent)
    end
    return found
end

-- In each full handshake. Nginx has chosen the server block by the same name before.
function M.handshake()
    local host = ssl.server_name()
    local found = host and of_host(lower(host))
    if not found or ssl.get_tls1_version() < found.least then
        return ngx.exit(ERROR)
    end
    ssl.clear_certs()
    local ok, err = ssl.set_cert(found.chain)
    if ok then
        ok, err = ssl.set_priv_key(found.key)
    end
    if not ok then
        ngx.log(ngx.ERR, "the certificate of ", host, " cannot be used: ", err)
        return ngx.exit(ERROR)
    end
    if found.staple then
        staples.show(found.staple)
    end
end

local function names_of(text)
    return gmatch(match(text or "", "^%S+([^\n]*)") or "", "%S+")
end

function M.set(id, text)
    local before = dict:get("certificate:" .. id)
    local ok, err = dict:safe_set("certificate:" .. id, text)
    local current = {}
    if ok then
        for name in names_of(text) do
            current[name] = true
            ok, err = dict:safe_set("name:" .. name, id)
        end
        for name in names_of(before) do
            if not current[name] and dict:get("name:" .. name) == id then
                dict:delete("name:" .. name)
            end
        end
    end
    dict:incr("version", 1, 0)
    return ok, err
end

function M.remove(id)
    for name in names_of(dict:get("certificate:" .. id)) do
        if dict:get("name:" .. name) == id then
            dict:delete("name:" .. name)
        end
    end
    dict:delete("certificate:" .. id)
    staples.remove(id)
end

local function lines(prefix, format)
    local text = {}
    for _, key in ipairs(dict:get_keys(0)) do
        local rest = match(key, "^" .. prefix .. ":(.+)$")
        local value = rest and dict:get(key)
        if value then
            text[#text + 1] = rest .. " " .. format(value) .. "\n"
        end
    end
    return table.concat(text)
end

-- `<id> <hash of its text>`: enough to see what has to be put right.
function M.list()
    return lines("certificate", ngx.md5)
end

-- The same of what is shown with them.
function M.staples()
    return lines("staple", ngx.md5)
end

-- `<name> <id>`
function M.names()
    return lines("name", function(id) return id end)
end

-- Host names of an app that plain HTTP sends on to HTTPS, as a set; nil for an app that has none.
function M.redirects_of(app)
    local text = dict:get("redirects:" .. app)
    if not text then
        return nil
    end
    local hosts = {}
    for host in gmatch(text, "%S+") do
        hosts[host] = true
    end
    return hosts
end

function M.set_redirects(app, hosts)
    local ok, err = true, nil
    if hosts == "" then
        dict:delete("redirects:" .. app)
    else
        ok, err = dict:safe_set("redirects:" .. app, hosts)
    end
    M.changed()
    return ok, err
end

function M.redirects()
    return lines("redirects", function(hosts) return hosts end)
end

function M.set_challenge(token, answer)
    return dict:safe_set("challenge:" .. token, answer, CHALLENGE_TIME)
end

function M.remove_challenge(token)
    dict:delete("challenge:" .. token)
end

-- What an authority is to be told that asks for this path; nil when it is not for us.
function M.challenge_answer()
    local token = match(ngx.var.uri, "^/%.well%-known/acme%-challenge/([%w_-]+)$")
    return token and dict:get("challenge:" .. token)
end

function M.challenge()
    local answer = M.challenge_answer()
    if not answer then
        return ngx.exit(404)
    end
    ngx.header["Content-Type"] = "application/octet-stream"
    ngx.header["Content-Length"] = #answer
    ngx.print(answer)
end

local function read(path)
    local file = io.open(path, "r")
    local text = file and file:read("*a")
    if file then
        file:close()
    end
    return text
end

-- At Nginx's own start, from the files; a reload keeps what is live. What cannot be read is put right by the daemon.
function M.load(directory)
    if dict:get("loaded") then
        return
    end
    for id in gmatch(read(directory .. "/index.txt") or "", "[%w-]+") do
        local text = read(directory .. "/" .. id .. ".pem")
        if text then
            M.set(id, text)
            staples.set(id, read(directory .. "/" .. id .. ".ocsp") or "")
        end
    end
    for app, hosts in gmatch(read(directory .. "/redirects.txt") or "", "([%w-]+) ([^\n]*)\n") do
        M.set_redirects(app, hosts)
    end
    dict:set("loaded", true)
end

return M
