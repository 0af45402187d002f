"""The `nginx` binary of the distribution: what it is, what it was built with, and running it."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from paasd.errors import EdgeError

_TIMEOUT = 30.0
_LUA = ("ndk_http_module.so", "ngx_http_lua_module.so")
_BROTLI = "ngx_http_brotli_filter_module.so"


_known: dict[str, str] = {}
"""What binaries say of how they were built."""


async def compiled(option: str) -> str:
    """An option that Nginx was built with; empty if it was not."""
    path = binary()
    if path not in _known:
        _, _known[path] = await run([path, "-V"])
    found = re.search(rf"--{option}=(\S+)", _known[path])
    return found[1] if found else ""


async def run(arguments: Sequence[str]) -> tuple[int, str]:
    """Status and output. Raises EdgeError when there is no end of it."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise EdgeError(f"{' '.join(arguments)} gave no answer within {_TIMEOUT:.0f} s") from None
    return process.returncode or 0, output.decode(errors="replace")


def binary() -> str:
    path = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None:
        raise EdgeError(
            "there is no nginx on this machine", hint="apt-get install nginx libnginx-mod-http-lua lua-cjson"
        )
    return path


async def modules() -> list[str]:
    """The distribution's modules that the edge needs, by the path Nginx was built with. Raises EdgeError."""
    directory = Path(await compiled("modules-path") or "/usr/lib/nginx/modules")
    for name in _LUA:
        if not (directory / name).exists():
            raise EdgeError(
                f"Nginx has no Lua module: {directory / name} is missing",
                hint="apt-get install libnginx-mod-http-lua lua-cjson",
            )
    return [str(directory / name) for name in _LUA]


async def brotli() -> str:
    """Path of the module that compresses with Brotli; empty where the distribution's package is not installed."""
    path = Path(await compiled("modules-path") or "/usr/lib/nginx/modules") / _BROTLI
    return str(path) if path.exists() else ""
