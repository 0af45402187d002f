-- Pages that apps have instead of the edge's own: the table `page`, one JSON object a line, HTML by kind (`maintenance`,
-- `502`, `503`, `504`). They have a shared dictionary of their own, since they are long.

local json = require "cjson.safe"
local tables = require "paasd.tables"

local table_ = tables.new("page", ngx.shared.paasd_pages)
local type = type

local M = {table = table_}

-- HTML of an app's page; nil when it has none. They are seldom needed, so nothing is remembered.
function M.of(app, kind)
    local line = table_:get(app)
    local found = line and json.decode(line)
    local html = type(found) == "table" and found[kind]
    return type(html) == "string" and html or nil
end

return M
