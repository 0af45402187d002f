"""Reading BuildKit's trace, and showing it."""

from __future__ import annotations

import pytest

from paasd.build.buildkit import pin_frontend
from paasd.build.output import BuildOutput, printable, title
from paasd.build.trace import Status, Vertex, VertexLog, decode
from paasd.errors import EngineError, SourceRejected


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def time(seconds: int, nanoseconds: int) -> bytes:
    return field(1, seconds) + field(2, nanoseconds)


def test_a_status_is_decoded() -> None:
    vertex = (
        field(1, b"sha256:a")
        + field(2, b"sha256:input")
        + field(3, "[1/2] RUN écho".encode())
        + field(4, 1)
        + field(5, time(1_700_000_000, 5))
        + field(6, time(1_700_000_001, 500_000_000))
        + field(7, b"broken")
        + varint(9 << 3 | 5)
        + b"1234"
    )
    log = field(1, b"sha256:a") + field(2, time(1, 2)) + field(3, 1) + field(4, b"out\n\xff")
    assert decode(field(1, vertex) + field(2, b"status") + field(3, log)) == Status(
        (Vertex("sha256:a", "[1/2] RUN écho", True, 1_700_000_000.000000005, 1_700_000_001.5, "broken"),),
        (VertexLog("sha256:a", b"out\n\xff"),),
    )


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05ab", b"\xff" * 11, b"\x0b\x00", b"\x08"])
def test_malformed_messages_are_an_engine_error(message: bytes) -> None:
    with pytest.raises(EngineError):
        decode(message)


def shown(*statuses: Status) -> list[str]:
    lines: list[str] = []
    output = BuildOutput(lines.append)
    for status in statuses:
        output.show(status)
    return lines


def test_steps_are_shown_as_they_happen() -> None:
    start = Vertex("a", "[build 2/3] RUN --mount=type=cache,id=x pip  install", started=10.0)
    assert shown(
        Status((Vertex("i", "[internal] load metadata", started=1.0, completed=2.0),), ()),
        Status((Vertex("b", "[build 1/3] FROM docker.io/paasd/base", cached=True, started=1.0, completed=1.0),), ()),
        Status((Vertex("a", "[build 2/3] RUN --mount=type=cache,id=x pip  install"),), ()),
        Status((start,), ()),
        Status((), (VertexLog("a", b"one\ntw"), VertexLog("a", b"o\nno end"))),
        Status((Vertex("a", "[build 2/3] RUN pip  install", started=10.0, completed=13.14),), ()),
        Status((Vertex("a", "[build 2/3] RUN pip  install", started=10.0, completed=13.14),), ()),
    ) == [
        "[build 1/3] FROM paasd/base CACHED",
        "[build 2/3] RUN pip install",
        "  one",
        "  two",
        "  no end",
        "  done in 3.1s",
    ]


def test_a_step_interrupted_by_another_repeats_its_title() -> None:
    assert shown(
        Status((Vertex("a", "one", started=1.0), Vertex("b", "two", started=1.0)), ()),
        Status((), (VertexLog("a", b"from one\n"), VertexLog("b", b"from two\n"))),
        Status((Vertex("a", "one", started=1.0, completed=2.0),), ()),
    ) == ["one", "two", "one …", "  from one", "two …", "  from two", "one …", "  done in 1.0s"]


def test_a_failed_step_keeps_its_last_lines() -> None:
    output = BuildOutput(lambda line: None)
    output.show(Status((Vertex("a", "one", started=1.0),), ()))
    output.show(Status((), (VertexLog("a", b"".join(b"%d\n" % number for number in range(50))),)))
    output.show(Status((Vertex("a", "one", started=1.0, completed=2.0, error="exit code: 1"),), ()))
    assert output.tail() == tuple(str(number) for number in range(30, 50))


def test_a_line_without_end_does_not_grow() -> None:
    lines = shown(Status((Vertex("a", "one", started=1.0),), ()), *[Status((), (VertexLog("a", b"x" * 1000),))] * 20)
    assert len(lines) == 3 and all(len(line) < 2100 for line in lines)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain", "plain"),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07end\r", "red end"),
        (b"10%\r50%\r100%\r", "100%"),
        (b"bell\x07\x00 nul", "bell nul"),
        (b"a\tb", "a\tb"),
        (b"bad \xff", "bad \\xff"),
        (b"y" * 3000, "y" * 2000 + "… (3000 characters)"),
    ],
)
def test_lines_are_made_safe_to_print(line: bytes, text: str) -> None:
    assert printable(line) == text


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("FROM a\n", "FROM a\n"),
        ("# syntax=docker/dockerfile:1\nFROM a\n", "FROM a\n"),
        ("#syntax = docker.io/docker/dockerfile:1.4-labs@sha256:00\n# escape=`\nFROM a\n", "# escape=`\nFROM a\n"),
        ("\ufeff# escape=`\n# SYNTAX=docker/dockerfile\nFROM a", "# escape=`\nFROM a"),
        ("FROM a\n# syntax=evil/frontend\n", "FROM a\n# syntax=evil/frontend\n"),
        ("", ""),
    ],
)
def test_the_stock_frontend_is_dropped(text: str, pinned: str) -> None:
    assert pin_frontend(text) == pinned


@pytest.mark.parametrize("frontend", ["evil/frontend", "docker/dockerfile-upstream:master", "x/docker/dockerfile", ""])
@pytest.mark.parametrize("mark", ["#", "//"])
def test_a_foreign_frontend_is_refused(frontend: str, mark: str) -> None:
    with pytest.raises(SourceRejected, match="line 2"):
        pin_frontend(f"# escape=`\n{mark} syntax={frontend}\nFROM a\n")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            '[build 5/5] RUN --mount=type=bind,source=a,target=/b     ["/bin/sh", "-ec", '
            '". /run/paasd/build.env; pip install \\u0027a\\u0027; echo x"]',
            "[build 5/5] RUN pip install 'a'; echo x",
        ),
        ('RUN ["/bin/sh", "-ec", ". /run/paasd/build.env; a", "b"]', None),
        ('RUN ["/bin/sh", "-ec", ". /run/paasd/build.env; "broken"]', None),
        ('RUN ["python3.13", "-m", "venv"]', None),
    ],
)
def test_a_command_of_a_buildpack_is_shown_as_it_was_given(name: str, shown: str | None) -> None:
    assert title(name) == (shown or name)
