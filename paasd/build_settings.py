"""How an app is built, as far as its repository shall not decide: the family `build` of the app's settings. Also the
grammar of every build setting, wherever it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paasd.app_settings import PRIVATE, AppSettings, Family, Key, matching, put, whole, words
from paasd.database import Database, new_id
from paasd.models import Actor, App, Setting
from paasd.names import config_key

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


def _command(value: str) -> str:
    if "\0" in value or len(value) > _MAX:
        raise ValueError(f"a command of at most {_MAX} characters")
    return value.strip()


def _path(value: str) -> str:
    cleaned = value.strip().removeprefix("./").strip("/")
    if not _PATH.fullmatch(cleaned) or {".", ".."} & set(cleaned.split("/")):
        raise ValueError("a path inside the repository, such as apps/web")
    return cleaned


def _globs(value: str) -> str:
    globs = value.split()
    if not all(_GLOB.fullmatch(word) for word in globs):
        raise ValueError("patterns of paths, such as apps/web/** package.json")
    return " ".join(globs)


KEYS: Mapping[str, Key] = {
    "builder": Key(matching(_WORD, "a buildpack's name, dockerfile, or buildpacks"), "Buildpack to build with."),
    "root-dir": Key(_path, "Folder of the repository that holds the app."),
    "watch-paths": Key(_globs, "Patterns; a push that changes nothing they match is stored, not deployed."),
    "dockerfile": Key(_path, "Path of the Dockerfile."),
    "target": Key(matching(_WORD, "the name of a stage"), "Stage of the Dockerfile to build."),
    "version": Key(matching(_VERSION, "a version, such as 3.13"), "Version of the language."),
    "packages": Key(
        words(matching(_PACKAGE, ""), "names of the distribution's packages, such as libvips-dev"),
        "Packages of the distribution to install.",
    ),
    "install-command": Key(_command, "Installs dependencies, in place of the buildpack's own command."),
    "build-command": Key(_command, "Builds the app, in place of what the buildpack finds."),
    "test-command": Key(_command, "Tests the built app before it is released; a failing test rejects the push."),
    "start-command": Key(_command, "Command of the process type web."),
    "release-command": Key(_command, "Runs in the new image before it goes live."),
    "port": Key(whole(1, 65535, "a port"), "Port that the web process listens on, given to it as PORT."),
    "output-dir": Key(_path, "Folder of a built site that is served as static files."),
    "build-args": Key(
        words(matching(_ARGUMENT, ""), "words such as NODE_ENV=production"),
        "ARG values for a Dockerfile; no secrets, since they stay in the image's history.",
    ),
    "build-env": Key(words(config_key, "names of config vars, such as SENTRY_TOKEN"), "Config vars the build sees."),
}


_FAMILY = Family("build", COMMAND, "build setting", KEYS)
checked = _FAMILY.checked
_CACHE = PRIVATE[0]


class BuildSettings:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._settings = AppSettings(database, _FAMILY)

    async def get(self, app: App) -> dict[str, Setting]:
        return {key: Setting(value, COMMAND) for key, value in (await self._settings.get(app)).items()}

    async def cache_name(self, app: App) -> str:
        """What the app's own build caches are called."""
        row = await self._database.fetch_one(
            "SELECT value FROM app_settings WHERE app_id = ? AND family = ? AND key = ?", app.id, _FAMILY.name, _CACHE
        )
        return f"{app.id}-{row['value']}" if row else app.id

    async def renew_cache(self, app: App) -> None:
        """The app's next build finds its caches empty; the engine removes the old ones when it needs their room."""
        async with self._database.transaction() as tx:
            await put(tx, app, _FAMILY.name, _CACHE, new_id()[:8])

    async def change(self, actor: Actor, app: App, changes: Mapping[str, str | None]) -> dict[str, Setting]:
        """All changes or none; None or an empty value takes a setting away. Raises InvalidInput."""
        await self._settings.change(actor, app, changes)
        return await self.get(app)
