"""Owns the images `<label>/<app>-<id>:b<number>`: their names, which of them are still wanted, and their removal."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from paasd.build.builds import BuildRow
from paasd.config import Config
from paasd.database import Database
from paasd.docker_engine import DockerEngine
from paasd.errors import EngineError, EngineNotFound, NotFound
from paasd.models import App, Release

_INSTANCE = "paasd.instance"
_SIZES_TIMEOUT = 120.0


@dataclass(frozen=True)
class ImageFacts:
    size: int
    """Bytes."""
    ports: tuple[int, ...]
    """TCP ports that its EXPOSE instructions name."""


@dataclass(frozen=True)
class ImageSize:
    """Bytes."""

    whole: int
    own: int
    """Without layers that another image has too."""


class AppImages:
    def __init__(self, config: Config, database: Database, engine: DockerEngine) -> None:
        self._config = config
        self._database = database
        self._engine = engine
        self._unnamed: set[str] = set()
        """Images without a name when this was last looked at: the next look may remove them. One look is not enough,
        since a build's image gets its name a moment after it is made."""
        self._held: set[str] = set()

    def name(self, app: App, build: BuildRow) -> str:
        """The app's name is for people who look at the engine; it may have another one later."""
        return f"{self._config.label}/{app.name}-{app.id[:8]}:b{build.number}"

    def labels(self, app: App) -> dict[str, str]:
        return {_INSTANCE: self._config.label, "paasd.app": app.id}

    async def facts(self, image: str) -> ImageFacts | None:
        """None when there is no such image."""
        found = await self._inspect(image)
        if found is None:
            return None
        exposed = [port.partition("/") for port in found["Config"].get("ExposedPorts") or {}]
        return ImageFacts(
            int(found["Size"]), tuple(sorted(int(number) for number, _, kind in exposed if kind == "tcp"))
        )

    async def sizes(self) -> dict[str, ImageSize]:
        """Of all images with names of ours."""
        found = await self._engine.request("GET", "/system/df", params={"type": "image"}, timeout=_SIZES_TIMEOUT)
        return {
            tag: ImageSize(int(image["Size"]), int(image["Size"]) - max(0, int(image.get("SharedSize", 0))))
            for image in found["Images"] or []
            for tag in image.get("RepoTags") or []
            if tag.startswith(f"{self._config.label}/")
        }

    async def require(self, release: Release) -> None:
        """Raises NotFound when the image of an old release was removed."""
        if await self._inspect(release.image) is None:
            raise NotFound(
                f"the image of {release.version} is gone",
                hint=f"Only the newest {self._config.keep.releases} are kept (keep.releases). Push that commit again.",
            )

    async def discard(self, image_id: str) -> None:
        """Remove an image that was built without a name, unless the cache made it the same as one that has a name."""
        found = await self._inspect(image_id)
        if found is not None and not found.get("RepoTags"):
            with contextlib.suppress(EngineError):
                await self._engine.request("DELETE", f"/images/{image_id}")

    async def prune(self) -> list[str]:
        """Remove our images that no release within reach of a rollback uses; returns their names."""
        present = await self._own()
        wanted = await self._wanted()
        removed = []
        for name in present:
            if name not in wanted:
                try:
                    await self._engine.request("DELETE", f"/images/{name}", params={"noprune": 0})
                    removed.append(name)
                except EngineError:
                    continue  # still used by an instance that retires
        await self._prune_unnamed()
        return removed

    @contextlib.asynccontextmanager
    async def held(self, image_id: str) -> AsyncIterator[None]:
        """Keep an image without a name for the block, and not longer."""
        self._held.add(image_id)
        try:
            yield
        finally:
            self._held.discard(image_id)
            await self.discard(image_id)

    async def _prune_unnamed(self) -> None:
        filters = {"label": [f"{_INSTANCE}={self._config.label}"], "dangling": ["true"]}
        found = await self._engine.request("GET", "/images/json", params={"filters": filters})
        present = {str(image["Id"]) for image in found}
        for image_id in present & self._unnamed - self._held:
            await self.discard(image_id)
        self._unnamed = present

    async def _inspect(self, image: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.request("GET", f"/images/{image}/json")
        except EngineNotFound:
            return None
        return found

    async def _own(self) -> list[str]:
        filters = {"label": [f"{_INSTANCE}={self._config.label}"]}
        found = await self._engine.request("GET", "/images/json", params={"filters": filters})
        # Only names we gave: others may have tagged our images, or built on them, for purposes of their own.
        tags = [tag for image in found for tag in image.get("RepoTags") or []]
        return [tag for tag in tags if tag.startswith(f"{self._config.label}/")]

    async def _wanted(self) -> set[str]:
        """Images of the last N releases of every app that were live, of what is live or still runs, and of builds and
        releases that are on their way there."""
        rows = await self._database.fetch(
            "SELECT image FROM releases_once_live WHERE age <= ?"
            " UNION SELECT image FROM releases WHERE id IN"
            " (SELECT release_id FROM apps UNION SELECT release_id FROM instances"
            " UNION SELECT release_id FROM deployments WHERE status IN ('queued', 'running'))"
            " UNION SELECT image FROM releases WHERE created_at > unixepoch() - 3600"
            " AND NOT EXISTS (SELECT 1 FROM deployments WHERE release_id = releases.id)"
            " UNION SELECT image FROM builds WHERE status = 'running'"
            " UNION SELECT image FROM builds WHERE status = 'succeeded' AND finished_at > unixepoch() - 3600"
            " AND NOT EXISTS (SELECT 1 FROM releases WHERE build_id = builds.id)",
            self._config.keep.releases,
        )
        return {row["image"] for row in rows}
