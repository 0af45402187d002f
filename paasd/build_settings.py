"""Table `build_settings`: how an app is built, as far as its repository shall not decide. Also the grammar of every
setting, wherever it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paasd import events
from paasd.database import Database, Transaction, new_id, now
from paasd.errors import InvalidInput
from paasd.models import Actor, App, Setting
from paasd.names import config_key, shown

COMMAND = "builds:set"
"""The origin of what this table holds."""
AUTOMATIC = "buildpacks"
"""Value of `builder` for: whichever buildpack fits, but not the Dockerfile."""
_MAX = 2000
_PATH = re.compile(r"[A-Za-z0-9_.@+-]+(?:/[A-Za-z0-9_.@+-]+)*")
_GLOB = re.compile(r"!?[A-Za-z0-9_.@+*?\[\]{},/-]+")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}=[\x21-\x7e]{0,1000}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,99}")


@dataclass(frozen=True)
class Key:
    check: Callable[[str], str]
    """Returns the value in its usual form; raises ValueError saying what it must be."""
    description: str


def _command(value: str) -> str:
    if "\0" in value or len(value) > _MAX:
        raise ValueError(f"a command of at most {_MAX} characters")
    return value.strip()


def _path(value: str) -> str:
    cleaned = value.strip().removeprefix("./").strip("/")
    if not _PATH.fullmatch(cleaned) or {".", ".."} & set(cleaned.split("/")):
        raise ValueError("a path inside the repository, such as apps/web")
    return cleaned


def _port(value: str) -> str:
    if not (value.isascii() and value.isdigit() and 0 < int(value) < 65536):
        raise ValueError("a port, 1 to 65535")
    return str(int(value))


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not pattern.fullmatch(value.strip()):
            raise ValueError(what)
        return value.strip()

    return check


def _words(check: Callable[[str], object], what: str) -> Callable[[str], str]:
    def check_all(value: str) -> str:
        try:
            words = [word for word in re.split(r"[\s,]+", value) if word and (check(word), True)[1]]
        except (ValueError, InvalidInput):
            raise ValueError(what) from None
        return " ".join(dict.fromkeys(words))

    return check_all


def _globs(value: str) -> str:
    words = value.split()
    if not all(_GLOB.fullmatch(word) for word in words):
        raise ValueError("patterns of paths, such as apps/web/** package.json")
    return " ".join(words)


KEYS: Mapping[str, Key] = {
    "builder": Key(_matching(_WORD, "a buildpack's name, dockerfile, or buildpacks"), "Buildpack to build with."),
    "root-dir": Key(_path, "Folder of the repository that holds the app."),
    "watch-paths": Key(_globs, "Patterns; a push that changes nothing they match is stored, not deployed."),
    "dockerfile": Key(_path, "Path of the Dockerfile."),
    "target": Key(_matching(_WORD, "the name of a stage"), "Stage of the Dockerfile to build."),
    "version": Key(_matching(_VERSION, "a version, such as 3.13"), "Version of the language."),
    "packages": Key(
        _words(_matching(_PACKAGE, ""), "names of the distribution's packages, such as libvips-dev"),
        "Packages of the distribution to install.",
    ),
    "install-command": Key(_command, "Installs dependencies, in place of the buildpack's own command."),
    "build-command": Key(_command, "Builds the app, in place of what the buildpack finds."),
    "test-command": Key(_command, "Tests the built app before it is released; a failing test rejects the push."),
    "start-command": Key(_command, "Command of the process type web."),
    "release-command": Key(_command, "Runs in the new image before it goes live."),
    "port": Key(_port, "Port that the web process listens on, given to it as PORT."),
    "output-dir": Key(_path, "Folder of a built site that is served as static files."),
    "build-args": Key(
        _words(_matching(_ARGUMENT, ""), "words such as NODE_ENV=production"),
        "ARG values for a Dockerfile; no secrets, since they stay in the image's history.",
    ),
    "build-env": Key(_words(config_key, "names of config vars, such as SENTRY_TOKEN"), "Config vars the build sees."),
}


def checked(key: str, value: str) -> str:
    """A setting's value in its usual form. Raises InvalidInput."""
    try:
        return KEYS[known(key)].check(value)
    except ValueError as error:
        raise InvalidInput(f"{key} must be {error}, not {shown(value)}") from None


_CACHE = "cache-name"
"""Kept in the same table, and nobody's to set."""


def known(key: str) -> str:
    """Raises InvalidInput for a setting that does not exist."""
    if key not in KEYS:
        raise InvalidInput(f"there is no build setting {shown(key)}", hint=f"There are: {', '.join(KEYS)}")
    return key


class BuildSettings:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, app: App) -> dict[str, Setting]:
        rows = await self._database.fetch(
            "SELECT key, value FROM build_settings WHERE app_id = ? AND organization_id = ? ORDER BY key",
            app.id,
            app.organization_id,
        )
        return {row["key"]: Setting(row["value"], COMMAND) for row in rows if row["key"] in KEYS}

    async def cache_name(self, app: App) -> str:
        """What the app's own build caches are called."""
        row = await self._database.fetch_one(
            "SELECT value FROM build_settings WHERE app_id = ? AND key = ?", app.id, _CACHE
        )
        return f"{app.id}-{row['value']}" if row else app.id

    async def renew_cache(self, app: App) -> None:
        """The app's next build finds its caches empty; the engine removes the old ones when it needs their room."""
        async with self._database.transaction() as tx:
            await _put(tx, app, _CACHE, new_id()[:8])

    async def change(self, actor: Actor, app: App, changes: Mapping[str, str | None]) -> dict[str, Setting]:
        """All changes or none; None or an empty value takes a setting away. Raises InvalidInput."""
        wanted = {known(key): checked(key, value) if value else None for key, value in changes.items()}
        async with self._database.transaction() as tx:
            for key, value in wanted.items():
                await _put(tx, app, key, value)
            await events.record(
                tx,
                "builds.set",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                keys=" ".join(sorted(wanted)),
            )
        return await self.get(app)


async def _put(tx: Transaction, app: App, key: str, value: str | None) -> None:
    await tx.execute("DELETE FROM build_settings WHERE app_id = ? AND key = ?", app.id, key)
    if value:
        await tx.execute(
            "INSERT INTO build_settings (organization_id, app_id, key, value, created_at) VALUES (?, ?, ?, ?, ?)",
            app.organization_id,
            app.id,
            key,
            value,
            now(),
        )
