"""Asks an app through the edge, many times a second, and remembers every answer that was not its page."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from tests.box import Box

_PAUSE = 0.02
"""Between two requests of one connection: two threads make some 80 requests a second."""


class Prober:
    """A context manager. One thread keeps its connection alive, another opens a new one each time."""

    def __init__(self, box: Box, app: str, timeout: float = 10) -> None:
        self._port, self._host, self._timeout = box.http_port, f"{app}.localhost", timeout
        self._end, self._asking = threading.Event(), threading.Event()
        self._asking.set()
        self._threads = [threading.Thread(target=self._ask, args=(keep,), daemon=True) for keep in (True, False)]
        self.failures: list[str] = []
        self.pages: list[str] = []
        """Bodies in the order they came."""
        self.seconds = 0.0

    def __enter__(self) -> Prober:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(15)
        self.seconds = time.monotonic() - self._started

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Begins no request meanwhile."""
        self._asking.clear()
        try:
            yield
        finally:
            self._asking.set()

    def assert_unbroken(self) -> None:
        assert self.failures == []
        assert len(self.pages) >= 20 * self.seconds, (len(self.pages), self.seconds)

    def _ask(self, keep: bool) -> None:
        connection = self._connection()
        while not self._end.is_set():
            self._asking.wait()
            try:
                connection.request("GET", "/", headers={"Host": self._host})
                response = connection.getresponse()
                text = response.read().decode()
                if response.status == 200:
                    self.pages.append(text)
                else:
                    self.failures.append(f"{response.status} {text[:80]}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{'kept' if keep else 'new'} connection: {error!r}")
                connection.close()
            if not keep:
                connection.close()
                connection = self._connection()
            self._end.wait(_PAUSE)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout)
