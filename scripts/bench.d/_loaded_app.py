"""The app of the benchmark of deployments under load, on the standard library: quick answers, answers after some
seconds, WebSockets that echo, uploads that are counted. Runs inside an instance."""

import asyncio
import base64
import hashlib
import os
import signal

BODY = b"revision REVISION\n"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def serve(reader, writer):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request, *lines = head.split("\r\n")
        path = request.split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if path == "/echo":
            await echo(reader, writer, headers["sec-websocket-key"])
        elif path == "/upload":
            await answer(writer, await digest(reader, int(headers["content-length"])))
        else:
            if path.startswith("/slow"):
                await asyncio.sleep(5)
            await answer(writer, BODY)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(writer, body):
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()


async def digest(reader, size):
    seen = hashlib.sha256()
    while size:
        piece = await reader.read(min(size, 65536))
        if not piece:
            raise ConnectionError("the upload broke off")
        seen.update(piece)
        size -= len(piece)
    return seen.hexdigest().encode()


async def echo(reader, writer, key):
    """Short masked frames come back unmasked (RFC 6455), a close frame too, which ends it."""
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    writer.write(b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)
    while True:
        first, length = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(length & 127)))
        writer.write(bytes((first, len(payload))) + payload)
        await writer.drain()
        if first & 15 == 8:
            return


async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    server = await asyncio.start_server(serve, "0.0.0.0", int(os.environ["PORT"]), backlog=1024)
    await server.serve_forever()


asyncio.run(main())
