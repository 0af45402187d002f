"""Access logs: what is written down of requests, by whom it can be bent, how long it stays."""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from paasd.edge_values import Endpoint, Route, Site
from paasd.route.access_logs import AccessLogs
from paasd.route.error_log import cleaned
from tests.integration.edge.conftest import Bench, until
from tests.integration.edge.policies import set_policy
from tests.integration.edge.raw import exchange
from tests.ports import free_port


async def logged(bench: Bench, count: int, app: str = "blog") -> list[dict[str, Any]]:
    """The lines of an app, once there are so many; those of several workers may be mixed."""

    async def are_there() -> bool:
        return len(await bench.edge.logs.accesses(app, 5000)) >= count

    await until(are_there)
    lines = [json.loads(line) for line in await bench.edge.logs.accesses(app, 5000)]
    assert len(lines) == count
    return lines


async def serving(bench: Bench, kind: str = "on", app: str = "blog") -> str:
    host = await bench.serve(app, await bench.apps.saying("hello"))
    await set_policy(bench, app, access_log=kind)
    return host


async def test_a_request_is_a_line(bench: Bench) -> None:
    before = time.time()
    host = await serving(bench)
    agent = 'odd "agent" \\ \u00e4'
    await bench.visitor.get(host, "/a%20b?token=secret", **{"User-Agent": agent, "X-Request-Id": "abc"})
    (line,) = await logged(bench, 1)
    endpoint = (await bench.edge.routes())["blog"].endpoints[0]
    assert line["upstream"] == str(endpoint) and 0 <= line.pop("seconds") < 10
    assert before - 1 <= _seconds(line.pop("time")) <= time.time() + 1
    assert line.pop("agent").encode("latin-1").decode() == agent
    assert line.pop("bytes") > 100 and line.pop("received") > 50
    assert line == {
        "id": "abc",
        "client": "127.0.0.1",
        "method": "GET",
        "scheme": "http",
        "host": "blog.test",
        "path": "/a%20b",
        "status": 200,
        "upstream": str(endpoint),
    }


def _seconds(text: str) -> float:
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


async def test_only_who_asked_for_it_is_logged(bench: Bench) -> None:
    host = await serving(bench, "query")
    other = await bench.serve("other", await bench.apps.saying("hello"))
    await bench.visitor.get(other, "/?a=b")
    await bench.visitor.get(host, "/?a=b")
    assert (await logged(bench, 1))[0]["query"] == "a=b"
    await set_policy(bench, "blog")
    await bench.visitor.get(host)
    await bench.edge.counters()
    assert [path.name for path in (bench.directory / "access").iterdir()] == ["blog.log"]
    await logged(bench, 1)


async def test_what_the_edge_answers_is_logged_too(bench: Bench) -> None:
    host = await serving(bench)
    await bench.edge.set_route(Route("blog", (), 1))
    await bench.visitor.get(host)
    await set_policy(bench, "blog", access_log="on", maintenance="on")
    await bench.visitor.get(host)
    assert [(line["status"], line["upstream"]) for line in await logged(bench, 2)] == [(503, None), (503, None)]


async def test_no_client_bends_a_line(bench: Bench) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    await bench.serve("blog", await bench.apps.raw(answer))
    await set_policy(bench, "blog", access_log="query")
    attacks = [
        b'GET /"},{"a":"b\\ HTTP/1.1\r\nHost: blog.test\r\nUser-Agent: a","status":1,"x":"\r\n\r\n',
        b"GET /%0a%1b[31m?%0d%0a{} HTTP/1.1\r\nHost: blog.test\r\nUser-Agent: \x1b[2J\\u0000\\\r\n\r\n",
        b"GET /\xff\xfe\xe2\x80\xa8?\xf0\x9f HTTP/1.1\r\nHost: blog.test\r\nUser-Agent: \xed\xa0\x80\t\x85\r\n\r\n",
        b"GET /" + b'"' * 9000 + b" HTTP/1.1\r\nHost: blog.test\r\nUser-Agent: " + b"\\" * 9000 + b"\r\n\r\n",
        b'PROPFIND http://blog.test/a"b HTTP/1.1\r\nHost: BLOG.test\r\nX-Request-Id: "}\r\n\r\n',
    ]
    for attack in attacks:
        told = await exchange(bench.http.port, attack)
        assert told.startswith(b"HTTP/1.1 200")
    lines = await logged(bench, len(attacks))
    raw = b"\n".join(await bench.edge.logs.accesses("blog", 100))
    assert raw.isascii() and not {*raw} & {*range(0x20)} - {0x0A} and b"\x7f" not in raw
    assert all(line["client"] == "127.0.0.1" and line["host"] == "blog.test" for line in lines)
    assert all(line["status"] == 200 and "a" not in line for line in lines)
    by_path = {line["path"][:100]: line for line in lines}
    assert {'/"},{"a":"b\\', "/%0a%1b[31m", '/a"b'} < by_path.keys()
    longest = by_path["/" + '"' * 99]
    assert len(longest["path"]) == len(longest["agent"]) == 2048


async def test_many_requests_and_a_reload_lose_no_line(bench: Bench) -> None:
    host = await serving(bench)

    async def some(number: int) -> None:
        for index in range(25):
            assert (await bench.visitor.get(host, f"/{number}-{index}"))[0] == 200

    work = asyncio.gather(*(some(number) for number in range(20)))
    await bench.edge.set_site(Site("big", ("big.test",), body_size="1m"))
    await work
    paths = {line["path"] for line in await logged(bench, 500)}
    assert paths == {f"/{number}-{index}" for number in range(20) for index in range(25)}


async def test_full_files_give_way_and_followers_follow(bench: Bench) -> None:
    host = await serving(bench)
    await bench.visitor.get(host, "/first")
    await logged(bench, 1)
    path = bench.directory / "access" / "blog.log"
    seen: list[str] = []

    async def watch() -> None:
        async with contextlib.aclosing(bench.edge.logs.follow_accesses("blog", 10)) as lines:
            async for line in lines:
                seen.append(json.loads(line)["path"])

    async def sees(*paths: str) -> None:
        async def so() -> bool:
            return seen == [*paths]

        await until(so)

    watching = asyncio.create_task(watch())
    try:
        await sees("/first")
        with path.open("ab") as file:
            file.write((b'{"path":"/filler"}' + b" " * 65_000 + b"\n") * 260)
        await bench.visitor.get(host, "/next")

        async def rotated() -> bool:
            return path.with_name("blog.log.1").exists() and path.exists()

        await until(rotated)
        await bench.visitor.get(host, "/last")
        await sees("/first", *["/filler"] * 260, "/next", "/last")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert path.stat().st_size < 10_000
    lines = [json.loads(line)["path"] for line in await bench.edge.logs.accesses("blog", 4)]
    assert lines == ["/filler", "/filler", "/next", "/last"], "the full file too"
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if _target(fd).endswith("blog.log")]


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except FileNotFoundError:
        return ""


async def test_logs_go_with_their_app(bench: Bench) -> None:
    arrived, removed = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await removed.wait()
        return web.Response(text="hello")

    host = await serving(bench)
    await serving(bench, app="other")
    await bench.visitor.get(host)
    await bench.visitor.get("other.test")
    await logged(bench, 1)
    await logged(bench, 1, "other")
    await bench.edge.set_route(Route("blog", (await bench.apps.start(slow),), 2))
    late = asyncio.create_task(bench.visitor.get(host))
    await asyncio.wait_for(arrived.wait(), 30)
    await bench.edge.remove_site("blog")
    removed.set()
    assert (await late)[0] == 200
    await bench.edge.counters()
    directory = bench.directory / "access"
    assert [path.name for path in directory.iterdir()] == ["other.log"], "not even by what ended later"
    await bench.edge.sync_sites([])
    assert list(directory.iterdir()) == []


def test_no_line_is_kept_for_long(tmp_path: Path) -> None:
    logs = AccessLogs(tmp_path)
    old, now = time.time() - 8 * 86400, time.time()

    def write(name: str, began: float, changed: float) -> None:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began))
        (tmp_path / name).write_text(json.dumps({"time": f"{text}.000Z"}) + "\n")
        os.utime(tmp_path / name, (changed, changed))

    write("new.log", now - 6 * 86400, now)
    write("old.log", old, now)
    write("gone.log.1", old, old)
    write("kept.log.1", old, now - 6 * 86400)
    (tmp_path / "odd.log").write_text("no line of ours\n")
    logs.age()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.log.1", "new.log", "odd.log.1", "old.log.1"]


async def test_only_files_are_read(bench: Bench) -> None:
    """Workers, which own the directory, are the first that an attacker may get."""
    directory, secret = bench.directory / "access", bench.directory / "secret"
    secret.write_text('{"path":"/secret"}\n')
    (directory / "blog.log").symlink_to(secret)
    os.mkfifo(directory / "pipe.log")
    for app in ("blog", "pipe"):
        assert await asyncio.wait_for(bench.edge.logs.accesses(app, 10), 5) == []
    for name in ("odd.log", "odd.log.1"):
        (directory / name / "in").mkdir(parents=True)
        os.utime(directory / name, (0, 0))
    bench.edge.logs.access.age()
    await bench.edge.sync_sites([])
    assert sorted(path.name for path in directory.iterdir()) == ["odd.log", "odd.log.1"] and secret.exists()


async def test_errors_of_an_app_and_of_no_other(bench: Bench) -> None:
    began = time.time()
    for app in ("blog", "other"):
        await bench.serve(app)
        await bench.edge.set_route(Route(app, (_nobody(),), 1))
    await bench.edge.set_site(Site("wild", ("*.wild.test",)))
    await bench.edge.set_route(Route("wild", (_nobody(),), 1))
    await bench.visitor.get("blog.test", "/own?token=secret")
    await bench.visitor.get("a.wild.test", "/sub")
    for target, referrer in (
        (b'/", host: "blog.test', b"x"),
        (b"/plain", b'x", host: "blog.test'),
        (b'/", host: "blog.test", referrer: "y', b'x", host: "blog.test'),
    ):
        request = b"GET " + target.replace(b" ", b"%20") + b" HTTP/1.1\r\nHost: other.test\r\nReferer: " + referrer
        await exchange(bench.http.port, request + b"\r\n\r\n")

    lines = [cleaned(line) for line in await bench.edge.logs.errors("blog", {"": began}, 100)]
    assert len(lines) == 1 and "/own?…" in lines[0] and "Connection refused" in lines[0]
    assert "secret" not in lines[0] and lines[0].count("?…") == 2
    assert await bench.edge.logs.errors("blog", {"": time.time() + 5}, 100) == [], "of who had the name before"
    assert len(await bench.edge.logs.errors("wild", {"": 0}, 100)) == 1
    others = await bench.edge.logs.errors("other", {"": 0}, 100)
    assert all(b"blog.test" not in line.replace(b"%20", b" ").partition(b"request:")[0] for line in others)


def _nobody() -> Endpoint:
    return Endpoint("127.0.0.1", free_port())
