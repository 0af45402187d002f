-- Called once a configuration, in the master: loads everything, and names what the configuration calls.

local tables = require "paasd.tables"
local secret = require "paasd.secret"
local sign_in = require "paasd.sign_in"
local access_log = require "paasd.access_log"
local certificates = require "paasd.certificates"
local own_pages = require "paasd.own_pages"
local policies = require "paasd.policies"
local hosts = require "paasd.hosts"
local routes = require "paasd.routes"
local workers = require "paasd.workers"
local gate = require "paasd.gate"
local balancer = require "paasd.balancer"
local counters = require "paasd.counters"
local pages = require "paasd.pages"
local room = require "paasd.room"
local asleep = require "paasd.asleep"
local control = require "paasd.control"

return function(mirrors, pages_directory, tls_directory, https_port)
    pages.load(pages_directory, https_port)
    secret.load()
    sign_in.load()
    certificates.changed = tables.touch
    certificates.load(tls_directory)
    own_pages.table:load(mirrors .. "/pages.txt")
    policies.table:load(mirrors .. "/policies.txt")
    hosts.table:load(mirrors .. "/hosts.txt")
    routes.table:load(mirrors .. "/routes.txt")
    access_log.load(mirrors .. "/access")
    room.load(mirrors)
    workers.new_generation()

    paasd_way = gate.way
    paasd_way_tls = gate.way_tls
    paasd_way_of_challenge = gate.way_of_challenge
    paasd_answer = gate.answer
    paasd_gate = gate.enter
    paasd_gate_headers = gate.headers
    paasd_pick = balancer.pick
    paasd_pick_stream = balancer.pick_stream
    paasd_refused = balancer.answer_refused
    paasd_limited = pages.limited
    paasd_count = counters.count
    paasd_failed = asleep.failed
    paasd_control = control.handle
    paasd_handshake = certificates.handshake
    paasd_challenge = certificates.challenge
    paasd_worker = function()
        workers.start(function()
            counters.flush()
            access_log.flush()
        end)
    end
end
