import asyncio
import os

from paasd.push.pump import copy


def pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


async def test_a_slow_sink_holds_the_source_back_and_gets_everything() -> None:
    (source, feed), (drain, sink) = pipe(), pipe()
    copying = asyncio.create_task(copy(source, sink))
    data, fed, got = os.urandom(1_000_000), 0, b""
    while fed < len(data):
        try:
            fed += os.write(feed, data[fed : fed + 65536])
        except BlockingIOError:
            if fed - len(got) >= 131072:  # both pipes are full
                got += os.read(drain, 4096)
        await asyncio.sleep(0)
        assert fed - len(got) <= 2 * 65536 + 256 * 1024
    os.close(feed)
    while not copying.done() or len(got) < len(data):
        try:
            got += os.read(drain, 65536)
        except BlockingIOError:
            await asyncio.sleep(0)
    assert got == data
    for fd in (source, drain, sink):
        os.close(fd)


async def test_a_broken_sink_does_not_stop_the_draining() -> None:
    (source, feed), (drain, sink) = pipe(), pipe()
    os.close(drain)
    copying = asyncio.create_task(copy(source, sink))
    written = 0
    async with asyncio.timeout(10):
        while written < 3_000_000:
            try:
                written += os.write(feed, bytes(60_000))
            except BlockingIOError:
                await asyncio.sleep(0)
    os.close(feed)
    await asyncio.wait_for(copying, 10)
    os.close(source)
    os.close(sink)


async def test_gone_frees_a_writer_that_nobody_reads() -> None:
    (source, feed), (drain, sink) = pipe(), pipe()
    gone = asyncio.Event()
    while True:
        try:
            os.write(sink, bytes(4096))
        except BlockingIOError:
            break
    copying = asyncio.create_task(copy(source, sink, gone))
    os.write(feed, b"stuck")
    os.close(feed)
    done, _ = await asyncio.wait({copying}, timeout=0.05)
    assert not done
    gone.set()
    await asyncio.wait_for(copying, 10)
    for fd in (source, drain, sink):
        os.close(fd)
