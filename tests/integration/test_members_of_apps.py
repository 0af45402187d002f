"""Signing in to an app that only its members see, with the real ssh command and the real edge."""

from __future__ import annotations

import http.client
import sqlite3
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.box import Answer, Box, eventually
from tests.images import TEST_IMAGE

pytestmark = pytest.mark.engine

_CGI = (
    "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n"
    'echo "user=$HTTP_X_PAASD_USER key=$HTTP_X_PAASD_KEY cookie=$HTTP_COOKIE"\n'
)
_DOCKERFILE = f"FROM {TEST_IMAGE}\nCOPY who /www/cgi-bin/who\nRUN chmod +x /www/cgi-bin/who\n"
_FILES = {"Dockerfile": _DOCKERFILE, "Procfile": "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\n", "who": _CGI}
_WHO = "/cgi-bin/who"


@pytest.fixture(scope="module")
def club(box: Box) -> Iterator[str]:
    done = box.push(box.repository(_FILES), "club")
    assert done.status == 0, done
    assert box.ssh("edge:set", "club", "auth.members", "on").status == 0
    yield "club"
    box.ssh("apps:destroy", "club", "--force")


def link(box: Box, app: str, *words: str, **options: object) -> str:
    done = box.ssh("apps:sign-in", app, *words, **options)  # type: ignore[arg-type]
    assert done.status == 0, done
    return done.out.splitlines()[-1]


def follow(url: str, cookie: str = "") -> tuple[Answer, str]:
    """The answer, and the cookie it set."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc, "Cookie": cookie})
        response = connection.getresponse()
        answer = Answer(response.status, response.read().decode(), dict(response.getheaders()))
        return answer, (response.headers.get_all("Set-Cookie") or [""])[0].split(";")[0]
    finally:
        connection.close()


def signed_in(box: Box, app: str, *words: str, **options: object) -> str:
    answer, cookie = follow(link(box, app, *words, **options))
    assert answer.status == 303 and answer.headers["Location"] == "/" and cookie, answer
    return cookie


def who(box: Box, app: str, cookie: str, host: str = "") -> Answer:
    return box.get(app, _WHO, host=host or f"{app}.localhost:{box.http_port}", headers={"Cookie": cookie})


def test_the_page_says_what_to_type_and_that_works(box: Box, club: str) -> None:
    page = who(box, club, "")
    assert page.status == 401 and f"ssh -p {box.ssh_port} paasd@localhost apps:sign-in club</pre>" in page.text
    url = link(box, club)
    assert url.startswith(f"http://club.localhost:{box.http_port}/.paasd/sign-in?token=")
    answer, cookie = follow(url)
    assert answer.status == 303
    assert who(box, club, cookie).text == "user=admin key=admin cookie=\n"
    assert follow(url)[0].status == 401, "once"
    assert who(box, club, signed_in(box, club)).status == 200
    local = box.local("apps:sign-in", club).out.splitlines()[-1]
    assert who(box, club, follow(local)[1]).text == "user=root key= cookie=\n"


def test_the_link_is_refused_where_there_is_nothing_to_sign_in_to(box: Box, club: str) -> None:
    assert box.ssh("apps:create", "open-club").status == 0
    refused = box.ssh("apps:sign-in", "open-club")
    assert refused.status != 0 and "auth.members is not on" in refused.err
    nobody = box.ssh("apps:sign-in", "no-club")
    assert nobody.status != 0 and "no-club" in nobody.err
    elsewhere = box.ssh("apps:sign-in", club, "--host", "open-club.localhost")
    assert elsewhere.status != 0 and "club is not at open-club.localhost" in elsewhere.err
    assert box.ssh("apps:sign-in", club, "--host", "'x y/'").status != 0
    assert box.ssh("apps:destroy", "open-club", "--force").status == 0


def test_other_host_names_and_wildcards(box: Box, club: str) -> None:
    assert box.ssh("domains:add", club, "club.test", "*.members.test").status == 0
    for host in ("club.test", "a.members.test"):
        cookie = signed_in(box, club, "--host", host)
        assert who(box, club, cookie, host).status == 200 and who(box, club, cookie).status == 401
    assert link(box, club).startswith(f"http://club.test:{box.http_port}/")
    assert box.ssh("domains:remove", club, "club.test", "*.members.test").status == 0


def test_a_removed_key_ends_its_sessions_only(box: Box, club: str) -> None:
    key = box.new_key("guest")
    public = key.with_suffix(".pub").read_text()
    assert box.ssh("keys:add", "guest", stdin=public).status == 0
    kept, cookie, unused = signed_in(box, club), signed_in(box, club, key=key), link(box, club, key=key)
    assert "key=guest" in who(box, club, cookie).text
    assert box.ssh("keys:remove", "guest").status == 0
    assert who(box, club, cookie).status == 401, "at once"
    assert follow(unused)[0].status == 401
    assert who(box, club, kept).status == 200
    assert box.ssh("keys:add", "guest", stdin=public).status == 0
    assert who(box, club, cookie).status == 401, "the same key added again is another one"
    assert box.ssh("keys:remove", "guest").status == 0


def test_whoever_is_no_member_any_more_is_signed_out(box: Box, club: str) -> None:
    """Nothing changes memberships yet but the database."""
    key = box.new_key("carol")
    assert box.ssh("keys:add", "carol", stdin=key.with_suffix(".pub").read_text()).status == 0
    database = sqlite3.connect(box.data / "state.db", timeout=20, isolation_level=None)
    try:
        database.execute("PRAGMA foreign_keys = ON")
        (organization,) = database.execute("SELECT id FROM organizations").fetchone()
        database.execute("INSERT INTO users VALUES ('carol', 'carol', 0)")
        database.execute("INSERT INTO memberships VALUES (?, 'carol', 'viewer')", (organization,))
        database.execute("UPDATE ssh_keys SET user_id = 'carol' WHERE name = 'carol'")
        cookie = signed_in(box, club, key=key)
        assert "user=carol key=carol" in who(box, club, cookie).text, "a viewer may see it"
        assert box.ssh("apps:sign-out", club, key=key).status != 0, "and not sign others out"
        database.execute("INSERT INTO organizations VALUES ('elsewhere', 'elsewhere', 0)")
        database.execute("UPDATE memberships SET organization_id = 'elsewhere' WHERE user_id = 'carol'")
        eventually(lambda: who(box, club, cookie).status == 401)
        database.execute("UPDATE ssh_keys SET organization_id = 'elsewhere' WHERE user_id = 'carol'")
        stranger = box.ssh("apps:sign-in", club, key=key)
        assert stranger.status != 0 and "no app" in stranger.err and "token" not in stranger.all, stranger
    finally:
        database.execute("DELETE FROM users WHERE id = 'carol'")
        database.execute("DELETE FROM organizations WHERE id = 'elsewhere'")
        database.close()


def test_signing_everybody_out(box: Box, club: str) -> None:
    cookie, unused = signed_in(box, club), link(box, club)
    assert box.ssh("apps:sign-out", club).status == 0
    assert who(box, club, cookie).status == 401 and follow(unused)[0].status == 401
    assert who(box, club, signed_in(box, club)).status == 200


def test_what_a_session_outlives(box: Box, club: str) -> None:
    """Nothing of it is kept in memory, neither the daemon's nor Nginx's."""
    cookie = signed_in(box, club)
    box.kill()
    assert who(box, club, cookie).status == 200
    box.kill_nginx()
    box.start()
    eventually(lambda: who(box, club, cookie).status == 200)
    assert box.ssh("edge:set", club, "auth.members.time", "5m").status == 0
    assert who(box, club, cookie).status == 200
    assert box.ssh("edge:set", club, "auth.members.time").status == 0
    box.settles()


def test_a_namesake_takes_no_sessions(box: Box) -> None:
    cookies, links = [], []
    for _ in range(2):
        assert box.ssh("apps:create", "doppelganger").status == 0
        assert box.ssh("edge:set", "doppelganger", "auth.members", "on").status == 0
        assert [follow(url)[0].status for url in links] == [401] * len(links)
        assert [who(box, "doppelganger", cookie).status for cookie in cookies] == [401] * len(cookies)
        cookies.append(signed_in(box, "doppelganger"))
        links.append(link(box, "doppelganger"))
        assert who(box, "doppelganger", cookies[-1]).status == 503, "it has no instance"
        assert box.ssh("apps:destroy", "doppelganger", "--force").status == 0


def test_a_clone_has_members_but_not_the_sessions(box: Box, club: str) -> None:
    cookie = signed_in(box, club)
    assert box.ssh("apps:clone", club, "club-two").status == 0
    assert who(box, "club-two", cookie).status == 401
    assert who(box, "club-two", signed_in(box, "club-two")).status == 200
    assert box.ssh("apps:rename", "club-two", "club-three").status == 0
    assert "apps:sign-in club-three</pre>" in who(box, "club-three", "").text
    assert who(box, "club-three", signed_in(box, "club-three")).status == 200
    assert box.ssh("apps:destroy", "club-three", "--force").status == 0


def test_nobody_sees_the_key(box: Box, club: str) -> None:
    policy = next(line for line in (box.data / "edge" / "policies.txt").read_text().splitlines() if "club " in line)
    key = policy.split('"key":"')[1].split('"')[0]
    assert len(key) == 43 and (box.data / "edge" / "policies.txt").stat().st_mode & 0o077 == 0
    shown = [box.ssh("nginx:show-config", club), box.ssh("edge:report", club), box.ssh("events", club)]
    shown += [box.ssh("apps:sign-in", club)]
    assert all(key not in each.all for each in shown) and '"key":"****"' in shown[0].out
    token = shown[-1].out.rpartition("=")[2].strip()
    files = [path for path in box.data.rglob("*") if path.is_file() and path.name != "policies.txt"]
    time.sleep(0.3)
    assert [path for path in files if any(text.encode() in path.read_bytes() for text in (key, token))] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auth.members", "yes"),
        ("auth.members.time", "4m"),
        ("auth.members.time", "31d"),
        ("auth.forward-headers", "X-Paasd-User"),
        ("header.request", "'set X-Paasd-User admin'"),
    ],
)
def test_what_cannot_be_set(box: Box, club: str, key: str, value: str) -> None:
    assert box.ssh("edge:set", club, key, value).status != 0
