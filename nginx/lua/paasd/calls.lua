-- Functions out of functions.

local concat, loadstring, unpack = table.concat, loadstring, unpack

local MOST = 50          -- a function may use 60 of what is around it

local M = {}

-- One that calls all of a list with its argument, nil for none. LuaJIT compiles it together with what it calls: not so a
-- loop over the list, nor a function that is found inside itself, which is why each is made of a text of its own.
function M.in_turn(calls)
    if #calls < 2 then
        return calls[1]
    elseif #calls > MOST then
        return M.in_turn({M.in_turn({unpack(calls, 1, MOST)}), M.in_turn({unpack(calls, MOST + 1)})})
    end
    local names = {}
    for index = 1, #calls do
        names[index] = "call" .. index
    end
    local text = "local " .. concat(names, ", ") .. " = ...\n"
        .. "return function(argument) " .. concat(names, "(argument) ") .. "(argument) end"
    return loadstring(text, "=calls in turn")(unpack(calls))
end

return M
