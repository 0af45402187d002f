"""Under attack: who has done the sum gets in, nobody else does."""

from __future__ import annotations

import hashlib
import re
import time

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import async_playwright, expect

from paasd.edge_values import Site
from paasd.gateway.policy import policy_text
from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy

ON = {"under-attack": "on"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Guarded:
    """An app that counts what reaches it."""

    def __init__(self, bench: Bench, app: str = "blog") -> None:
        self.bench, self.app, self.host, self.seen = bench, app, f"{app}.test", 0

    async def start(self) -> Guarded:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.seen += 1
            return web.Response(text="inside")

        await self.bench.serve(self.app, await self.bench.apps.start(answer))
        await set_policy(self.bench, self.app, **ON)
        return self

    async def ask(
        self, path: str = "/", method: str = "GET", **headers: str
    ) -> tuple[int, str, aiohttp.ClientResponse]:
        url = self.bench.visitor.url(path)
        async with self.bench.visitor.session.request(method, url, headers={"Host": self.host, **headers}) as response:
            return response.status, await response.text(), response

    async def challenge(self) -> tuple[str, int]:
        status, text, _ = await self.ask(**BROWSER)
        assert status == 503
        found = re.search(r'challenge = "([\w.-]+)", bits = (\d+)', text)
        assert found, text
        return found[1], int(found[2])

    async def passed(self) -> str:
        """Value of the cookie."""
        status, _, response = await self.ask(method="HEAD", **{"X-Paasd-Proof": solved(*await self.challenge())})
        assert status == 204
        cookie = response.cookies["paasd_pass"]
        assert cookie["httponly"] and cookie["samesite"] == "Lax" and int(cookie["max-age"]) == 3600
        return cookie.value


def solved(challenge: str, bits: int) -> str:
    number = 0
    while int.from_bytes(hashlib.sha1(f"{challenge}.{number}".encode()).digest()[:4], "big") >> (32 - bits):
        number += 1
    return f"{challenge}.{number}"


@pytest.fixture
async def guarded(bench: Bench) -> Guarded:
    return await Guarded(bench).start()


async def test_a_sum_is_a_pass(guarded: Guarded) -> None:
    value = await guarded.passed()
    assert (await guarded.ask("/x?y", Cookie=f"a=b; paasd_pass={value}"))[:2] == (200, "inside")
    assert (await guarded.ask(method="POST", Cookie=f"paasd_pass={value}"))[0] == 200
    assert guarded.seen == 2


async def test_without_a_pass_nothing_reaches_the_app(guarded: Guarded) -> None:
    status, text, response = await guarded.ask(Accept="application/json")
    assert status == 503 and '"code":"under-attack"' in text and response.headers["Retry-After"] == "10"
    for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE"):
        status, text, _ = await guarded.ask(method=method)
        assert status == 503 and "<script>" not in text
    for headers in (
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Accept": "text/event-stream"},
        {"Host": "BLOG.test:80"},
    ):
        assert (await guarded.ask(**headers))[0] == 503
    assert (await guarded.ask("/.well-known/acme-challenge/token"))[0] == 503
    assert guarded.seen == 0


async def test_passes_cannot_be_made_up(guarded: Guarded) -> None:
    value = await guarded.passed()
    time_, signature = value.split(".")
    challenge, bits = await guarded.challenge()
    other = await (Guarded(guarded.bench, "other")).start()
    made_up = [
        *(
            "",
            ".",
            "x",
            "9" * 400,
            "9999999999.",
            f"{int(time_) + 1}.{signature}",
            f"{time_}.",
            f"0{time_}.{signature}",
        ),
        *(f"{time_}.{signature}x", f"{time_}.{signature[:-1]}", f"1e12.{signature}", f"-1.{signature}", challenge),
        await other.passed(),
    ]
    for each in made_up:
        assert (await guarded.ask(Cookie=f"paasd_pass={each}"))[0] == 503, each
    assert (await guarded.ask(Cookie=f"paasd_pass=x; paasd_pass={value}"))[0] == 503, "the first counts"
    proofs = [
        *(challenge, f"{challenge}.", f"{challenge}.0", f"{int(time.time()) + 100}.{'A' * 27}.0", "." * 200),
        solved(f"{int(time.time()) + 100}.{'A' * 27}", bits),
        solved(*await other.challenge()),
        solved(value, bits),
    ]
    for each in proofs:
        assert (await guarded.ask(method="HEAD", **{"X-Paasd-Proof": each}))[0] == 503, each
    assert guarded.seen == 0


async def test_passes_hold_for_one_address(guarded: Guarded) -> None:
    cookie = {"Cookie": f"paasd_pass={await guarded.passed()}"}
    for address, wanted in (("127.0.0.1", 200), ("127.0.0.9", 503)):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0))) as session:
            headers = {"Host": guarded.host, "X-Forwarded-For": "127.0.0.1", **cookie}
            async with session.get(guarded.bench.visitor.url(), headers=headers) as response:
                assert response.status == wanted


async def test_it_comes_and_goes_and_passes_outlive_a_reload(guarded: Guarded) -> None:
    cookie = {"Cookie": f"paasd_pass={await guarded.passed()}"}
    await set_policy(guarded.bench, "blog")
    assert (await guarded.ask())[0] == 200
    await set_policy(guarded.bench, "blog", **ON, allow="127.0.0.0/8")
    guarded.bench.edge._nginx.reload()
    for _ in range(5):
        assert (await guarded.ask())[0] == 503
        assert (await guarded.ask(**cookie))[0] == 200
    await set_policy(guarded.bench, "blog", **ON, deny="127.0.0.0/8")
    assert (await guarded.ask(**cookie))[0] == 403, "other parts go on"


async def test_a_real_browser_gets_in_by_itself(guarded: Guarded) -> None:
    bench = guarded.bench
    await bench.edge.set_site(Site("blog", ("blog.localhost",), policy=policy_text({"under-attack": "on"})))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        try:
            page = await browser.new_page()
            answer = await page.goto(f"http://blog.localhost:{bench.http.port}/deep/page?x=1")
            assert answer and answer.status == 503
            await expect(page.locator("body")).to_have_text("inside", timeout=30_000)
            assert page.url.endswith("/deep/page?x=1")
            assert await page.evaluate("document.cookie") == ""
            answer = await page.reload()
            assert answer and answer.status == 200
        finally:
            await browser.close()
