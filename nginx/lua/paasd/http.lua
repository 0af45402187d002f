-- Asks an HTTP server a question without a body, on behalf of a request. What it may cost is bounded: the time of all, the
-- bytes of head and body.

local ngx = ngx
local concat, find, gmatch, lower, match, sub = table.concat, string.find, string.gmatch, string.lower, string.match, string.sub
local max, tonumber = math.max, tonumber

local CONNECT, WHOLE = 2000, 5000    -- milliseconds
local MOST_HEAD, MOST_BODY = 32768, 65536

local M = {}

local function left(deadline)
    return max(1, (deadline - ngx.now()) * 1000)
end

-- Over TLS the certificate must be one that the host trusts, and the name's own: whoever else is at the address gets no
-- question.
local function connect(target, deadline)
    local socket = ngx.socket.tcp()
    socket:settimeouts(CONNECT, WHOLE, WHOLE)
    local ok, err = socket:connect(target.address, target.port)
    if ok and target.tls then
        socket:settimeout(left(deadline))
        ok, err = socket:sslhandshake(false, target.name, true)
    end
    return ok and socket, err
end

-- More bytes of an answer, nil at its end.
local function more(socket, deadline)
    if ngx.now() >= deadline then
        return nil, "timeout"
    end
    socket:settimeout(left(deadline))
    return socket:receiveany(8192)
end

local function read_head(socket, deadline)
    local text = ""
    while true do
        local _, last = find(text, "\r\n\r\n", 1, true)
        if last then
            return sub(text, 1, last - 2), sub(text, last + 1)
        end
        local piece, err = more(socket, deadline)
        text = text .. (piece or "")
        if not piece or #text > MOST_HEAD then
            return nil, err or "its head is too long"
        end
    end
end

-- {status, headers = {{name, value}…}}, names in lower case.
local function parse(head)
    local status, rest = match(head, "^HTTP/1%.[01] (%d%d%d)[^\r\n]*\r\n(.*)$")
    local answer = {status = tonumber(status), headers = {}}
    for line in gmatch(rest or "", "([^\n]*)\n") do
        local name, value = match(line, "^([%w_-]+):[ \t]*(.-)[ \t]*\r$")
        if not name or find(value, "%c") then
            return nil, "a header is malformed"
        end
        answer.headers[#answer.headers + 1] = {lower(name), value}
    end
    return status and answer, "it does not speak HTTP"
end

local function header(answer, wanted)
    for _, each in ipairs(answer.headers) do
        if each[1] == wanted then
            return each[2]
        end
    end
    return nil
end

local function unchunked(text)
    local pieces, position = {}, 1
    while true do
        local _, last, size = find(text, "^(%x%x?%x?%x?%x?)[^\r\n]*\r\n", position)
        size = tonumber(size or "", 16)
        if not size or last + size > #text then
            return nil, "its body is cut off"
        elseif size == 0 then
            return concat(pieces)
        end
        pieces[#pieces + 1] = sub(text, last + 1, last + size)
        position = last + size + 3
    end
end

local function read_body(socket, answer, text, deadline)
    local length = tonumber(header(answer, "content-length"))
    while not length or #text < length do
        local piece, err = more(socket, deadline)
        if not piece and err == "closed" then
            break
        end
        text = text .. (piece or "")
        if not piece or #text > MOST_BODY then
            return nil, err or "its body is too long"
        end
    end
    if length and #text < length then
        return nil, "its body is cut off"
    end
    local chunked = lower(header(answer, "transfer-encoding") or "") == "chunked"
    if chunked then
        return unchunked(text)
    end
    return sub(text, 1, length or -1)
end

local function exchange(socket, lines, deadline)
    local ok, err = socket:send(concat(lines, "\r\n") .. "\r\nConnection: close\r\n\r\n")
    if not ok then
        return nil, err
    end
    local head, rest = read_head(socket, deadline)
    if not head then
        return nil, rest
    end
    local answer
    answer, err = parse(head)
    if not answer or answer.status < 300 then
        return answer, err
    end
    answer.body, err = read_body(socket, answer, rest, deadline)
    return answer.body and answer, err
end

-- What `target`, {address, port, tls, name}, answers to the lines of a request: {status, headers, body}, the body only from
-- 300 on; nil and why there was no answer.
function M.ask(target, lines)
    local deadline = ngx.now() + WHOLE / 1000
    local socket, err = connect(target, deadline)
    if not socket then
        return nil, err
    end
    local answer
    answer, err = exchange(socket, lines, deadline)
    socket:close()
    return answer, err
end

return M
