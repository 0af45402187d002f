-- Sets, adds and removes headers of requests and of the app's answers. Settings: `{"request": [["set", "X-Tenant",
-- "{app}"]], "response": [["remove", "Server", ""]]}`.

local add_request_header = require("ngx.req").add_header
local add_header = require("ngx.resp").add_header

local in_turn = require("paasd.calls").in_turn

local byte, concat, find, format, gsub, sub = string.byte, table.concat, string.find, string.format, string.gsub, string.sub
local ipairs = ipairs
local ngx, var = ngx, ngx.var

local M = {}

local function escaped(character)
    return format("%%%02X", byte(character))
end

-- As the client wrote it, so that no %0d%0a becomes a line's end.
local function path()
    local uri = var.request_uri or "/"
    local question = find(uri, "?", 1, true)
    return (gsub(question and sub(uri, 1, question - 1) or uri, "[^!-~]", escaped))
end

local variables = {
    client_ip = function() return var.remote_addr end,
    host = function() return (gsub(var.host or "", "[^!-~]", "")) end,
    request_id = function() return var.paasd_request_id end,
    scheme = function() return var.scheme end,
    path = path,
}

-- A text, or a function that makes it when there are variables in it.
local function compile_value(text, app)
    text = gsub(text, "{app}", app)
    local pieces, from = {}, 1
    for start, name, after in text:gmatch("(){([%l_]+)}()") do
        if variables[name] then
            pieces[#pieces + 1] = sub(text, from, start - 1)
            pieces[#pieces + 1] = variables[name]
            from = after
        end
    end
    if #pieces == 0 then
        return text
    end
    pieces[#pieces + 1] = sub(text, from)
    return function()
        local made = {}
        for index, piece in ipairs(pieces) do
            made[index] = index % 2 == 0 and piece() or piece
        end
        return concat(made)
    end
end

local request_verbs = {
    set = ngx.req.set_header,
    add = add_request_header,
    remove = ngx.req.clear_header,
}

local response_verbs = {
    set = function(name, value) ngx.header[name] = value end,
    add = add_header,
    remove = function(name) ngx.header[name] = nil end,
}

local function compile_rules(rules, verbs, app)
    local compiled = {}
    for index, rule in ipairs(rules) do
        local apply, name, value = assert(verbs[rule[1]]), rule[2], compile_value(rule[3], app)
        if type(value) == "function" then
            compiled[index] = function() apply(name, value()) end
        else
            compiled[index] = function() apply(name, value) end
        end
    end
    return in_turn(compiled)
end

function M.compile(settings, app)
    local functions = {}
    if settings.request then
        functions.access = compile_rules(settings.request, request_verbs, app)
    end
    if settings.response then
        local apply = compile_rules(settings.response, response_verbs, app)
        -- Not of the edge's own answers, which a rule for caching must not keep in caches.
        functions.headers = function(request)
            if request.passed then
                apply()
            end
        end
    end
    return functions
end

return M
