-- The edge's own secret: made when Nginx starts, known to all workers, written nowhere. It is kept beside the tables,
-- because nothing there is ever pushed out for want of memory.

local bit = require "bit"
local ffi = require "ffi"

ffi.cdef [[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *digest, const void *key, int key_length, const char *data, size_t length,
    unsigned char *out, unsigned int *out_length);
]]

local dict = ngx.shared.paasd_tables
local bor, bxor, byte = bit.bor, bit.bxor, string.byte

local M = {}

local secret

-- In the master; a reload keeps the one there is.
function M.load()
    if dict:get("secret") then
        return
    end
    local file = assert(io.open("/dev/urandom", "rb"))
    local bytes = file:read(32)
    file:close()
    assert(bytes and #bytes == 32 and dict:safe_set("secret", bytes))
end

-- 20 bytes that nobody else can make of this text.
function M.sign(text)
    secret = secret or dict:get("secret")
    return ngx.hmac_sha1(secret, text)
end

local out = ffi.new("unsigned char[32]")

-- HMAC-SHA-256, with a key that others have as well.
function M.hmac(key, text)
    assert(ffi.C.HMAC(ffi.C.EVP_sha256(), key, #key, text, #text, out, nil) ~= nil)
    return ffi.string(out, 32)
end

-- Takes the same time wherever they differ.
function M.equal(one, other)
    if #one ~= #other then
        return false
    end
    local difference = 0
    for index = 1, #one do
        difference = bor(difference, bxor(byte(one, index), byte(other, index)))
    end
    return difference == 0
end

return M
