"""Tables `registries` and `published_images`: where an app's images are pushed to after a release, and what was."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass

from paasd import events
from paasd.database import Database, now
from paasd.docker_engine import DockerEngine
from paasd.errors import BuildFailed, EngineError, InvalidInput, NotFound, PaasdError
from paasd.models import Actor, App, Release, Secret
from paasd.names import shown
from paasd.progress import Progress
from paasd.secrets import Vault

# Host, port and path of the distribution specification's names, without the last part, which is the app.
_SERVER = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)*")
_USER = re.compile(r"[\x21-\x7e]{0,200}")
_SILENCE = 120.0
"""Seconds that a push may say nothing."""
_CREDENTIAL = "registry"


@dataclass(frozen=True)
class Registry:
    server: str
    """Host, perhaps with a port and a path: `registry.example.org:5000/team`."""
    user: str
    password: Secret
    automatic: bool
    """Whether every release is pushed."""


@dataclass(frozen=True)
class PublishedImage:
    release: int
    name: str
    digest: str
    published_at: float


class Registries:
    def __init__(self, database: Database, vault: Vault, engine: DockerEngine) -> None:
        self._database = database
        self._vault = vault
        self._engine = engine

    async def get(self, app: App) -> Registry | None:
        row = await self._database.fetch_one(
            "SELECT * FROM registries WHERE app_id = ? AND organization_id = ?", app.id, app.organization_id
        )
        if row is None:
            return None
        password = self._vault.open(row["password"], _place(app))
        return Registry(row["server"], row["user"], password, bool(row["automatic"]))

    async def set(self, actor: Actor, app: App, registry: Registry | None) -> None:
        """Raises InvalidInput."""
        if registry and not _SERVER.fullmatch(registry.server):
            raise InvalidInput(
                f"{shown(registry.server)} is not a registry", hint="Write for example: registry.example.org:5000/team"
            )
        if registry and not _USER.fullmatch(registry.user):
            raise InvalidInput("the user name of a registry is plain text without spaces")
        async with self._database.transaction() as tx:
            await tx.execute("DELETE FROM registries WHERE app_id = ?", app.id)
            if registry:
                await tx.execute(
                    "INSERT INTO registries (app_id, organization_id, server, user, password, automatic)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    app.id,
                    app.organization_id,
                    registry.server,
                    registry.user,
                    self._vault.seal(registry.password, _place(app)),
                    int(registry.automatic),
                )
            await events.record(
                tx,
                "registry.set",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                server=registry.server if registry else "",
            )

    async def published(self, app: App, limit: int = 50) -> list[PublishedImage]:
        """Newest first."""
        rows = await self._database.fetch(
            "SELECT release, name, digest, published_at FROM published_images WHERE app_id = ?"
            " ORDER BY published_at DESC LIMIT ?",
            app.id,
            limit,
        )
        return [PublishedImage(row["release"], row["name"], row["digest"], row["published_at"]) for row in rows]

    async def after_release(self, app: App, release: Release, progress: Progress) -> None:
        """Push the image of a release that is live, if the app wants that. The release stays live whatever happens."""
        try:
            registry = await self.get(app)
            if registry and registry.automatic:
                await self._publish(app, release, registry, progress)
        except PaasdError as error:
            progress.warn(f"{release.version} is live, but its image was not pushed: {error.detail}\n{error.hint}")

    async def publish(self, app: App, release: Release, progress: Progress) -> PublishedImage:
        """Push the image of a release. Raises NotFound without a registry, BuildFailed when it refuses."""
        registry = await self.get(app)
        if registry is None:
            raise NotFound(f"{app.name} has no registry", hint=f"Name one: registry:set {app.name} SERVER --user NAME")
        return await self._publish(app, release, registry, progress)

    async def _publish(self, app: App, release: Release, registry: Registry, progress: Progress) -> PublishedImage:
        repository, tag = f"{registry.server}/{app.name}", release.version
        progress.step(f"Pushing {repository}:{tag}")
        params = {"repo": repository, "tag": tag}
        await self._engine.request("POST", f"/images/{release.image}/tag", params=params)
        try:
            digest = await self._upload(repository, tag, registry)
        finally:
            await self._engine.request("DELETE", f"/images/{repository}:{tag}", params={"noprune": 1})
        progress.detail(f"{repository}@{digest}")
        published = PublishedImage(release.number, f"{repository}:{tag}", digest, now())
        async with self._database.transaction() as tx:
            await tx.execute(
                "INSERT INTO published_images (organization_id, app_id, release, name, digest, published_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                app.organization_id,
                app.id,
                published.release,
                published.name,
                published.digest,
                published.published_at,
            )
        return published

    async def _upload(self, repository: str, tag: str, registry: Registry) -> str:
        """The digest that the registry gave. Raises BuildFailed with its words."""
        login = {"username": registry.user, "password": registry.password.reveal(), "serveraddress": registry.server}
        headers = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(login).encode()).decode()}
        path, digest = f"/images/{repository}/push", ""
        try:
            async with self._engine.stream(
                "POST", path, params={"tag": tag}, headers=headers, open_timeout=_SILENCE, idle_timeout=_SILENCE
            ) as stream:
                async for message in stream.json_lines():
                    if "error" in message:
                        raise _refused(registry, str(message["error"]))
                    digest = (message.get("aux") or {}).get("Digest", digest)
        except EngineError as error:
            raise _refused(registry, error.detail) from error
        if not digest:
            raise _refused(registry, "it named no digest")
        return digest


def _refused(registry: Registry, said: str) -> BuildFailed:
    hint = "See whether it can be reached, then push the image with: registry:push APP"
    if re.search(r"unauthorized|denied|no basic auth|authentication", said):
        hint = "Set user and password anew with: registry:set APP SERVER --user NAME"
    return BuildFailed(f"the registry {registry.server} did not take the image: {said}", hint=hint)


def _place(app: App) -> str:
    return f"{app.organization_id}|{app.id}|{_CREDENTIAL}"
