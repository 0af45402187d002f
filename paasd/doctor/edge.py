"""Nginx: installed with its Lua module, content with the present sites?"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from paasd.config import Config
from paasd.doctor.finding import Finding, fail, ok
from paasd.errors import EdgeError
from paasd.route.edge_staples import parse
from paasd.route.files import read_text
from paasd.route.nginx import Nginx

_SITES = "Push the app again, or look at its site with: paasd nginx:show-config APP"


async def check(config: Config, templates: Path) -> list[Finding]:
    return [*await _sites(config, templates), *await asyncio.to_thread(_revoked, config.edge_dir / "tls")]


def _revoked(directory: Path) -> list[Finding]:
    """What the edge serves although its authority has declared it void."""
    found = []
    for path in sorted(directory.glob("[a-z0-9]*.ocsp")):
        staple = parse(path.stem, read_text(path) or "")
        if staple and staple.revoked:
            names = (read_text(path.with_suffix(".pem")) or "").partition("\n")[0].split()[1:]
            text = f"the certificate {path.stem} of {' '.join(names)} was revoked, says its authority"
            found.append(fail("certificate", text, "Get another: certs:renew APP, or certs:import APP"))
    return found


async def _sites(config: Config, templates: Path) -> list[Finding]:
    """Tested in a directory of its own: what root wrote into the edge's, the daemon's user could not write again."""
    with tempfile.TemporaryDirectory(prefix="paasd-doctor-") as name:
        nginx = Nginx(Path(name), templates, config.http, None)
        try:
            await asyncio.to_thread(nginx.create_directories)
            reason = await nginx.test([str(config.edge_dir / "sites" / "*.conf")])
        except EdgeError as error:
            return [fail("nginx", error.detail, error.hint)]
    if reason is not None:
        if os.geteuid() != 0 and "ermission denied" in reason:
            return [fail("nginx", reason, "Run it as root: sudo paasd doctor")]
        return [fail("nginx", f"it refuses the present configuration: {reason}", _SITES)]
    return [ok("nginx", "installed with the Lua module; it accepts the present configuration")]
