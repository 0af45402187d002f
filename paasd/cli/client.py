"""An HTTP client of the API on its Unix socket, blocking, on the standard library so that commands start fast."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from paasd.errors import Forbidden, PaasdError, from_problem
from paasd.models import Secret

PREFIX = "/api/v1"
_TIMEOUT = 60.0
_STREAM_TIMEOUT = 24 * 3600.0


class DaemonUnavailable(PaasdError):
    code = "daemon-unavailable"
    hint = "Start it (systemctl start paasd, or paasd serve), then look at: paasd doctor"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("paasd", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Errors of the API are raised as the classes of paasd.errors."""

    def __init__(self, path: Path, token: Secret | None = None) -> None:
        self.path = path
        self._headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    def get(self, path: str, **query: Any) -> Any:
        return self.request("GET", path, query=query)

    def request(self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None) -> Any:
        """JSON of the answer."""
        with self._answer(method, path, body, query, _TIMEOUT) as response:
            return _decoded(response.read())

    def stream(self, method: str, path: str, body: Any, on_line: Callable[[str], None]) -> Any:
        """Run a long operation: lines as they come, then its result. Raises what the operation failed with."""
        return _outcome(self.messages(method, path, body), on_line)

    def upload(
        self,
        path: str,
        pieces: Iterator[bytes],
        on_line: Callable[[str], None],
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send bytes as they come, then what `stream` does."""
        with self._answer("POST", path, pieces, query, _STREAM_TIMEOUT) as response:
            return _outcome((json.loads(line) for line in response), on_line)

    def messages(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None
    ) -> Iterator[Any]:
        """One JSON value per line of an ndjson answer, as they come."""
        with self._answer(method, path, body, query, _STREAM_TIMEOUT) as response:
            for line in response:
                yield json.loads(line)

    def text(self, path: str, query: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """A text answer in pieces, as they come."""
        with self._answer("GET", path, None, query, _STREAM_TIMEOUT) as response:
            try:
                while piece := response.read1(64 * 1024):
                    yield piece
            except (OSError, http.client.HTTPException) as error:
                raise DaemonUnavailable(
                    "the answer broke off in the middle", hint="It is not complete. Try again."
                ) from error

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Any, query: Mapping[str, Any] | None, timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self.path, timeout)
        raw = isinstance(body, Iterator)
        data = body if raw or body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}
        headers = {"Accept": "application/x-ndjson", **(kind if raw else {"Content-Type": "application/json"})}
        headers |= self._headers
        wanted = {key: value for key, value in (query or {}).items() if value is not None}
        url = PREFIX + path + (f"?{urlencode(wanted)}" if wanted else "")
        try:
            try:
                # One that refuses an upload half-way has answered, though it does not listen any more.
                with suppress(BrokenPipeError, ConnectionResetError) if raw else nullcontext():
                    connection.request(method, url, data, headers, encode_chunked=raw)
                response = connection.getresponse()
            except (FileNotFoundError, ConnectionRefusedError):
                raise DaemonUnavailable(f"paasd is not running (nothing answers at {self.path})") from None
            except PermissionError:
                raise Forbidden(
                    f"you may not use {self.path}", hint="Use sudo, or ssh with a key added with keys:add."
                ) from None
            except (OSError, http.client.HTTPException) as error:
                raise DaemonUnavailable(f"paasd did not answer: {error}") from error
            if response.status >= 400:
                raise from_problem(_decoded(response.read()))
            yield response
        finally:
            connection.close()


def app_path(app: str, *rest: str | int) -> str:
    """`/apps/<app>/…` with every part quoted, so that a name can never reach another path."""
    return "/apps/" + "/".join(quote(str(part), safe="") for part in (app, *rest))


def _outcome(messages: Iterable[Any], on_line: Callable[[str], None]) -> Any:
    for message in messages:
        if "line" in message:
            on_line(message["line"])
        elif "result" in message:
            return message["result"]
        else:
            raise from_problem(message.get("error", message))
    raise DaemonUnavailable("paasd stopped before it was done", hint="Look at: paasd doctor, then try again.")


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise DaemonUnavailable(f"paasd answered with something else than JSON: {error}") from error
