"""What a session is, the same over both transports."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import subprocess
import termios
from contextlib import suppress

import pytest
from conftest import BOB, Client, Doors, eventually, window_bytes


async def test_commands_run_as_the_owner_of_the_key(client: Client, doors: Doors) -> None:
    doors.add(client.key("bob", "rsa").with_suffix(".pub"), BOB, "key-bob")
    assert await client.run("whoami") == (0, b"alice\n", b"")
    assert await client.run("whoami", key="bob") == (0, b"bob\n", b"")


async def test_output_errors_and_status_arrive_apart(client: Client) -> None:
    assert await client.run("both") == (0, b"to stdout\n", b"to stderr\n")
    assert (await client.run("exit", "7"))[0] == 7
    assert (await client.run("exit", "254"))[0] == 254


async def test_data_goes_both_ways_whole(client: Client) -> None:
    data = os.urandom(5_000_000)
    assert await client.run("cat", data=data) == (0, data, b"")


async def test_arguments_are_not_expanded(client: Client) -> None:
    assert (await client.run("args", "'one two'", "$(id)", "*"))[1] == b"('one two', '$(id)', '*')"


async def test_no_command_is_answered_with_one_line(client: Client) -> None:
    status, out, err = await client.run()
    assert status == 1 and out == b"" and b"Hello alice" in err and err.count(b"\n") == 1


async def test_an_unknown_key_is_refused(client: Client) -> None:
    client.key("mallory")
    status, _out, err = await client.run("whoami", key="mallory")
    assert status == 255 and b"Permission denied (publickey)" in err


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
async def test_other_kinds_of_keys(client: Client, doors: Doors, kind: str) -> None:
    doors.add(client.key(kind, kind).with_suffix(".pub"), BOB, kind)
    assert (await client.run("whoami", key=kind))[1] == b"bob\n"


async def test_window_size_and_its_changes(client: Client) -> None:
    primary, replica = pty.openpty()
    fcntl.ioctl(replica, termios.TIOCSWINSZ, window_bytes(100, 30))
    # A session of its own with this terminal, so that the window's change reaches ssh.
    process = subprocess.Popen(
        client.argv("window", options=["-tt"]),
        stdin=replica,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TERM": "vt220"},
    )
    assert process.stdout
    read = process.stdout.readline
    try:
        assert await asyncio.to_thread(read) == b"100x30 100x30 vt220\r\n"
        fcntl.ioctl(replica, termios.TIOCSWINSZ, window_bytes(70, 20))
        process.send_signal(signal.SIGWINCH)
        assert await asyncio.to_thread(read) == b"70x20 70x20 vt220\r\n"
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.stdout.close()
        os.close(primary)
        os.close(replica)


async def start(client: Client, *command: str, options: tuple[str, ...] = ()) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *client.argv(*command, options=options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


async def ended(process: asyncio.subprocess.Process, seconds: float = 20) -> int:
    await asyncio.wait_for(process.communicate(), seconds)
    assert process.returncode is not None
    return process.returncode


async def test_ctrl_c_on_a_terminal_ends_a_follower(client: Client, doors: Doors) -> None:
    process = await start(client, "follow", options=("-tt",))
    assert process.stdin and process.stdout
    assert b"following" in await process.stdout.readline()
    process.stdin.write(b"\x03")
    assert await ended(process) == 130
    assert doors.sessions[0].gone.is_set()


async def test_a_killed_client_is_gone(client: Client, doors: Doors) -> None:
    process = await start(client, "follow")
    assert process.stdout
    assert await process.stdout.readline() == b"following\n"
    process.kill()
    await ended(process)
    await asyncio.wait_for(doors.sessions[0].gone.wait(), 20)


async def test_the_end_of_input_is_not_the_end_of_the_client(client: Client, doors: Doors) -> None:
    status, out, _ = await client.run("nap", "0.3", data=b"")
    assert (status, out) == (0, b"napping\nrested\n")
    assert not doors.sessions[0].gone.is_set()


async def test_a_revoked_key_is_cut_and_starts_nothing_more(client: Client, doors: Doors, server: object) -> None:
    mux = ("-o", f"ControlPath={client.home}/mux", "-o", "ControlMaster=auto", "-o", "ControlPersist=20")
    process = await start(client, "follow", options=mux)
    assert process.stdout
    assert await process.stdout.readline() == b"following\n"
    doors.remove("key-alice")
    await server.disconnect_key("key-alice")  # type: ignore[attr-defined]
    assert await ended(process, 5) != 0
    status, out, _ = await client.run("whoami", options=mux)
    assert status != 0 and out == b""
    await client.run(options=(*mux, "-O", "exit"))


async def test_stopping_lets_a_running_session_finish(client: Client, server: object) -> None:
    process = await start(client, "nap", "0.5")
    assert process.stdout
    assert await process.stdout.readline() == b"napping\n"
    await server.stop(20)  # type: ignore[attr-defined]
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, out) == (0, b"rested\n")
    assert (await client.run("whoami"))[0] == 255


async def test_stopping_hangs_up_when_the_grace_is_over(client: Client, doors: Doors, server: object) -> None:
    process = await start(client, "follow")
    assert process.stdout
    await process.stdout.readline()
    await server.stop(0.1)  # type: ignore[attr-defined]
    assert await ended(process) != 0


async def test_many_sessions_share_a_connection(client: Client) -> None:
    mux = ("-o", f"ControlPath={client.home}/mux", "-o", "ControlMaster=auto", "-o", "ControlPersist=20")
    assert (await client.run("whoami", options=mux))[0] == 0
    answers = await asyncio.gather(*(client.run("whoami", options=mux) for _ in range(8)))
    assert {answer[1] for answer in answers} == {b"alice\n"}
    await client.run(options=(*mux, "-O", "exit"))


async def test_descriptors_do_not_leak(client: Client) -> None:
    await client.run("both")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await client.run("both")
        with suppress(TimeoutError):
            await client.run("both", options=("-tt",))
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
