"""Bodies that go to the engine in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator


class Upload:
    """Remembers why an upload broke off: the HTTP client only reports that it did."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self.error: Exception | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._source:
                yield piece
        except Exception as error:
            self.error = error
            raise


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    # In one piece it would hold up the event loop.
    for start in range(0, len(data), 2**16):
        yield data[start : start + 2**16]
