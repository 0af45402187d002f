from __future__ import annotations

import pytest

from paasd.build.dockerfile_rules import check
from paasd.errors import SourceRejected
from paasd.progress import Progress


@pytest.mark.parametrize(
    "line",
    [
        "ADD http://127.0.0.1:8080/x /x",
        "add --chown=1:1 https://example.org/x.tar /x",
        "ADD git@example.org:x.git /x",
        "ARG URL\nADD $URL /x",
        "ONBUILD ADD http://x/y /y",
        'ADD ["http://x/y", "/y"]',
        "ADD \\\n  http://x/y /y",
        "RUN --mount=type=cache,id=paasd-apt-bookworm,target=/c ls /c",
        "ARG I\nRUN --mount=type=cache,id=$I,target=/c ls /c",
        "FROM box/other-1234abcd:b1",
        "FROM --platform=linux/amd64 docker.io/box/other:b1 AS x",
        "COPY --from=box/other-1234abcd:b1 /app /stolen",
        "RUN --mount=type=bind,from=box/other:b1,target=/x cat /x/app.py",
    ],
)
def test_what_reaches_beyond_the_app_is_refused(line: str) -> None:
    with pytest.raises(SourceRejected, match="the Dockerfile"):
        check(f"FROM paasd/python:3.13\n{line}\n", "box")


def test_everyday_dockerfiles_are_fine() -> None:
    text = (
        "ARG TAG=bookworm\nFROM paasd/python:$TAG AS build\nFROM boxer/image\n"
        "ADD local.tar /x\nCOPY --from=build /a /a\n"
        "RUN --mount=type=cache,target=/root/.cache pip install x\nRUN curl http://example.org/x\n"
    )
    check(text, "box")


def test_progress_cannot_steer_a_terminal() -> None:
    lines: list[str] = []
    progress = Progress(lines.append)
    progress.detail("a\x1b]0;title\x07b\x1b[31mred\x1b[0m\tc\x9b2Jd\r")
    assert lines == ["       abred\tc2Jd"]
