-- Called once a configuration, in the master: loads everything, and names what the server blocks call.

local certificates = require "paasd.certificates"
local routes = require "paasd.routes"
local workers = require "paasd.workers"
local balancer = require "paasd.balancer"
local counters = require "paasd.counters"
local pages = require "paasd.pages"
local asleep = require "paasd.asleep"
local control = require "paasd.control"

return function(mirror, pages_directory, tls_directory, https_port)
    pages.load(pages_directory, https_port)
    certificates.changed = routes.touch
    certificates.load(tls_directory)
    routes.load(mirror)
    workers.new_generation()

    paasd_pick = balancer.pick
    paasd_pick_stream = balancer.pick_stream
    paasd_way = balancer.way
    paasd_stick = balancer.stick
    paasd_count = counters.count
    paasd_page = pages.send
    paasd_failed = asleep.failed
    paasd_redirect = pages.redirect
    paasd_control = control.handle
    paasd_handshake = certificates.handshake
    paasd_challenge = certificates.challenge
    paasd_worker = function() workers.start(counters.flush) end
end
