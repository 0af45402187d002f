"""The data directory: whose, closed to others, complete?"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path

from paasd.config import Config
from paasd.doctor.finding import Finding, fail, ok

_MAX_SOCKET_PATH = 107
"""unix(7): sun_path has 108 bytes with its end."""
_PASS = 0o011
"""Workers of a root Nginx pass through to their temporary files, without seeing what else is there."""


def check(config: Config) -> list[Finding]:
    found = [_socket_path(config)]
    if not config.data_dir.exists():
        return [*found, ok("data", f"{config.data_dir} does not exist yet; the daemon makes it")]
    return [_modes(config), _owners(config), _master_key(config), *found]


def _socket_path(config: Config) -> Finding:
    paths = [config.api_socket, config.run_dir / "ssh.sock", config.edge_dir / "control" / "control.sock"]
    longest = max(paths, key=lambda path: len(str(path).encode()))
    length = len(str(longest).encode())
    if length > _MAX_SOCKET_PATH:
        text = f"{longest} has {length} bytes; a socket's path may have {_MAX_SOCKET_PATH}"
        return fail("socket path", text, "Use a data directory with a shorter path.")
    return ok("socket path", f"{length} of {_MAX_SOCKET_PATH} bytes")


def _modes(config: Config) -> Finding:
    """What lies in a closed directory is closed too, so only the top and what is opened on purpose counts."""
    closed = [config.data_dir, config.keys_dir, config.run_dir, config.repositories, config.database, config.api_socket]
    closed += [*config.keys_dir.glob("*"), config.edge_dir]
    shared = {config.data_dir: _PASS, config.edge_dir: _PASS, config.run_dir: 0o010, config.api_socket: 0o060}
    for path in closed:
        if path.exists() and not path.name.endswith(".pub"):
            mode = path.stat().st_mode & 0o077 & ~shared.get(path, 0)
            if mode:
                text = f"{path} is open to others (mode {path.stat().st_mode & 0o777:o})"
                return fail("permissions", text, f"chmod go-rwx {path}")
    return ok("permissions", f"{config.data_dir} is closed to others")


def _owners(config: Config) -> Finding:
    owner = config.data_dir.stat().st_uid
    name = _user(owner)
    # Workers of a root Nginx run as another user.
    theirs = {config.edge_dir / name for name in ("access", "cache", "tmp")}
    for path in _walk(config.data_dir, depth=3):
        is_workers = path == config.edge_dir / "access" or not theirs.isdisjoint(path.parents)
        if path.lstat().st_uid != owner and not is_workers:
            text = f"{path} belongs to {_user(path.lstat().st_uid)}, the data directory to {name}"
            return fail("owner", text, f"chown -R {name}: {config.data_dir}")
    return ok("owner", f"all of {config.data_dir} belongs to {name}")


def _master_key(config: Config) -> Finding:
    path = config.keys_dir / "master.key"
    backup = "Put it back from your backup; without it config vars cannot be read."
    if not path.exists():
        if config.database.exists():
            return fail("master key", f"{path} is missing", backup)
        return ok("master key", "made at the first start")
    if path.stat().st_size != 32:
        return fail("master key", f"{path} is damaged", backup)
    return ok("master key", "there; keep a copy of it apart from the database's backup")


def _walk(directory: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in entries:
        yield path
        if depth > 1 and path.is_dir() and not path.is_symlink():
            yield from _walk(path, depth - 1)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
