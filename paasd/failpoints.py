"""Fail points: `PAASD_FAILPOINT=name:kill|error|sleep=N` (several separated by commas) makes the daemon die, raise or
stall when it passes `hit(name)`. Used by the fault tests; without the variable every hit is a dictionary look-up."""

from __future__ import annotations

import asyncio
import os
import signal

from paasd.errors import PaasdError


def _parse(text: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in text.split(",") if ":" in part)


_armed = _parse(os.environ.get("PAASD_FAILPOINT", ""))


async def hit(name: str) -> None:
    """Do what the environment asks for at this point: nothing, SIGKILL to ourselves, an error, or a pause."""
    action = _armed.get(name)
    if action is None:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "error":
        raise PaasdError(f"fail point {name}")
    elif action.startswith("sleep="):
        await asyncio.sleep(float(action.removeprefix("sleep=")))
