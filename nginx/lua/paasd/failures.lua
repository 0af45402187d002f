-- What became of a request's try at an endpoint that did not answer well, in the words of the settings: connect, timeout,
-- 502, 503, 504. A connection that ends without an answer after the request was sent is a 502.

local gmatch, ipairs = string.gmatch, ipairs

local M = {}

-- A value of one of Nginx's lists `a, b : c`, counted from its end.
local function from_end(text, back)
    local values, count = {}, 0
    for value in gmatch(text or "", "[%d.-]+") do
        count = count + 1
        values[count] = value
    end
    return values[count - back]
end

-- Of the last try that there was, or with `back` = 1 of the one before. Nil when it did not fail in one of these ways.
function M.kind(back)
    local status = from_end(ngx.var.upstream_status, back)
    if status ~= "502" and status ~= "503" and status ~= "504" then
        return nil
    end
    if from_end(ngx.var.upstream_bytes_received, back) ~= "0" then
        return status
    elseif from_end(ngx.var.upstream_bytes_sent, back) == "0" then
        return "connect"
    end
    return status == "504" and "timeout" or "502"
end

-- List of words -> set; `usual` when there is none.
function M.set(words, usual)
    local found = {}
    for _, word in ipairs(words or usual) do
        found[word] = true
    end
    return found
end

return M
