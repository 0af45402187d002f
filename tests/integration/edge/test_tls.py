"""HTTPS at the edge: which certificate a client gets, what it may speak, and that changing it loses nothing."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from aiohttp import web

from paasd.config import HttpConfig
from paasd.edge_values import Route, Site
from paasd.errors import EdgeError
from paasd.models import Secret
from paasd.route import processes
from paasd.route.edge import Edge
from paasd.route.edge_tls import Served
from paasd.route.sites import tls_addresses
from tests.integration.edge.conftest import TEMPLATES, Bench, running_edge
from tests.ports import free_port
from tests.tls import Authority, Handshake, handshake

_REQUEST = b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


def served(authority: Authority, id: str, *names: str, least: str = "1.3") -> Served:
    key, chain = authority.leaf(names)
    return Served(id, names, Secret(key + chain), least)


async def shake(bench: Bench, name: str | None, **options: object) -> Handshake:
    return await asyncio.to_thread(handshake, bench.http.https_port, name, **options)  # type: ignore[arg-type]


async def refused(bench: Bench, name: str | None, **options: object) -> bool:
    try:
        await shake(bench, name, **options)
    except (ssl.SSLError, ConnectionError):
        return True
    return False


def serial(seen: Handshake) -> int:
    return seen.certificate.serial_number


async def workers(bench: Bench) -> set[int]:
    master = await asyncio.to_thread(bench.edge._nginx.master)
    assert master is not None
    return {worker.pid for worker in master.children()}


async def test_a_certificate_is_served_without_a_reload_and_strangers_see_none(
    bench: Bench, authority: Authority
) -> None:
    await bench.serve("blog", await bench.apps.saying("hello"))
    before = await workers(bench)
    assert await refused(bench, "blog.test"), "there is a certificate for it already"
    await bench.edge.tls.put(served(authority, "one", "blog.test"))
    seen = await shake(bench, "blog.test", trust=authority.pem, send=_REQUEST % b"blog.test")
    assert seen.version == "TLSv1.3"
    assert seen.answer.startswith(b"HTTP/1.1 200") and seen.answer.endswith(b"hello")
    assert (await shake(bench, "blog.test", alpn=("h2", "http/1.1"))).protocol == "h2"
    for stranger in ("other.test", "a.blog.test", "test", None):
        assert await refused(bench, stranger)
    await bench.edge.tls.put(served(authority, "two", "blog.test"))
    assert serial(await shake(bench, "blog.test")) != serial(seen)
    await bench.edge.tls.remove("one")
    await shake(bench, "blog.test", trust=authority.pem)
    await bench.edge.tls.remove("two")
    assert await refused(bench, "blog.test")
    assert await workers(bench) == before


async def test_tls_1_2_only_for_who_asked_for_it(bench: Bench, authority: Authority) -> None:
    """With openssl's own client, and with a session of another name brought along."""
    for app in ("old", "new"):
        await bench.serve(app, await bench.apps.saying(app))
    await bench.edge.tls.put(served(authority, "old", "old.test", least="1.2"))
    await bench.edge.tls.put(served(authority, "new", "new.test"))

    def client(name: str, *options: str) -> tuple[bool, str]:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{bench.http.https_port}", "-servername", name]
        done = subprocess.run(
            [*command, *options], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
        return done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")

    for name, option, works in (
        ("old.test", "-tls1_2", True),
        ("old.test", "-tls1_3", True),
        ("new.test", "-tls1_2", False),
        ("new.test", "-tls1_3", True),
        ("old.test", "-tls1_1", False),
    ):
        worked, said = await asyncio.to_thread(client, name, option)
        assert worked is works, f"{name} {option}: {said}"
    # Weak ciphers of TLS 1.2 are refused even there.
    assert not (await asyncio.to_thread(client, "old.test", "-tls1_2", "-cipher", "AES128-SHA"))[0]


async def test_a_name_of_its_own_wins_over_a_wildcard(bench: Bench, authority: Authority) -> None:
    await bench.edge.set_site(Site("blog", ("a.blog.test", "b.blog.test")))
    await bench.edge.tls.put(served(authority, "wild", "*.blog.test"))
    wild = serial(await shake(bench, "a.blog.test", trust=authority.pem))
    assert serial(await shake(bench, "b.blog.test", trust=authority.pem)) == wild
    await bench.edge.tls.put(served(authority, "exact", "b.blog.test"))
    assert serial(await shake(bench, "a.blog.test")) == wild
    assert serial(await shake(bench, "b.blog.test")) != wild
    await bench.edge.tls.remove("exact")
    assert serial(await shake(bench, "b.blog.test")) == wild


async def test_plain_http_goes_to_https_where_a_name_has_a_certificate(bench: Bench, authority: Authority) -> None:
    await bench.edge.set_site(Site("blog", ("blog.test", "plain.test")))
    await bench.edge.set_route(Route("blog", (await bench.apps.saying("hello"),), 1))
    certificate = served(authority, "one", "blog.test")
    await bench.edge.tls.sync([certificate], {"blog": ["blog.test"]})

    async def asked(method: str, host: str, path: str, **headers: str) -> tuple[int, str]:
        async with bench.visitor.session.request(
            method, bench.visitor.url(path), headers={"Host": host, **headers}, data=b"x" * 5000, allow_redirects=False
        ) as response:
            return response.status, response.headers.get("Location") or await response.text()

    target = f"https://blog.test:{bench.http.https_port}"
    assert await asked("GET", "blog.test", "/a?b=%20c") == (308, f"{target}/a?b=%20c")
    assert await asked("POST", "blog.test", "/form") == (308, f"{target}/form")
    assert await asked("GET", "blog.test", "/feed", Accept="text/event-stream") == (308, f"{target}/feed")
    assert await asked("GET", "blog.test", "/ws", Upgrade="websocket", Connection="Upgrade") == (308, f"{target}/ws")
    assert await asked("GET", "plain.test", "/") == (200, "hello")
    await bench.edge.tls.set_challenge("to-k_en", "to-k_en.print")
    challenge = "/.well-known/acme-challenge/"
    assert await asked("GET", "blog.test", f"{challenge}to-k_en") == (200, "to-k_en.print")
    assert (await asked("GET", "blog.test", f"{challenge}other"))[0] == 308
    assert await asked("GET", "plain.test", f"{challenge}other") == (200, "hello"), "the app has its own"
    await bench.edge.tls.remove_challenge("to-k_en")
    assert (await asked("GET", "blog.test", f"{challenge}to-k_en"))[0] == 308
    await bench.edge.tls.sync([certificate], {})
    assert await asked("GET", "blog.test", "/") == (200, "hello")
    assert "no live upstreams" not in (bench.directory / "logs" / "error.log").read_text()


async def test_hsts_only_over_https_and_the_apps_own_stays(bench: Bench, authority: Authority) -> None:
    async def own(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Strict-Transport-Security": "max-age=1"} if request.path == "/own" else {})

    await bench.serve("blog", await bench.apps.start(own), hsts="max-age=2592000")
    await bench.edge.tls.put(served(authority, "one", "blog.test"))
    for path, value in ((b"/", b"max-age=2592000"), (b"/own", b"max-age=1")):
        request = b"GET %s HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n\r\n" % path
        answer = (await shake(bench, "blog.test", send=request)).answer.lower()
        assert answer.count(b"strict-transport-security") == 1 and value in answer
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": "blog.test"}) as response:
        assert "Strict-Transport-Security" not in response.headers


async def answer_or_end(bench: Bench, name: str, request: bytes, **options: object) -> bytes:
    try:
        return (await shake(bench, name, send=request, **options)).answer
    except (ssl.SSLError, ConnectionError):
        return b""


async def test_clients_without_a_certificate_stay_out(bench: Bench, authority: Authority, tmp_path: Path) -> None:
    clients = Authority.new("Clients")
    await bench.serve("inner", await bench.apps.saying("secret"), client_ca=clients.pem)
    await bench.serve("outer", await bench.apps.saying("open"))
    await bench.edge.tls.put(served(authority, "one", "inner.test"))
    await bench.edge.tls.put(served(authority, "two", "outer.test", least="1.2"))
    good, bad = tmp_path / "good.pem", tmp_path / "bad.pem"
    good.write_text("".join(clients.leaf(["me.test"])))
    bad.write_text("".join(Authority.new("Strangers").leaf(["me.test"])))
    request = _REQUEST % b"inner.test"
    assert (await shake(bench, "inner.test", identity=good, send=request)).answer.endswith(b"secret")
    assert b"400 Bad Request" in (await shake(bench, "inner.test", send=request)).answer
    assert b"400 Bad Request" in (await shake(bench, "inner.test", identity=bad, send=request)).answer
    # Neither by the name of another app, nor by plain HTTP, nor beside the app's paths.
    assert b"400 Bad Request" in (await shake(bench, "outer.test", send=request)).answer
    for most in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        context = ssl._create_unverified_context()
        options = {"context": context, "most": most}
        before = await shake(bench, "outer.test", send=_REQUEST % b"outer.test", **options)
        again = await shake(bench, "outer.test", send=_REQUEST % b"outer.test", session=before.session, **options)
        assert again.resumed, "sessions are not resumed at all, so this says nothing"
        assert b"secret" not in await answer_or_end(bench, "inner.test", request, session=before.session, **options)
    for path in ("/", "/.well-known/acme-challenge/x"):
        async with bench.visitor.session.get(
            bench.visitor.url(path), headers={"Host": "inner.test"}, allow_redirects=False
        ) as response:
            assert response.status in (308, 404) and "secret" not in await response.text()
    files = bench.directory / "tls" / "clients"
    assert len(list(files.iterdir())) == 1
    await bench.edge.sync_sites([Site("inner", ("inner.test",)), Site("outer", ("outer.test",))])
    assert (await shake(bench, "inner.test", send=request)).answer.endswith(b"secret")
    assert not list(files.iterdir())


async def test_without_https_nobody_gets_to_an_app_that_wants_certificates(bench: Bench, authority: Authority) -> None:
    async with running_edge(https=False) as (edge, _, http):
        visitor = replace(bench.visitor, port=http.port)
        for app, authorities in (("inner", authority.pem), ("outer", "")):
            await edge.set_site(Site(app, (f"{app}.test",), client_ca=authorities))
            await edge.set_route(Route(app, (await bench.apps.saying("secret"),), 1))
        assert (await visitor.get("outer.test")) == (200, "secret")
        for headers in ({}, {"Accept": "text/event-stream"}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
            status, text = await visitor.get("inner.test", "/any", **headers)
            assert status == 403 and "secret" not in text
        await edge.tls.set_challenge("token", "token.print")
        challenge = "/.well-known/acme-challenge/"
        assert await visitor.get("inner.test", f"{challenge}token") == (200, "token.print")
        assert (await visitor.get("inner.test", f"{challenge}other"))[0] == 403


async def test_plain_http_is_served_while_another_program_has_the_port_of_https(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, TemporaryDirectory(prefix="edge-") as name:
        http = HttpConfig(address="127.0.0.1", port=free_port(), https_port=taken.getsockname()[1])
        edge = Edge(Path(name), TEMPLATES, http)
        try:
            await edge.start()
            await edge.set_site(Site("blog", ("blog.test",)))
            await edge.set_route(Route("blog", (await bench.apps.saying("hello"),), 1))
            assert await replace(bench.visitor, port=http.port).get("blog.test") == (200, "hello")
            assert tls_addresses(http) == []
            assert await edge.set_site(Site("blog", ("blog.test", "more.test"), body_size="20m")), "a reload works too"
        finally:
            await edge.stop()
            processes.may_listen.cache_clear()  # the port may be another test's soon


async def test_http_2_and_websockets_reach_the_app_as_https(bench: Bench, authority: Authority) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade") == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(request.headers["X-Forwarded-Proto"])
            await socket.close()
            return socket
        seen = [request.headers[f"X-Forwarded-{name}"] for name in ("Proto", "Port", "Host")]
        return web.Response(text=f"{' '.join(seen)} {len(await request.read())}")

    await bench.serve("blog", await bench.apps.start(answer))
    await bench.edge.tls.put(served(authority, "one", "blog.test"))
    port = bench.http.https_port
    resolve = ["--resolve", f"blog.test:{port}:127.0.0.1"]
    command = ["curl", "-sk", "--http2", *resolve, "-w", " %{http_version}", "-d", "x" * 100_000]
    process = await asyncio.create_subprocess_exec(
        *command, f"https://blog.test:{port}/", stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    said = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    assert said == f"https {port} blog.test:{port} 100000 2"
    async with bench.visitor.session.ws_connect(
        f"wss://127.0.0.1:{port}/", ssl=False, server_hostname="blog.test", headers={"Host": "blog.test"}
    ) as stream:
        assert await stream.receive_str() == "https"


async def test_nginx_alone_serves_what_it_had_whatever_became_of_a_file(bench: Bench, authority: Authority) -> None:
    """It starts before the daemon, or is killed; files were lost, cut short or mixed up meanwhile."""
    names = ("whole", "lost", "short", "mixed")
    for name in names:
        await bench.serve(name, await bench.apps.saying(name))
    everything = [served(authority, name, f"{name}.test") for name in names]
    await bench.edge.tls.sync(everything, {"whole": ["whole.test"]})
    files = bench.directory / "tls"
    for path in files.glob("*.pem"):
        assert path.stat().st_mode & 0o777 == 0o600 and files.stat().st_mode & 0o077 == 0
    before = {name: serial(await shake(bench, f"{name}.test")) for name in names}
    await bench.kill_nginx()
    (files / "lost.pem").unlink()
    short = (files / "short.pem").read_text()
    (files / "short.pem").write_text(short[: len(short) // 2])
    first, key = (files / "mixed.pem").read_text(), authority.leaf(["x.test"])[0]
    (files / "mixed.pem").write_text(first[: first.index("-----BEGIN")] + key + first[first.index("-----BEGIN CERT") :])
    (files / "index.txt").write_text((files / "index.txt").read_text() + "nobody\n../../nginx\n")
    assert await bench.edge.ensure_running()
    assert serial(await shake(bench, "whole.test")) == before["whole"]
    async with bench.visitor.session.get(
        bench.visitor.url(), headers={"Host": "whole.test"}, allow_redirects=False
    ) as response:
        assert response.status == 308
    for name in ("lost", "short", "mixed"):
        assert await refused(bench, f"{name}.test")
        assert (await bench.visitor.get(f"{name}.test")) == (200, name), "plain HTTP is not touched"
    await bench.edge.tls.sync(everything, {})
    assert {name: serial(await shake(bench, f"{name}.test")) for name in names} == before
    await bench.kill_nginx()
    await bench.edge.ensure_running()
    assert {name: serial(await shake(bench, f"{name}.test")) for name in names} == before


async def test_a_certificate_that_the_edge_refuses_keeps_back_no_other(bench: Bench, authority: Authority) -> None:
    await bench.edge.set_site(Site("blog", ("a.test", "z.test", "old.test")))
    old, files = served(authority, "old", "old.test"), bench.directory / "tls"
    await bench.edge.tls.sync([old], {})
    huge = [Served(f"huge{number}", (f"h{number}.test",), Secret("x" * 10**6)) for number in range(40)]
    good = [served(authority, id, f"{id}.test") for id in ("a", "z")]
    with pytest.raises(EdgeError, match="507"):
        await bench.edge.tls.sync([good[0], *huge, good[1]], {"blog": ["a.test"]})
    for name in ("a.test", "z.test"):
        await shake(bench, name, trust=authority.pem)
    assert await refused(bench, "old.test"), "what is wanted no more went all the same"
    async with bench.visitor.session.get(
        bench.visitor.url(), headers={"Host": "a.test"}, allow_redirects=False
    ) as response:
        assert response.status == 308
    taken = await bench.edge.tls.certificates()
    assert {"a", "z"} < taken and len(taken) < 42
    assert {path.stem for path in files.glob("*.pem")} == set((files / "index.txt").read_text().split()) == taken
    await bench.edge.tls.sync(good[:1], {})
    assert {path.stem for path in files.glob("*.pem")} == await bench.edge.tls.certificates() == {"a"}
    assert not list(files.glob(".*")), "a key was left behind"


async def test_keys_that_a_killed_daemon_left_half_written_are_removed(bench: Bench) -> None:
    left = bench.directory / "tls" / ".0123.pem.new"
    left.write_text("-----BEGIN PRIVATE KEY-----")
    await bench.edge.start()
    assert not left.exists()


async def test_garbage_on_the_control_socket_harms_nobody(bench: Bench, authority: Authority) -> None:
    await bench.serve("blog", await bench.apps.saying("hello"))
    good = served(authority, "good", "blog.test")
    await bench.edge.tls.sync([good], {})
    control = bench.edge._control
    for text in (
        "",
        "\0\xff",
        "1.3",
        "1.3 evil.test\n",
        "1.3 evil.test\n-----BEGIN CERTIFICATE-----\nAAAA\n",
        "x" * 10**6,
    ):
        await control.put("certificates/bad", text)
        assert await refused(bench, "evil.test")
        await shake(bench, "blog.test", trust=authority.pem)
    with pytest.raises(EdgeError, match="507"):
        for number in range(100):
            await control.put(f"certificates/big{number}", "1.3 x.test\n" + "x" * 10**6)
    for path in ("certificates/../x", "certificates/", "challenges/a.b", "names/x", "redirects/a b"):
        with pytest.raises(EdgeError):
            await control.put(path, "x")
    await shake(bench, "blog.test", trust=authority.pem)
    await control.put("certificates/good", "1.3 blog.test\nnonsense")
    assert await refused(bench, "blog.test")
    await bench.edge.tls.sync([good], {})
    await shake(bench, "blog.test", trust=authority.pem)
    assert await bench.edge.tls.certificates() == {"good"}


async def test_twenty_certificates_in_turn_under_load_lose_no_request(bench: Bench, authority: Authority) -> None:
    await bench.serve("blog", await bench.apps.saying("hello"))
    await bench.edge.tls.put(served(authority, "c0", "blog.test"))
    done, failures, counts = asyncio.Event(), [], {"kept": 0, "new": 0}

    def load(kind: str) -> None:
        context = ssl.create_default_context(cadata=authority.pem)
        kept: http.client.HTTPSConnection | None = None
        while not done.is_set():
            try:
                connection = kept or _Named("blog.test", bench.http.https_port, context)
                connection.request("GET", "/")
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, b"hello")
                kept = connection if kind == "kept" else connection.close()  # type: ignore[func-returns-value]
                counts[kind] += 1
            except Exception as error:
                failures.append(repr(error))
                return
        if kept:
            kept.close()

    running = [asyncio.create_task(asyncio.to_thread(load, kind)) for kind in ("kept", "new", "kept", "new")]
    seen = set()
    try:
        for number in range(1, 21):
            await bench.edge.tls.put(served(authority, f"c{number}", "blog.test"))
            await bench.edge.tls.remove(f"c{number - 1}")
            seen.add(serial(await shake(bench, "blog.test")))
            await asyncio.sleep(0.02)
    finally:
        done.set()
        await asyncio.gather(*running)
    assert failures == [] and len(seen) == 20
    assert min(counts.values()) > 20


class _Named(http.client.HTTPSConnection):
    """Connects to 127.0.0.1 and asks for a name."""

    def __init__(self, name: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(name, port, context=context, timeout=10)
        connect = self._create_connection  # type: ignore[attr-defined]
        self._create_connection = lambda address, *rest: connect(("127.0.0.1", address[1]), *rest)
