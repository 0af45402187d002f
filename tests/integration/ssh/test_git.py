"""git over both transports: real repositories, large packs, clients that die."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from pathlib import Path

import pytest
from conftest import Client, Doors, eventually

from paasd.push.handler import SessionHandler

MEGABYTE = 1024**2


def write_hook(repository: Path, text: str) -> None:
    hook = repository / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\n{text}\n")
    hook.chmod(0o755)


def leftovers(repository: Path) -> list[Path]:
    return list((repository / "objects").glob("tmp_objdir*")) + list(repository.rglob("*.lock"))


async def test_push_clone_and_fetch(client: Client, repository: Path, work_tree: Path, home: Path) -> None:
    status, _, err = await client.git("push", client.url("app"), "main", cwd=work_tree)
    assert status == 0 and b"[new branch]" in err
    status, _, err = await client.git("clone", "-q", client.url("app.git"), str(home / "clone"))
    assert status == 0, err
    assert (home / "clone" / "file").read_text() == "hello\n"


async def test_git_protocol_2_is_spoken(client: Client, repository: Path, work_tree: Path) -> None:
    await client.git("push", client.url("app"), "main", cwd=work_tree)
    environment = {**client.git_environment(), "GIT_TRACE_PACKET": "1"}
    done = await asyncio.to_thread(
        subprocess.run, ["git", "ls-remote", client.url("app")], capture_output=True, env=environment, check=True
    )
    assert b"ls-remote< version 2" in done.stderr or b"< version 2" in done.stderr


async def test_a_hook_speaks_and_decides(client: Client, repository: Path, work_tree: Path) -> None:
    write_hook(repository, "echo -----\\> Building >&2; exit 1")
    status, _, err = await client.git("push", client.url("app"), "main", cwd=work_tree)
    assert status != 0
    assert b"remote: -----> Building" in err and b"pre-receive hook declined" in err
    assert not leftovers(repository)


async def test_refusals_of_the_doors_reach_the_user(client: Client, work_tree: Path) -> None:
    status, _, err = await client.git("push", client.url("nothing"), "main", cwd=work_tree)
    assert status != 0
    assert b" !     no app nothing\n !     Create it with: apps:create\n" in err


async def test_only_git_protocol_of_the_environment_passes(client: Client, repository: Path, work_tree: Path) -> None:
    write_hook(repository, "env > seen")
    hostile = "LD_PRELOAD=/x GIT_SSH_COMMAND=x GIT_DIR=/x GIT_CONFIG_COUNT=1 BASH_ENV=/x PATH=/x LC_ALL=x FOO=x"
    environment = client.git_environment()
    environment["GIT_SSH_COMMAND"] += f" -o 'SetEnv={hostile}'"
    done = await asyncio.to_thread(
        subprocess.run, ["git", "push", client.url("app"), "main"], cwd=work_tree, capture_output=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in (repository / "seen").read_text().splitlines() if "=" in line)
    assert seen["PATH"].endswith("/usr/local/bin:/usr/bin:/bin") and seen["HOME"] == "/nonexistent"
    assert not {"LD_PRELOAD", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "BASH_ENV", "LC_ALL", "FOO", "SSH_CLIENT"} & set(
        seen
    )
    assert not [value for value in seen.values() if value == "/x"]


@pytest.mark.slow
async def test_a_large_push_and_clone_take_little_memory(
    client: Client, repository: Path, work_tree: Path, home: Path
) -> None:
    with (work_tree / "large").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(MEGABYTE))
    author = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "core.compression=0"]
    for argv in (["add", "."], ["commit", "-qm", "large"]):
        await asyncio.to_thread(subprocess.run, ["git", *author, *argv], cwd=work_tree, check=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, _, err = await client.git("push", client.url("app"), "main", cwd=work_tree)
    assert status == 0, err
    status, _, err = await client.git("clone", "-q", "--no-checkout", client.url("app"), str(home / "clone"))
    assert status == 0, err
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth < 40 * 1024, f"{growth} KiB"


async def start_push(client: Client, work_tree: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("git", "push", client.url("app"), "main"),
        cwd=work_tree,
        env=client.git_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


async def test_a_client_killed_while_sending_leaves_nothing(
    client: Client, repository: Path, work_tree: Path, doors: Doors
) -> None:
    (work_tree / "large").write_bytes(os.urandom(60 * MEGABYTE))
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for argv in (["add", "."], ["commit", "-qm", "large"]):
        await asyncio.to_thread(subprocess.run, ["git", *author, *argv], cwd=work_tree, check=True)
    push = await start_push(client, work_tree)
    await eventually(lambda: leftovers(repository))
    os.killpg(push.pid, 9)
    await push.wait()
    await eventually(lambda: not leftovers(repository))
    assert doors.sessions[0].gone.is_set()
    assert not list((repository / "refs" / "heads").iterdir())


async def test_a_client_killed_during_the_hook_does_not_kill_git(
    client: Client, repository: Path, work_tree: Path, doors: Doors
) -> None:
    # The hook writes more than any buffer holds: without a drain it would block for ever or die of a broken pipe.
    write_hook(
        repository,
        "echo hello >&2; while ! test -e go; do sleep 0.05; done; head -c 3000000 /dev/zero >&2; touch finished",
    )
    push = await start_push(client, work_tree)
    await eventually(lambda: doors.sessions and leftovers(repository))
    os.killpg(push.pid, 9)
    await push.wait()
    await asyncio.wait_for(doors.sessions[0].gone.wait(), 20)
    (repository / "go").touch()
    await eventually((repository / "finished").exists)
    await eventually(lambda: (repository / "refs" / "heads" / "main").exists() and not leftovers(repository))


async def test_git_that_lingers_is_terminated_and_cleans_up(
    embedded_client: Client, embedded: object, repository: Path, work_tree: Path, doors: Doors
) -> None:
    embedded._handler = SessionHandler(doors, linger=0.2)  # type: ignore[attr-defined]
    write_hook(repository, "sleep 300")
    push = await start_push(embedded_client, work_tree)
    await eventually(lambda: leftovers(repository))
    os.killpg(push.pid, 9)
    await push.wait()
    await eventually(lambda: not leftovers(repository))


async def test_pushes_to_one_repository_side_by_side(client: Client, repository: Path, work_tree: Path) -> None:
    pushes = [client.git("push", client.url("app"), f"main:branch{n}", cwd=work_tree) for n in range(5)]
    assert [status for status, _, _ in await asyncio.gather(*pushes)] == [0] * 5
    assert len(list((repository / "refs" / "heads").iterdir())) == 5
