"""Files for build contexts that say where packages of languages come from, as this host's own settings do.

They are mounted into the steps that fetch and never copied into an image, because they may hold credentials.
"""

from __future__ import annotations

from paasd.build.pip_config import host_pip_config, host_uv_config


def host_registries() -> dict[str, str]:
    """Text by name in the build context. Reads files."""
    return {"pip.conf": host_pip_config(), "uv.toml": host_uv_config()}
