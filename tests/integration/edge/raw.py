"""Bytes sent to the edge as they are."""

from __future__ import annotations

import asyncio


async def exchange(port: int, request: bytes) -> bytes:
    """The answer to one request, whose connection is closed after it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
