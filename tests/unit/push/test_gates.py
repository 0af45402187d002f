from paasd.push.gates import Gate, network


def enter(gate: Gate, address: str, log: list[str], name: str = "") -> object:
    return gate.enter(address, lambda: log.append(name or address))


def test_one_source_has_a_limit_and_leaving_frees_the_place() -> None:
    gate, log = Gate(total=10, per_source=2), []
    first = gate.enter("10.0.0.1", lambda: None)
    assert first and enter(gate, "10.0.0.1", log)
    assert enter(gate, "10.0.0.1", log) is None
    assert enter(gate, "10.0.0.2", log)
    first.leave()
    first.leave()
    assert enter(gate, "10.0.0.1", log)
    assert enter(gate, "10.0.0.1", log) is None
    assert (len(gate), gate.refused, log) == (3, 2, [])


def test_a_newcomer_displaces_the_longest_silent() -> None:
    gate, log = Gate(total=3, per_source=10), []
    tickets = [gate.enter(f"10.0.0.{n}", lambda n=n: log.append(n)) for n in range(3)]
    assert tickets[0]
    tickets[0].greeted = True
    assert enter(gate, "10.0.1.1", log, "new") and log == [1]
    assert enter(gate, "10.0.1.2", log, "newer") and log == [1, 2]
    assert enter(gate, "10.0.1.3", log, "newest") and log == [1, 2, "new"]
    assert len(gate) == 3


def test_when_all_have_greeted_the_oldest_goes() -> None:
    gate, log = Gate(total=2, per_source=10), []
    for n in range(2):
        ticket = gate.enter(f"10.0.0.{n}", lambda n=n: log.append(n))
        assert ticket
        ticket.greeted = True
    assert enter(gate, "10.0.0.9", log) and log == [0]


def test_sources() -> None:
    assert network("::ffff:10.0.0.1") == network("10.0.0.1")
    assert network("2001:db8:1:2:3::1") == network("2001:db8:1:2::9") != network("2001:db8:1:3::9")
    assert network("fe80::1%eth0") == network("fe80::2%eth1")
