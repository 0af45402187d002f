"""Reads BuildKit's progress messages (`moby.buildkit.trace`): protobuf, with the field numbers of
github.com/moby/buildkit api/services/control/control.proto (StatusResponse, Vertex, VertexLog)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paasd.errors import EngineError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Vertex:
    """A step of a build, as it is known now. Sent again whenever it changes."""

    digest: str
    name: str
    cached: bool = False
    started: float | None = None
    completed: float | None = None
    error: str = ""


@dataclass(frozen=True)
class VertexLog:
    """Bytes a step wrote."""

    vertex: str
    data: bytes


@dataclass(frozen=True)
class Status:
    vertexes: tuple[Vertex, ...]
    logs: tuple[VertexLog, ...]


def decode(message: bytes) -> Status:
    """Decode a StatusResponse: 1 vertexes, 2 statuses (not read), 3 logs. Raises EngineError on malformed bytes."""
    try:
        found = list(fields(message))
        return Status(
            vertexes=tuple(_vertex(value) for number, value in found if number == 1 and isinstance(value, bytes)),
            logs=tuple(_log(value) for number, value in found if number == 3 and isinstance(value, bytes)),
        )
    except (IndexError, ValueError) as error:
        raise EngineError(f"the container engine sent build progress that cannot be read: {error}") from error


def _vertex(message: bytes) -> Vertex:
    """Vertex: 1 digest, 3 name, 4 cached, 5 started, 6 completed, 7 error."""
    values = dict(fields(message))
    return Vertex(
        digest=_text(values.get(1)),
        name=_text(values.get(3)),
        cached=bool(values.get(4)),
        started=_time(values.get(5)),
        completed=_time(values.get(6)),
        error=_text(values.get(7)),
    )


def _log(message: bytes) -> VertexLog:
    """VertexLog: 1 vertex, 4 msg."""
    values = dict(fields(message))
    data = values.get(4, b"")
    return VertexLog(_text(values.get(1)), data if isinstance(data, bytes) else b"")


def _time(value: bytes | int | None) -> float | None:
    """google.protobuf.Timestamp: 1 seconds, 2 nanos."""
    if not isinstance(value, bytes):
        return None
    parts = dict(fields(value))
    seconds, nanoseconds = parts.get(1, 0), parts.get(2, 0)
    return float(f"{seconds}.{nanoseconds:09d}") if isinstance(seconds, int) and isinstance(nanoseconds, int) else None


def _text(value: bytes | int | None) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else ""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values: wire types varint, fixed and length-delimited."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("cut short")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
