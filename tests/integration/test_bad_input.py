"""Hostile values at every door: each is refused in one line that names the rule, and nothing is stored."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.apps import app
from tests.box import Box, docker, eventually, unix_request

pytestmark = pytest.mark.engine

BAD_NAMES = [
    "",
    "A",
    "Blog",
    "1blog",
    "-rf",
    "--help",
    "a--b",
    "a-",
    "a_b",
    "a.b",
    "a b",
    "a/b",
    "../etc",
    "..",
    "a;id",
    "$(id)",
    "`id`",
    "a\nb",
    "a\x00b",
    "a\x1b[2J",
    "ünïcode",
    "аpp",  # Cyrillic а
    "a" * 41,
    "a" * 65536,
    "%2e%2e",
    "a'b",
]
BAD_DOMAINS = [
    "a.test; location /h/ { alias /etc/; autoindex on; } set $x y",
    "a.test; } server { listen 80; server_name victim.test; location / { return 200 owned; }",
    "a.test\nserver_name b.test",
    "a.test\rb",
    "a.test#b",
    "a{}.test",
    "$host",
    "$host.test",
    "~^.*$",
    "*.",
    "*.test",
    "*",
    "*.*.a.test",
    "a.*.a.test",
    "a*.a.test",
    "*.a.test; location / { }",
    "*.localhost",
    "a.test.",
    "_",
    '""',
    "",
    ".",
    "a..test",
    "localhost",
    "x.localhost",
    "127.0.0.1",
    "[::1]",
    "::1",
    "2130706433",
    "0x7f.1",
    "-a.test",
    "a-.test",
    "a_b.test",
    "a.test:80",
    "http://a.test",
    "a.test/path",
    f"{'a' * 64}.test",
    ".".join(["a" * 60] * 5),
    "a.test\x00",
    "\ud800.test",
    "xn--zzzzzz--.test",
    "раураl" * 30 + ".test",
]


def api(box: Box, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    return unix_request(str(box.data / "run" / "api.sock"), method, f"/api/v1{path}", body)


def raw(box: Box, method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """A request with exactly these bytes as body."""
    connection = http.client.HTTPConnection("unix", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(30)
    try:
        connection.sock.connect(str(box.data / "run" / "api.sock"))
        connection.request(method, f"/api/v1{path}", body, headers or {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


@pytest.fixture
def unchanged(box: Box) -> Iterator[None]:
    """What is stored must be the same after the test as before: apps, repositories, sites, containers."""
    before, said = stored(box), len(box.log())
    yield
    assert stored(box) == before
    box.settles()
    assert "Traceback" not in box.log()[said:]


def stored(box: Box) -> dict[str, Any]:
    return {
        "apps": box.api("GET", "/apps")["items"],
        "repositories": sorted(p.name for p in (box.data / "repositories").iterdir()),
        "sites": sorted((p.name, p.read_text()) for p in (box.data / "edge" / "sites").glob("*")),
        # The tables are written with the first app.
        "edge": sorted(
            (path.name, path.read_text())
            for path in (box.data / "edge").iterdir()
            if path.name in ("nginx.conf", "hosts.txt", "policies.txt")
        ),
        # That a session was refused is the one thing that is written down.
        "event": max(e["id"] for e in box.api("GET", "/events?limit=200")["items"] if e["type"] != "ssh.refused"),
    }


@pytest.fixture(scope="module")
def victim(box: Box) -> str:
    """An app that runs, whose names and variables the attacks aim at."""
    if "victim" not in {app["name"] for app in box.api("GET", "/apps")["items"]}:
        assert box.push(box.repository(app(body="victim")), "victim").status == 0
        assert box.ssh("domains:add", "victim", "victim.test").status == 0
    return "victim"


@pytest.mark.usefixtures("unchanged")
class TestNames:
    @pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
    def test_over_the_api(self, box: Box, name: str) -> None:
        for status, problem in (
            api(box, "POST", "/apps", {"name": name}),
            api(box, "POST", "/apps", {"name": "fine", "project": name or " "}),
        ):
            assert status == 422, problem
            assert problem["code"] == "invalid-input" and "invalid name" in problem["detail"]
            assert "lowercase letters" in problem["hint"]
            assert len(problem["detail"]) < 200 and problem["detail"].isprintable()

    def test_over_ssh_in_one_line(self, box: Box) -> None:
        for name in ("Blog", "a--b", "../etc", "a;id", "a_b", "a" * 65_000):
            done = box.ssh("apps:create", f"'{name}'")
            assert done.status not in (0, 255), done
            assert done.err.count("\n") <= 2 and len(done.err) < 400, done
            assert "invalid name" in done.err or "characters; at most" in done.err or "not a command" in done.err

    def test_longer_than_a_command_may_be(self, box: Box) -> None:
        done = box.ssh("apps:create", "a" * 70_000)
        assert done.status not in (0, 255), done
        assert "at most 65536 are allowed" in done.err

    def test_control_characters_over_ssh(self, box: Box) -> None:
        done = box.ssh("apps:create", "a\x1b[2J")
        assert done.status not in (0, 255) and "control characters" in done.err

    def test_in_push_urls(self, box: Box) -> None:
        repository = box.repository(app())
        for name in ("Blog", "a--b", "..", "a%20b", "x;id", "../../etc", "a" * 50, "-rf", "sub/app", "~root"):
            done = box.push(repository, name)
            assert done.status != 0, done
            assert "invalid name" in done.all or "is refused" in done.all, (name, done)

    def test_taken_names(self, box: Box, victim: str) -> None:
        for status, problem in (
            api(box, "POST", "/apps", {"name": victim}),
            api(box, "POST", f"/apps/{victim}/clone", {"name": victim}),
        ):
            assert status == 409 and problem["detail"] == "the name victim is taken"
        done = box.ssh("apps:create", victim)
        assert done.status == 1 and "the name victim is taken" in done.err

    def test_unknown_apps_are_not_found(self, box: Box) -> None:
        for name in ("nothing", "..", "%00", "%ff", "%2e%2e%2fvictim", quote("a'; DROP TABLE apps"), "a" * 5000, "%0a"):
            for path in ("", "/config", "/ps", "/releases", "/logs", "/nginx", "/builds", "/domains", "/checks"):
                status, problem = api(box, "GET", f"/apps/{name}{path}")
                assert status in (400, 404), (name, path, problem)
                assert len(json.dumps(problem)) < 600


@pytest.mark.usefixtures("victim", "unchanged")
class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"7",
            b'"x"',
            b"\xff\xfe",
            b'{"name": "x", "name": 5}',
            b'{"name": ["x"]}',
            b'{"name": {"$ne": ""}}',
            b'{"name": null}',
            b'{"name": "fine", "id": "1", "organization_id": "x"}',
            b'{"name": "fine", "environment": "moon"}',
            b'{"name": "fine", "environment": 1}',
            b'{"name": "\\ud800"}',
            b"[" * 100_000,
            b'{"name": 1e999}',
        ],
        ids=lambda body: ascii(body[:40]),
    )
    def test_malformed(self, box: Box, body: bytes) -> None:
        status, problem = raw(box, "POST", "/apps", body)
        assert status == 422, problem
        assert problem["code"] == "invalid-input" and "\n" not in problem["detail"]

    def test_too_large(self, box: Box) -> None:
        status, problem = raw(box, "POST", "/apps", b'{"name": "' + b"a" * 5_000_000 + b'"}')
        assert status == 413 and problem["detail"]

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PUT", "/ps/scale", {"scale": {"web": 1e9}}),
            ("PUT", "/ps/scale", {"scale": {"web": "2"}}),
            ("PUT", "/ps/scale", {"scale": {"web": -1}}),
            ("PUT", "/ps/scale", {"scale": {"web": 51}}),
            ("PUT", "/ps/scale", {"scale": {"web": 10**30}}),
            ("PUT", "/ps/scale", {"scale": {"we b": 1}}),
            ("PUT", "/ps/scale", {"scale": {"../x": 1}}),
            ("PUT", "/ps/scale", {"scale": {"a" * 65536: 1}}),
            ("PATCH", "/config", {"set": {"A": 5}}),
            ("PATCH", "/config", {"set": {"A": "x\x00y"}}),
            ("PATCH", "/config", {"set": {"A": "x" * 65537}}),
            ("PATCH", "/config", {"set": {"A B": "x"}}),
            ("PATCH", "/config", {"set": {"A=B": "x"}}),
            ("PATCH", "/config", {"set": {"": "x"}}),
            ("PATCH", "/config", {"set": {"1A": "x"}}),
            ("PATCH", "/config", {"set": {"A\n": "x"}}),
            ("PATCH", "/config", {"set": {"$(touch x)": "x"}}),
            ("PATCH", "/config", {"set": {"A" * 129: "x"}}),
            ("PATCH", "/config", {"set": {"PORT": "1"}}),
            ("PATCH", "/config", {"set": {"PAASD_X": "1"}}),
            ("PATCH", "/config", {"unset": ["A B"]}),
            ("PATCH", "/config", {"set": {}, "foo": 1}),
            ("POST", "/rollback", {"release": "v1"}),
            ("PATCH", "/checks", {"process_type": "web", "settings": {"path": "health"}}),
            ("PATCH", "/checks", {"process_type": "web", "settings": {"path": "/\n"}}),
            ("PATCH", "/checks", {"process_type": "web", "settings": {"port": 70000}}),
            ("PATCH", "/checks", {"process_type": "web", "settings": {"timeout": "x"}}),
            ("PATCH", "/checks", {"process_type": "WEB", "settings": {"timeout": 1}}),
            ("PATCH", "/checks", {"process_type": "web", "settings": {"colour": 1}}),
            ("PATCH", "", {"deploy_branch": "a..b"}),
            ("PATCH", "", {"deploy_branch": "-x"}),
            ("PATCH", "", {"deploy_branch": ""}),
            ("PATCH", "", {"deploy_branch": "a b"}),
            ("PATCH", "", {"name": "Bad"}),
            ("POST", "/pushes", {"updates": [{"old": "x", "new": "--help", "ref": "refs/heads/main"}]}),
            ("POST", "/pushes", {"updates": [{"old": "0" * 40, "new": "1" * 39, "ref": "refs/heads/main"}]}),
            ("POST", "/pushes", {"updates": [{"old": "0" * 40, "new": "1" * 40, "ref": "refs/heads/../x"}]}),
            ("POST", "/clone", {"name": "Bad"}),
        ],
        ids=lambda value: ascii(value)[:50] if not isinstance(value, str) else value,
    )
    def test_invalid_values(self, box: Box, method: str, path: str, body: Any) -> None:
        status, problem = api(box, method, f"/apps/victim{path}", body)
        assert status == 422, problem
        assert problem["detail"].isprintable() and len(problem["detail"]) < 300

    @pytest.mark.parametrize("number", ["-1", "1.5", "x", "9" * 40, "%00", "１"])
    def test_numbers_in_paths_and_queries(self, box: Box, number: str) -> None:
        for path in (f"releases/{quote(number)}", f"builds/{quote(number)}", f"builds/{quote(number)}/log"):
            status, problem = api(box, "GET", f"/apps/victim/{path}")
            assert status == 422, problem
        for path in ("releases?limit=", "releases?before=", "logs?tail="):
            status, problem = api(box, "GET", f"/apps/victim/{path}{quote(number)}")
            assert status == 422, problem

    def test_releases_that_do_not_exist(self, box: Box) -> None:
        for number in (0, 99, 10**30, -1):
            status, problem = api(box, "POST", "/apps/victim/rollback", {"release": number})
            assert status in (404, 422), problem
        for version in ("v0", "v99", "v" + "9" * 30, "latest", "-1"):
            done = box.ssh("rollback", "victim", version)
            assert done.status in (1, 2) and "its log says why" not in done.err, done

    def test_unknown_paths_and_methods(self, box: Box) -> None:
        assert api(box, "GET", "/nothing")[0] == 404
        assert api(box, "DELETE", "/apps")[0] == 405
        assert api(box, "GET", "/apps/victim/run?command=x")[0] == 422
        assert api(box, "GET", "/apps/victim/run?command=%5B%22id%22%5D")[0] == 400  # no WebSocket

    def test_forged_tokens(self, box: Box) -> None:
        for value in ("Bearer x", "Bearer ", "Basic cm9vdDo=", "Bearer " + "a" * 5000):
            status, problem = raw(box, "GET", "/apps", b"", {"Authorization": value})
            assert status == 401 and problem["code"] == "not-authenticated"

    def test_keys(self, box: Box) -> None:
        key = (Path(f"{box.key}.pub")).read_text().split()
        for text in ("", "x", "ssh-ed25519", f"ssh-rsa {key[1]}", f'command="id" {key[0]} {key[1]}', f"{key[0]} AAAA"):
            status, problem = api(box, "POST", "/keys", {"name": "evil", "public_key": text})
            assert status == 422, (text, problem)
        for name in ("", "a\nb", "a" * 65536, "../x", "\x1b[2J"):
            other = box.root / "other.pub"
            if not other.exists():
                box.new_key("other")
            status, problem = api(box, "POST", "/keys", {"name": name, "public_key": other.read_text()})
            assert status == 422, (name, problem)
        status, problem = api(box, "POST", "/keys", {"name": "again", "public_key": " ".join(key)})
        assert status == 409


@pytest.mark.usefixtures("victim", "unchanged")
@pytest.mark.parametrize("domain", BAD_DOMAINS, ids=ascii)
def test_domains(box: Box, domain: str) -> None:
    status, problem = api(box, "POST", "/apps/victim/domains", {"names": [domain]})
    assert status == 422, problem
    assert problem["detail"].isprintable() and problem["hint"]
    assert box.get("victim", host="victim.test").text == "victim"


@pytest.mark.usefixtures("victim", "unchanged")
@pytest.mark.parametrize("domain", BAD_DOMAINS, ids=ascii)
def test_redirects_and_global_domains(box: Box, domain: str) -> None:
    for path, body in (
        ("/apps/victim/redirects", {"host": domain, "to": "https://a.test"}),
        ("/apps/victim/redirects", {"host": "old.a.test", "to": f"{domain};"}),
        ("/apps/victim/redirects", {"host": "old.a.test", "to": f"https://{domain};x/"}),
        ("/apps/victim/redirects", {"host": "old.a.test", "to": f"https://a.test/{domain} {{}}"}),
        ("/apps/victim/routes", {"prefix": f"/{domain};{{}}", "app": "victim"}),
        ("/global-domains", {"names": [f"{domain};"]}),
    ):
        status, problem = api(box, "POST", path, body)
        assert status == 422, (body, problem)
        assert problem["detail"].isprintable() and problem["hint"]
    assert box.get("victim", host="victim.test").text == "victim"


@pytest.mark.usefixtures("victim")
def test_domain_of_another_app(box: Box) -> None:
    assert box.ssh("apps:create", "thief").status == 0
    before = stored(box)
    for name in ("victim.test", "VICTIM.test"):
        status, problem = api(box, "POST", "/apps/thief/domains", {"names": [name]})
        assert status == 409 and "already belongs to another app" in problem["detail"]
    assert api(box, "POST", "/apps/thief/domains", {"names": ["victim.localhost"]})[0] == 422
    assert api(box, "DELETE", "/apps/thief/domains/victim.test")[0] == 404
    assert stored(box) == before
    assert box.get("victim", host="victim.test").text == "victim"


def test_values_reach_the_container_as_they_are(box: Box) -> None:
    values = {
        "SHELL_BAIT": "$(touch /tmp/x) `id` ; rm -rf / && $HOME ${PATH} %s \\n 'q' \"d\"",
        "LINES": "first\nsecond\r\n\tthird\n",
        "UNICODE": "ünïcode 🎈 \u202e",
        "EMPTY": "",
        "EQUALS": "a=b=c",
        "LARGE": "x" * 65536,
        "CONTROL": "\x01\x1b[31mred",
        "LOWER_is_fine": "-rf",
    }
    assert box.push(box.repository(app()), "literal").status == 0
    status, answer = api(box, "PATCH", "/apps/literal/config", {"set": values})
    assert status == 200, answer
    assert box.api("GET", "/apps/literal/config")["items"] == values
    name = next(i["name"] for i in box.json("ps:report", "literal")["instances"] if i["duty"] == "live")
    environment = dict(line.split("=", 1) for line in docker("GET", f"/containers/{name}/json")["Config"]["Env"])
    assert {key: environment[key] for key in values} == values
    shown = box.ssh("config:get", "literal", "SHELL_BAIT")
    assert shown.out == values["SHELL_BAIT"] + "\n"
    done = box.ssh("run", "literal", "printenv", "SHELL_BAIT")
    assert done.out == values["SHELL_BAIT"] + "\n", done
    assert (box.data / "state.db").read_bytes().count(b"touch /tmp/x") == 0
    assert "touch /tmp/x" not in box.log()


def test_config_over_ssh(box: Box) -> None:
    assert box.ssh("apps:create", "config-ssh").status == 0
    assert box.ssh("config:set", "config-ssh", "A='$(touch x) b'").status == 0
    assert box.ssh("config:get", "config-ssh", "A").out == "$(touch x) b\n"
    for words in (["A"], ["1A=x"], ["A-B=x"], ["PORT=1"], ["=x"]):
        done = box.ssh("config:set", "config-ssh", *words)
        assert done.status in (1, 2) and len(done.err.splitlines()) <= 2, done
    for text in ("A", '{"A": 5}', "{", '["A"]', '{"A": {"B": "c"}}', "A B=c", "\x00"):
        done = box.ssh("config:import", "config-ssh", stdin=text)
        assert done.status == 1 and "its log says why" not in done.err and "Traceback" not in done.err, (text, done)
    assert box.json("config:show", "config-ssh") == {"A": "$(touch x) b"}


def test_hostile_one_off_sessions(box: Box) -> None:
    """Frames that no client of ours would send end the session with an explanation, not with a stack trace."""
    import asyncio

    import aiohttp

    said = len(box.log())
    assert box.push(box.repository(app()), "one-offs").status == 0

    async def converse(frame: str, query: str = "") -> list[Any]:
        connector = aiohttp.UnixConnector(str(box.data / "run" / "api.sock"))
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f'http://paasd/api/v1/apps/one-offs/run?command=["cat"]{query}'
            async with session.ws_connect(url) as ws:
                await ws.send_str(frame)
                return [json.loads(m.data) async for m in ws if m.type is aiohttp.WSMsgType.TEXT]

    for frame in (
        "x",
        "[]",
        "5",
        '{"resize": 5}',
        '{"resize": [1]}',
        '{"resize": ["a", "b"]}',
        '{"resize": [-1, 1e9]}',
    ):
        answers = asyncio.run(asyncio.wait_for(converse(frame), 20))
        assert answers and answers[-1]["error"]["code"] == "invalid-input", (frame, answers)
    eventually(lambda: len([c for c in box.containers() if c["Labels"]["paasd.app-name"] == "one-offs"]) == 1, 20)
    assert "Traceback" not in box.log()[said:]
