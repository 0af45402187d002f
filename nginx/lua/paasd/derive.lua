-- PBKDF2 of OpenSSL, which Nginx has in it. Runs in a thread of its own, where there is nothing of Nginx's Lua.

local ffi = require "ffi"

ffi.cdef [[
typedef struct evp_md_st EVP_MD;
const EVP_MD *EVP_sha256(void);
int PKCS5_PBKDF2_HMAC(const char *pass, int passlen, const unsigned char *salt, int saltlen, int iter,
    const EVP_MD *digest, int keylen, unsigned char *out);
]]

local LENGTH = 32

local M = {}

function M.derive(password, salt, iterations)
    local out = ffi.new("unsigned char[?]", LENGTH)
    local done = ffi.C.PKCS5_PBKDF2_HMAC(password, #password, salt, #salt, iterations, ffi.C.EVP_sha256(), LENGTH, out)
    return done == 1 and ffi.string(out, LENGTH) or nil
end

return M
