"""Files for build contexts that say where packages of languages come from, as this host's own settings do.

They are mounted into the steps that fetch and never copied into an image, because they may hold credentials.
"""

from __future__ import annotations

from paasd.build.go_env import host_go_env
from paasd.build.npm_config import host_npm_config
from paasd.build.pip_config import host_pip_config, host_uv_config


def host_registries() -> dict[str, str]:
    """Text by name in the build context. Reads files."""
    npm = host_npm_config()
    return {
        "go.env": host_go_env(),
        "pip.conf": host_pip_config(),
        "uv.toml": host_uv_config(),
        "npmrc": npm.npmrc(),
        "yarnrc.yml": npm.yarnrc(),
    }
