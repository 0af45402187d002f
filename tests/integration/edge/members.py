"""Members of an app `blog`, made up here: links and sessions as paasd and the edge sign them, and a browser."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from paasd.edge_values import Site
from tests.integration.edge.conftest import Bench

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
MEMBERS = {"a1": ["alice", "laptop"], "b2": ["bob", "desk"]}
COOKIE, WANTED = "paasd_session", "paasd_wanted"
HTML = "text/html,*/*"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(key: bytes = KEY, **more: object) -> dict[str, object]:
    command = "ssh paasd@box.test apps:sign-in blog"
    usual = {"key": encoded(key), "seconds": 3600, "members": MEMBERS, "host": "blog.test", "command": command}
    return {**usual, **more}


def token(
    member: str = "a1",
    *,
    host: str = "blog.test",
    scheme: str = "http",
    purpose: str = "link",
    key: bytes = KEY,
    age: float = 0,
) -> str:
    text = f"{member}.{int(time.time() - age)}.{secrets.token_urlsafe(16)}"
    signature = hmac.digest(key, "\n".join((purpose, scheme, host, text)).encode(), hashlib.sha256)
    return f"{text}.{encoded(signature)}"


@dataclass
class Answer:
    status: int
    text: str
    headers: aiohttp.typedefs.LooseHeaders
    cookies: dict[str, str]


class Browser:
    """Sends what it is told, keeps nothing."""

    def __init__(self, bench: Bench, host: str = "blog.test") -> None:
        self.bench, self.host = bench, host

    async def ask(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        named = {"Host": self.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = self.bench.visitor.url(path)
        async with self.bench.visitor.session.request(method, url, headers=named, allow_redirects=False) as response:
            set_ = {each.split("=")[0]: each for each in response.headers.getall("Set-Cookie", [])}
            return Answer(response.status, await response.text(), response.headers, set_)

    async def enter(self, link: str, **headers: str) -> Answer:
        return await self.ask(f"/.paasd/sign-in?token={link}", **headers)

    async def session(self, **options: object) -> str:
        """Cookie of somebody who signed in."""
        answer = await self.enter(token(host=self.host, **options))  # type: ignore[arg-type]
        assert answer.status == 303, answer
        return answer.cookies[COOKIE].split(";")[0]


async def seen(request: web.Request) -> web.StreamResponse:
    """What the app is told."""
    names = [name for name in request.headers if "paasd" in name.lower()]
    told = {name.lower(): request.headers.getall(name) for name in names}
    return web.json_response({"path": request.raw_path, "cookie": request.headers.getall("Cookie", []), **told})


async def change(bench: Bench, **more: object) -> None:
    await bench.edge.set_site(Site("blog", ("blog.test",), policy=json.dumps({"members": part(**more)})))  # type: ignore[arg-type]
