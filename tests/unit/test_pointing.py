"""Where names point, asked of a real name server on this host, and what is said about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from paasd.config import HttpConfig
from paasd.errors import InvalidInput
from paasd.route import pointing
from paasd.route.pointing import Pointings, Verdict

ZONE: Mapping[str, Mapping[str, list[str]]] = {
    "here.example.": {"A": ["203.0.113.7"], "AAAA": ["2001:db8::7"]},
    "elsewhere.example.": {"A": ["198.51.100.1"]},
    "global.example.": {"A": ["1.1.1.1"]},
    "partly.example.": {"A": ["203.0.113.7", "198.51.100.1"]},
    "alias.example.": {"CNAME": ["here.example."]},
    "mail.example.": {"TXT": ['"x"']},
    "paasd-check.wild.example.": {"A": ["203.0.113.7"]},
}


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """Answers from ZONE; names that begin with `mute` not at all, with `broken` by SERVFAIL."""

    asked: list[str] = field(default_factory=list)
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        kind = query.question[0].rdtype.name
        self.asked.append(name)
        if name.startswith("mute"):
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if name.startswith("broken"):
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif name not in ZONE:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if alias := ZONE.get(name, {}).get("CNAME"):
            answer.answer.append(dns.rrset.from_text(name, 1, "IN", "CNAME", *alias))
            name = alias[0]
        if texts := ZONE.get(name, {}).get(kind):
            answer.answer.append(dns.rrset.from_text(name, 1, "IN", kind, *texts))
        assert self.transport is not None
        self.transport.sendto(answer.to_wire(), address)


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    yield protocol
    transport.close()


def pointings(server: NameServer, public: str = "203.0.113.7 2001:db8::7", address: str = "127.0.0.1") -> Pointings:
    def resolver() -> dns.asyncresolver.Resolver:
        assert server.transport is not None
        made = dns.asyncresolver.Resolver(configure=False)
        made.nameservers, made.port = ["127.0.0.1"], server.transport.get_extra_info("sockname")[1]
        return made

    return Pointings(HttpConfig(address=address, public_addresses=public), resolver)


@pytest.mark.parametrize(
    ("name", "verdict", "answer"),
    [
        ("here.example", Verdict.HERE, "points to 203.0.113.7 and 2001:db8::7, which is this box"),
        ("alias.example", Verdict.HERE, "points to 203.0.113.7 and 2001:db8::7, which is this box"),
        ("*.wild.example", Verdict.HERE, "points to 203.0.113.7, which is this box"),
        ("app.localhost", Verdict.HERE, "every machine takes it for itself, so it works on this box only"),
        (
            "elsewhere.example",
            Verdict.ELSEWHERE,
            "points to 198.51.100.1, this box is 203.0.113.7 and 2001:db8::7 and 127.0.0.1",
        ),
        ("partly.example", Verdict.PARTLY, "some requests go elsewhere"),
        ("nowhere.example", Verdict.MISSING, "has no address in DNS, this box is 203.0.113.7"),
        ("*.nowhere.example", Verdict.MISSING, "has no address in DNS (asked for paasd-check.nowhere.example)"),
        ("mail.example", Verdict.MISSING, "has no address in DNS"),
        ("broken.example", Verdict.UNKNOWN, "DNS cannot be asked"),
    ],
)
async def test_a_plain_answer(server: NameServer, name: str, verdict: Verdict, answer: str) -> None:
    [found] = await pointings(server).look([name])
    assert (found.name, found.verdict) == (name, verdict)
    assert answer in found.answer and found.answer.isprintable()


async def test_behind_nat_nobody_can_tell(server: NameServer) -> None:
    found = await pointings(server, public="", address="10.0.0.5").look(["global.example", "elsewhere.example"])
    assert found[0].verdict is Verdict.UNKNOWN
    assert found[0].answer.startswith("points to 1.1.1.1, this box is 10.0.0.5 and has no public address of its own")
    assert "http.public_addresses" in found[0].answer
    [told] = await pointings(server, public="1.1.1.1", address="10.0.0.5").look(["global.example"])
    assert told.verdict is Verdict.HERE


async def test_a_name_server_that_is_silent_is_not_waited_for(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointing, "_TIMEOUT", 0.3)
    found = await pointings(server).look(["mute.example", "here.example"])
    assert [each.verdict for each in found] == [Verdict.UNKNOWN, Verdict.HERE]
    assert "in time" in found[0].answer


async def test_many_names_of_a_silent_server_have_a_time_together(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointing, "_ALL_WITHIN", 0.3)
    names = [f"mute{number}.example" for number in range(100)]
    found = await pointings(server).look(names)
    assert [each.name for each in found] == names and {each.verdict for each in found} == {Verdict.UNKNOWN}
    assert len({name for name in server.asked if name.startswith("mute")}) <= 20


async def test_a_host_without_a_name_server_is_told_of() -> None:
    def broken() -> dns.asyncresolver.Resolver:
        return dns.asyncresolver.Resolver(filename="/nonexistent/resolv.conf")

    [found] = await Pointings(HttpConfig(), broken).look(["a.example"])
    assert found.verdict is Verdict.UNKNOWN and "no name server" in found.answer


async def test_the_addresses_of_the_box() -> None:
    assert await Pointings(HttpConfig(address="10.0.0.5", public_addresses="1.1.1.1")).box() == ["1.1.1.1", "10.0.0.5"]
    assert await Pointings(HttpConfig(address="localhost")).box() == await Pointings(HttpConfig()).box()
    assert not {"127.0.0.1", "::1"} & set(await Pointings(HttpConfig()).box())
    with pytest.raises(InvalidInput, match=r"http\.public_addresses"):
        Pointings(HttpConfig(public_addresses="box.example"))
