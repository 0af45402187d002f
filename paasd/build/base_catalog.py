"""Which base images an engine has, and moving them to another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from paasd.build.base_images import PREFIX, BaseImages
from paasd.build.recipes import BASE
from paasd.docker_engine import DockerEngine
from paasd.errors import EngineError, PaasdError

_LOADED = "Loaded image: "


@dataclass(frozen=True)
class BaseImage:
    name: str
    """Full, with its tag."""
    size: int
    """Bytes."""
    created_at: float
    state: str
    """`current`, `stale`, or `unknown` when no buildpack of this box brings it."""


class BaseCatalog:
    def __init__(self, engine: DockerEngine, bases: BaseImages) -> None:
        self._engine = engine
        self._bases = bases

    async def present(self) -> list[BaseImage]:
        """The base images that the engine has, those first that others are made on."""
        found = await self._engine.request(
            "GET", "/images/json", params={"filters": {"label": ["paasd.base"], "reference": [f"{PREFIX}*"]}}
        )
        images = [
            BaseImage(tag, int(image["Size"]), float(image["Created"]), await self._state(tag))
            for image in found
            for tag in image.get("RepoTags") or ()
            if tag.startswith(PREFIX)
        ]
        return sorted(images, key=lambda image: (not image.name.startswith(f"{PREFIX}{BASE}:"), image.name))

    async def _state(self, tag: str) -> str:
        try:
            return await self._bases.state(tag.removeprefix(PREFIX))
        except PaasdError:  # made by another version of paasd
            return "unknown"

    async def export(self, names: Sequence[str]) -> AsyncIterator[bytes]:
        """Base images by full name, as a tar that `load` takes."""
        params = [("names", name) for name in names]
        async with self._engine.stream("GET", "/images/get", params=params, open_timeout=None) as stream:
            async for chunk in stream.chunks():
                yield chunk

    async def load(self, tar: AsyncIterator[bytes]) -> list[str]:
        """Take what `export` gave; returns the names. Raises EngineError."""
        async with self._engine.stream("POST", "/images/load", data=tar, open_timeout=None) as stream:
            answers = [answer async for answer in stream.json_lines()]
        if failed := next((answer["error"] for answer in answers if "error" in answer), None):
            raise EngineError(f"the container engine did not take the images: {failed}")
        lines = [str(answer.get("stream", "")).strip() for answer in answers]
        return [line.removeprefix(_LOADED) for line in lines if line.startswith(_LOADED)]
