-- Passes the trace that a request belongs to (W3C Trace Context), or begins one.

local find, match, sub = string.find, string.match, string.sub
local ngx, var = ngx, ngx.var

local M = {}

local function is_valid(text)
    local version, trace, parent, rest = match(text, "^(%x%x)%-(%x+)%-(%x+)%-%x%x(.*)$")
    return version and version ~= "ff" and not find(text, "%u")
        and #trace == 32 and #parent == 16 and find(trace, "[^0]") and find(parent, "[^0]")
        and (rest == "" or version ~= "00" and sub(rest, 1, 1) == "-")
end

-- Settings: `{"flags": "01"}` for traces begun here. Their id is that of the request.
function M.compile(settings)
    local flags = settings.flags

    local function access()
        local given = var.http_traceparent
        if given and #given <= 512 and is_valid(given) then
            ngx.req.set_header("traceparent", given)    -- once, if it came twice
            return
        end
        local id = var.request_id
        ngx.req.set_header("traceparent", "00-" .. id .. "-" .. sub(id, 17) .. "-" .. flags)
        ngx.req.clear_header("tracestate")              -- it belonged to what was no trace
    end

    return {access = access}
end

return M
