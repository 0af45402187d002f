"""Answers unary gRPC calls on a connection that is there already: HTTP/2 is done by h2, nothing else imports it.

Knows nothing of what the calls mean: a handler takes the bytes of a message and gives those of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 5, 8, 12, 13
MAX_REQUEST = 64 * 1024
_PREFIX = 5  # a flag for compression, and the length of the message
_READ = 64 * 1024
_HEADERS = ((":status", "200"), ("content-type", "application/grpc"))

Handler = Callable[[bytes], bytes]


class CallFailed(Exception):
    """What a handler raises instead of answering."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Call:
    path: str
    body: bytearray = field(default_factory=bytearray)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: Mapping[str, Handler]) -> None:
    """Answer calls until the other side closes the connection, or does not keep to HTTP/2. Raises OSError."""
    server = _Server(handlers)
    with suppress(ProtocolError):
        while True:
            writer.write(server.to_send())
            await writer.drain()
            if not (data := await reader.read(_READ)):
                return
            server.receive(data)


class _Server:
    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._connection = H2Connection(H2Configuration(client_side=False))
        self._connection.initiate_connection()
        self._calls: dict[int, _Call] = {}
        self._unsent: dict[int, bytes] = {}
        """Rests of answers, by stream, for which the other side has no room yet."""

    def receive(self, data: bytes) -> None:
        for event in self._connection.receive_data(data):
            self._take(event)
        for stream in list(self._unsent):
            self._send(stream)

    def to_send(self) -> bytes:
        return self._connection.data_to_send()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._calls[event.stream_id] = _Call(dict(event.headers).get(b":path", b"").decode(errors="replace"))
            case DataReceived():
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if (call := self._calls.get(event.stream_id)) and len(call.body) <= MAX_REQUEST:
                    call.body += event.data
            case StreamEnded():
                if call := self._calls.pop(event.stream_id, None):
                    self._answer(event.stream_id, call)
            case StreamReset():
                self._calls.pop(event.stream_id, None)
                self._unsent.pop(event.stream_id, None)

    def _answer(self, stream: int, call: _Call) -> None:
        try:
            reply = self._reply(call)
        except CallFailed as error:
            status = (("grpc-status", str(error.code)), ("grpc-message", quote(str(error), safe=" ")))
            self._connection.send_headers(stream, (*_HEADERS, *status), end_stream=True)
        else:
            self._connection.send_headers(stream, _HEADERS)
            self._unsent[stream] = b"\0" + len(reply).to_bytes(_PREFIX - 1) + reply

    def _reply(self, call: _Call) -> bytes:
        handler = self._handlers.get(call.path)
        if handler is None:
            raise CallFailed(UNIMPLEMENTED, f"there is no {call.path}")
        if len(call.body) > MAX_REQUEST:
            raise CallFailed(RESOURCE_EXHAUSTED, "the request is too long")
        if len(call.body) < _PREFIX or call.body[0]:
            raise CallFailed(INTERNAL, "the request is cut short or compressed")
        return handler(bytes(call.body[_PREFIX:]))

    def _send(self, stream: int) -> None:
        """As much of an answer as the other side has room for, and its end."""
        data = self._unsent[stream]
        while data and (room := self._connection.local_flow_control_window(stream)) > 0:
            size = min(room, self._connection.max_outbound_frame_size)
            self._connection.send_data(stream, data[:size])
            data = data[size:]
        self._unsent[stream] = data
        if not data:
            del self._unsent[stream]
            self._connection.send_headers(stream, (("grpc-status", "0"),), end_stream=True)
