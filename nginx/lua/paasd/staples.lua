-- Owns the keys `staple:<id>` of the shared dictionary `paasd_tls`: what authorities said of certificates (OCSP), to be
-- shown with them. They are gone when they are out of date.
--
-- A text is a line `good <time it is out of date> <hash of all that with the id>`, then the answer in base64. All others are not
-- for clients.

local ocsp = require "ngx.ocsp"

local dict = ngx.shared.paasd_tls
local match, time = string.match, ngx.time
local tonumber = tonumber

local M = {}

local function parse(id, text)
    local ends, sum, encoded = match(text, "^good (%d+) (%x+)\n([%w+/=]+)\n$")
    if not ends or ngx.md5(id .. " good " .. ends .. " " .. encoded) ~= sum then
        return nil
    end
    local der = ngx.decode_base64(encoded)
    return der and {der = der, ends = tonumber(ends)}
end

-- What can be shown with a certificate; nil for most.
function M.of(id)
    local text = dict:get("staple:" .. id)
    return text and parse(id, text)
end

-- To clients that ask for it.
function M.show(staple)
    if time() < staple.ends then
        local ok, err = ocsp.set_ocsp_status_resp(staple.der)
        if not ok then
            ngx.log(ngx.ERR, "an OCSP answer cannot be stapled: ", err)
        end
    end
end

function M.set(id, text)
    local staple = parse(id, text)
    local left = staple and staple.ends - time() or 0
    local ok, err = true, nil
    if left > 0 then
        ok, err = dict:safe_set("staple:" .. id, text, left)
    else
        dict:delete("staple:" .. id)
    end
    dict:incr("version", 1, 0)
    return ok, err
end

function M.remove(id)
    dict:delete("staple:" .. id)
    dict:incr("version", 1, 0)
end

return M
