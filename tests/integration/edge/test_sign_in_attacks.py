"""What is tried against apps that only their members see."""

from __future__ import annotations

import asyncio
import json

import pytest

from paasd.edge_values import Site
from paasd.gateway.policy import policy_text
from paasd.models import Secret
from paasd.route.edge_tls import Served
from tests.integration.edge.conftest import Bench, until
from tests.integration.edge.members import (
    COOKIE,
    HTML,
    OTHER_KEY,
    WANTED,
    Browser,
    encoded,
    part,
    seen,
    token,
)
from tests.integration.edge.raw import exchange
from tests.tls import Authority


@pytest.fixture
async def blog(bench: Bench) -> Browser:
    await bench.serve("blog", await bench.apps.start(seen), policy=json.dumps({"members": part()}))
    return Browser(bench)


def altered(good: str) -> list[str]:
    member, made, id, signature = good.split(".")
    flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    return [
        *(
            "",
            ".",
            "...",
            good[:-1],
            good[:-10],
            good + "A",
            good + ".",
            "." + good,
            good * 3,
            good.upper(),
            "x" * 5000,
        ),
        f"b2.{made}.{id}.{signature}",
        f"{member}.{int(made) + 1}.{id}.{signature}",
        f"{member}.{made}.{id}x.{signature}",
        f"{member}.{made}.{id}.{flipped}",
        f"{member}.{made}.{id}.",
        f"{member}.{made}.{id}",
        f"{member}.{made}0000000000.{id}.{signature}",
        f"{member}.{made}.{signature}.{id}",
        good.replace(".", "%00."),
    ]


async def test_links_that_nobody_gave(blog: Browser) -> None:
    wrong = [
        *altered(token()),
        token(purpose="session"),
        token(key=OTHER_KEY),
        token(key=b""),
        token(host="other.test"),
        token(host="blog.test:80"),
        token(scheme="https"),
        token("c3"),
        token(age=301),
        token(age=10_000_000),
        token(age=-60),
    ]
    for each in wrong:
        answer = await blog.enter(each)
        assert answer.status == 401 and not answer.cookies and "Location" not in answer.headers, each
    assert (await blog.enter(token())).status == 303


async def test_sessions_that_nobody_gave(blog: Browser) -> None:
    cookie = await blog.session()
    wrong = [
        *altered(cookie.removeprefix(f"{COOKIE}=")),
        token(),
        *(
            token(purpose="session", **each)
            for each in ({"key": OTHER_KEY}, {"host": "other.test"}, {"scheme": "https"})
        ),  # type: ignore[arg-type]
        token("c3", purpose="session"),
        token(purpose="session", age=3601),
        token(purpose="session", age=-60),
    ]
    for each in wrong:
        assert (await blog.ask(Cookie=f"{COOKIE}={each}")).status == 401, each
    assert (await blog.ask(Cookie=cookie.replace("paasd_", "__Host-paasd_"))).status == 401
    assert (await blog.ask(Cookie=f"{COOKIE}={token(purpose='session', age=3500)}")).status == 200
    assert (await blog.ask(Cookie=cookie)).status == 200


async def test_what_looks_at_a_link_does_not_use_it_up(blog: Browser) -> None:
    link = token()
    for method in ("HEAD", "POST", "PUT", "OPTIONS"):
        answer = await blog.ask(f"/.paasd/sign-in?token={link}", method)
        assert answer.status == 405 and answer.headers["Allow"] == "GET" and not answer.cookies
    assert (await blog.enter(link, Sec_Purpose="prefetch")).status == 405
    assert (await blog.enter(link)).status == 303


async def test_paths_that_mean_the_same_are_the_same(blog: Browser) -> None:
    for path in ("/.paasd//sign-in", "/%2epaasd/sign-in", "/x/../.paasd/./sign-in", "//.paasd/sign-in"):
        raw = f"GET {path}?token={token()} HTTP/1.1\r\nHost: blog.test\r\n\r\n"
        assert (await exchange(blog.bench.http.port, raw.encode())).startswith(b"HTTP/1.1 303"), path
    for path in ("/.paasd/sign-in/", "/.paasd/sign-inx", "/.paasd/sign-in%00", "/.paasd/sign-in;x", "/.PAASD/sign-in"):
        raw = f"GET {path}?token={token()} HTTP/1.1\r\nHost: blog.test\r\n\r\n"
        head = (await exchange(blog.bench.http.port, raw.encode())).partition(b"\r\n\r\n")[0]
        assert head.split()[1] in (b"401", b"400") and b"Set-Cookie" not in head, path


@pytest.mark.parametrize(
    "target",
    [
        *("//evil.test", "/\\evil.test", "\\\\evil.test", "https://evil.test/", "javascript:alert(1)", "evil.test", ""),
        *(
            "/a\r\nSet-Cookie: x=y",
            "/a\nb",
            "/a\x00b",
            "/\tevil.test",
            "/ /evil.test",
            "/a\\..\\b",
            "/é",
            "/" + "a" * 600,
        ),
        *("/.paasd/sign-out", "?a", "/\t/evil.test"),
    ],
)
async def test_nobody_is_sent_elsewhere(blog: Browser, target: str) -> None:
    answer = await blog.enter(token(), Cookie=f"{WANTED}={encoded(target.encode())}")
    assert answer.status == 303 and answer.headers["Location"] == "/" and "x" not in answer.cookies


async def test_scripts_and_strange_paths_are_not_remembered(blog: Browser) -> None:
    for headers in ({"Accept": "*/*"}, {"Accept": HTML, "Sec_Fetch_Dest": "image"}):
        assert WANTED not in (await blog.ask("/a", **headers)).cookies
    assert WANTED not in (await blog.ask("/a", "POST", Accept=HTML)).cookies
    raw = await exchange(
        blog.bench.http.port, b"GET //evil.test/ HTTP/1.1\r\nHost: blog.test\r\nAccept: text/html\r\n\r\n"
    )
    assert raw.startswith(b"HTTP/1.1 401") and b"Set-Cookie" not in raw


async def test_nobody_else_says_who_a_visitor_is(blog: Browser) -> None:
    cookie = await blog.session(member="b2")
    names = (
        "X-Paasd-User",
        "x-paasd-user",
        "X_Paasd_User",
        "X-PAASD_USER",
        "X-Paasd-User ",
        "X-Paasd-Key",
        "X.Paasd.User",
    )
    for name in names:
        for smuggled in (
            f"{name}: admin\r\n",
            f"{name}: admin\r\n{name}: root\r\n",
            f"{name}:\r\n",
            f"A: b\r\n{name}:admin\r\n",
        ):
            raw = f"GET / HTTP/1.1\r\nHost: blog.test\r\nCookie: {cookie}\r\n{smuggled}\r\n"
            head, _, body = (await exchange(blog.bench.http.port, raw.encode())).partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200"):
                told = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
                assert told["x-paasd-user"] == ["bob"] and told["x-paasd-key"] == ["desk"], smuggled
                assert b"admin" not in body and b"root" not in body, smuggled
            else:
                assert head.startswith(b"HTTP/1.1 400"), (smuggled, head)


async def test_cookies_that_another_host_name_set_do_not_hide_the_session(blog: Browser) -> None:
    cookie = await blog.session()
    junk = "; ".join(f"{COOKIE}={token(purpose='session', key=OTHER_KEY)}" for _ in range(15))
    assert (await blog.ask(Cookie=f"{junk}; {cookie}")).status == 200
    assert (await blog.ask(Cookie=f"{junk}; {junk}; {cookie}")).status == 401


async def test_over_https_other_host_names_cannot_set_the_cookie(bench: Bench, blog: Browser) -> None:
    """And browsers that speak HTTP/2 send each cookie by itself."""
    key, chain = Authority.new().leaf(("blog.test",))
    await bench.edge.tls.put(Served("one", ("blog.test",), Secret(key + chain)))
    port = bench.http.https_port

    async def ask(path: str, *cookies: str) -> str:
        lines = [word for cookie in cookies for word in ("-H", f"Cookie: {cookie}")]
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sik", "--http2", "-m", "10", "--resolve", f"blog.test:{port}:127.0.0.1", *lines),
            f"https://blog.test:{port}{path}",
            stdout=asyncio.subprocess.PIPE,
        )
        return (await curl.communicate())[0].decode()

    answer = await ask(f"/.paasd/sign-in?token={token(scheme='https')}")
    assert answer.startswith("HTTP/2 303") and "location: /\r\n" in answer
    cookie, attributes = answer.split(f"set-cookie: __Host-{COOKIE}=")[1].split("\r\n")[0].split("; ", 1)
    assert attributes == "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"
    inside = await ask("/", "a=b", f"__Host-{COOKIE}={cookie}", "c=d")
    assert inside.startswith("HTTP/2 200") and '"cookie": ["a=b; c=d"]' in inside and "alice" in inside
    plain = (await blog.session()).partition("=")[2]
    for each in (f"{COOKIE}={cookie}", f"{COOKIE}={plain}", f"__Host-{COOKIE}={plain}"):
        assert (await ask("/", each)).startswith("HTTP/2 401"), "one for plain HTTP may have been overheard"
    assert (await ask(f"/.paasd/sign-in?token={token()}")).startswith("HTTP/2 401")


async def test_links_of_before_a_start_of_nginx_hold_no_more(bench: Bench, blog: Browser) -> None:
    """It has forgotten which were used."""
    used, fresh, session = token(), token(), await blog.session()
    assert (await blog.enter(used)).status == 303
    await asyncio.sleep(1.1)  # links tell whole seconds
    await bench.edge.stop()
    await bench.edge.start()
    assert [(await blog.enter(each)).status for each in (used, fresh)] == [401, 401]
    assert (await blog.ask(Cookie=session)).status == 200
    assert (await blog.enter(token())).status == 303


async def test_links_are_in_no_log(bench: Bench, blog: Browser) -> None:
    policy = policy_text({"access-log": "query"}, {"members": part()})
    await bench.edge.set_site(Site("blog", ("blog.test",), policy=policy))
    link, bad = token(), token(key=OTHER_KEY)
    await blog.enter(link), await blog.enter(bad), await blog.ask("/a?seen=1")
    path = bench.directory / "access" / "blog.log"

    async def all_there() -> bool:
        return path.exists() and path.read_text().count("\n") == 3

    await until(all_there)
    assert "seen=1" in path.read_text() and path.read_text().count('"/.paasd/sign-in"') == 2
    kept = [each for each in bench.directory.rglob("*") if each.is_file()]
    secret = [link.rpartition(".")[2], bad.rpartition(".")[2]]
    assert [each for each in kept for text in secret if text in each.read_text(errors="replace")] == []


async def test_of_many_that_open_a_link_at_once_one_gets_in(blog: Browser) -> None:
    link = token()
    answers = await asyncio.gather(*(blog.enter(link) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [303] + [401] * 19


@pytest.mark.parametrize("wrong", [{}, {"key": "short"}, {"members": None}, {"seconds": None}, 7])
async def test_a_part_that_cannot_be_read_lets_nobody_in(bench: Bench, blog: Browser, wrong: object) -> None:
    cookie = await blog.session()
    settings = {**part(), **wrong} if isinstance(wrong, dict) and wrong else wrong
    await bench.edge.set_site(Site("blog", ("blog.test",), policy=json.dumps({"members": settings})))
    assert (await blog.ask(Cookie=cookie)).status == 500


async def test_nobody_says_who_he_is_by_way_of_another_app(bench: Bench) -> None:
    await bench.serve("blog", await bench.apps.start(seen), policy=json.dumps({"members": part()}))
    routes = [{"prefix": "/blog", "app": "blog", "strip": True}]
    await bench.serve("front", await bench.apps.saying("front"), policy=json.dumps({"routes": routes}))
    front = Browser(bench, "front.test")
    told = json.loads((await front.ask("/blog/x", **{"X-Paasd-User": "root", "x-paasd-key": "k"})).text)
    assert not {"x-paasd-user", "x-paasd-key"} & told.keys()


SAME_SITE = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", SAME_SITE, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ("POST", {"Origin": "http://evil.test"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {}, 200),
        ("GET", {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "http://evil.test"}, 403),
        ("GET", {"Origin": "http://evil.test"}, 200),
        ("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
    ],
)
async def test_pages_elsewhere_do_nothing_in_a_members_name(
    bench: Bench, method: str, headers: dict[str, str], status: int
) -> None:
    await bench.serve("blog", await bench.apps.start(seen), policy=json.dumps({"members": part()}))
    blog = Browser(bench)
    assert (await blog.ask(method=method, Cookie=await blog.session(), **headers)).status == status


async def test_origins_that_were_let_in_may(bench: Bench) -> None:
    cors = json.loads(policy_text({"cors.origins": "http://app.test"}))
    await bench.serve("blog", await bench.apps.start(seen), policy=json.dumps({"members": part(), **cors}))
    blog = Browser(bench)
    cookie = await blog.session()
    for origin, status in (("http://app.test", 200), ("http://evil.test", 403)):
        answer = await blog.ask(method="POST", Cookie=cookie, Origin=origin, **SAME_SITE)
        assert answer.status == status, origin


async def test_ones_own_pages_may_do_everything(bench: Bench) -> None:
    await bench.serve("blog", await bench.apps.start(seen), policy=json.dumps({"members": part()}))
    blog = Browser(bench)
    cookie = await blog.session()
    assert (await blog.ask(method="POST", Cookie=cookie, Origin="http://blog.test")).status == 200
