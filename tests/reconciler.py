"""The reconciler's passes, for tests that would otherwise wait for its timer (15 s)."""

from __future__ import annotations

import secrets

from tests.box import Box, docker


def look_now(box: Box) -> None:
    """Have the daemon compare everything soon, as after anything that the engine tells of: here, of the end of a
    container that never ran."""
    labels = {"paasd.instance": box.label, "paasd.role": "instance"}
    name = f"{box.label}-look-{secrets.token_hex(3)}"
    docker("POST", f"/containers/create?name={name}", {"Image": "paasd/python:3.13", "Cmd": ["true"], "Labels": labels})
    docker("DELETE", f"/containers/{name}?force=1")
