"""Secrets of `RUN --mount=type=secret`, pushed for real: the build gets them; image, history and log never do."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import secrets
import socket
from collections.abc import Iterator

import pytest

from paasd.build.buildkit import build_image
from paasd.build.session import opened
from paasd.docker_engine import DockerEngine
from paasd.errors import BuildFailed, EngineError
from paasd.models import Secret
from tests.box import Box, Done, docker
from tests.images import TEST_IMAGE, ensure_test_image
from tests.integration.test_buildkit import context

pytestmark = pytest.mark.engine
PROCFILE = "web: python3 -m http.server --directory /srv/www $PORT\n"
DOCKERFILE = """FROM paasd/python:3.13
RUN --mount=type=secret,id=API_TOKEN,required=true --mount=type=secret,id=npm-token \\
    mkdir /srv/www; cat /run/secrets/API_TOKEN; sha256sum < /run/secrets/API_TOKEN > /srv/www/index.html; \\
    test -e /run/secrets/npm-token || echo no token of npm
ARG API_TOKEN
RUN echo "API_TOKEN is ${API_TOKEN:-no argument}"
COPY note /srv/www/note
USER 10001:10001
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box()
    try:
        yield box.start()
    finally:
        box.close()


def saved(image: str) -> bytes:
    """All of an image as `docker save` gives it: its configuration, its history and every layer."""
    connection = http.client.HTTPConnection("unix", timeout=120)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect("/var/run/docker.sock")
    try:
        connection.request("GET", f"/images/{image}/get")
        return connection.getresponse().read()
    finally:
        connection.close()


def pushed(box: Box, app: str, repository: object) -> Done:
    done = box.push(repository, app)  # type: ignore[arg-type]
    assert done.status == 0, done.err
    return done


def test_a_dockerfile_gets_its_secret_and_nothing_keeps_it(box: Box) -> None:
    first, second = (f"{word}-{secrets.token_hex(12)}" for word in ("first", "second"))
    repository = box.repository({"Dockerfile": DOCKERFILE, "Procfile": PROCFILE, "note": "1"})
    refused = box.push(repository, "sealed")
    assert refused.status != 0 and "asks for the secret API_TOKEN" in refused.err, refused.err
    assert "config:set --no-restart sealed API_TOKEN=…; builds:set sealed build-env API_TOKEN" in refused.err

    assert box.ssh("config:set", "--no-restart", "sealed", f"API_TOKEN={first}").status == 0
    refused = box.push(repository, "sealed")
    assert refused.status != 0 and "Type: builds:set sealed build-env API_TOKEN" in refused.err, refused.err
    assert box.ssh("builds:set", "sealed", "build-env", "API_TOKEN").status == 0
    done = pushed(box, "sealed", repository)
    assert box.get("sealed").text.split()[0] == hashlib.sha256(first.encode()).hexdigest()
    assert "builds:set sealed build-env API_TOKEN NPM_TOKEN" in done.err and "no token of npm" in done.err
    assert "API_TOKEN is no argument" in done.err and "****" in done.err

    info = box.json("builds:info", "sealed")
    logs = [box.ssh("builds:log", "sealed", str(build["number"])).out for build in box.json("builds", "sealed")]
    assert any("Built in" in log for log in logs)
    history = json.dumps(docker("GET", f"/images/{info['image']}/history"))
    kept = saved(info["image"])
    assert "RUN" in history and b"index.html" in kept
    for place in (done.err, *logs, history, json.dumps(info), box.log(), kept.decode(errors="replace")):
        assert first not in place

    # Another value builds what depends on it anew; the first one finds the image that it made.
    box.ssh("config:set", "--no-restart", "sealed", f"API_TOKEN={second}")
    repository.commit({})
    changed = pushed(box, "sealed", repository)
    assert box.get("sealed").text.split()[0] == hashlib.sha256(second.encode()).hexdigest()
    assert second not in changed.err
    box.ssh("config:set", "--no-restart", "sealed", f"API_TOKEN={first}")
    repository.commit({})
    assert "Nothing changed since build" in pushed(box, "sealed", repository).err
    repository.commit({"note": "2"})
    again = pushed(box, "sealed", repository)
    assert box.get("sealed").text.split()[0] == hashlib.sha256(first.encode()).hexdigest()
    assert box.get("sealed", "/note").text == "2" and "CACHED" in again.err


def test_caches_of_a_dockerfile_belong_to_its_app(box: Box) -> None:
    """They are named by who writes the Dockerfile, or after their path: two apps would meet in them."""
    dockerfile = (
        "FROM paasd/python:3.13\nCOPY note /note\n"
        "RUN --mount=type=cache,id=shared,target=/cache mkdir /srv/www; touch /cache/begun; ls /cache > /srv/www/a;"
        " cp /note /cache/$(cat /note)\nUSER 10001:10001\n"
    )
    word = secrets.token_hex(4)
    mine = box.repository({"Dockerfile": dockerfile, "Procfile": PROCFILE, "note": f"{word}-1"})
    theirs = box.repository({"Dockerfile": dockerfile, "Procfile": PROCFILE, "note": f"{word}-2"})
    pushed(box, "mine", mine)
    pushed(box, "theirs", theirs)
    assert box.get("theirs", "/a").text.split() == ["begun"]
    mine.commit({"note": f"{word}-3"})
    pushed(box, "mine", mine)
    assert set(box.get("mine", "/a").text.split()) == {f"{word}-1", "begun"}
    assert box.ssh("builds:cache:clear", "mine").status == 0
    mine.commit({"note": f"{word}-4"})
    pushed(box, "mine", mine)
    assert box.get("mine", "/a").text.split() == ["begun"]


async def test_the_session_ends_with_its_build_however_that_ends() -> None:
    engine = DockerEngine("unix:///var/run/docker.sock")
    await ensure_test_image(engine)
    seconds = f"3600.{secrets.randbelow(10**9)}"
    files = {"Dockerfile": f"FROM {TEST_IMAGE}\nRUN --mount=type=secret,id=A test -e /run/secrets/A; sleep {seconds}\n"}

    async def build(idle_timeout: float) -> None:
        async with opened(engine, {"A": Secret("value-of-a")}) as session:
            await build_image(
                engine,
                context(files),
                tag="",
                session=session,
                on_line=lambda line: None,
                timeout=60,
                idle_timeout=idle_timeout,
            )

    with pytest.raises(BuildFailed, match="idle_timeout"):
        await build(1.5)
    task = asyncio.create_task(build(60))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await engine.close()
    assert not [task for task in asyncio.all_tasks() if "serve" in repr(task.get_coro())]


async def test_an_engine_that_refuses_a_session_is_said() -> None:
    engine = DockerEngine("unix:///var/run/docker.sock")
    with pytest.raises(EngineError, match=r"refused POST /sessions: HTTP/1\.1 404"):
        await engine.upgrade("/sessions", "h2c", [], timeout=10)
    await engine.close()
    gone = DockerEngine("unix:///nowhere/docker.sock")
    with pytest.raises(EngineError, match="does not answer"):
        await gone.upgrade("/session", "h2c", [], timeout=10)
    await gone.close()
