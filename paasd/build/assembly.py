"""Puts together what BuildKit gets for one plan: base images by name, and the context as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from paasd.build.base_images import BaseImages
from paasd.build.buildpacks import Buildpacks
from paasd.build.context import filtered, joined, repository_context
from paasd.build.plan import Plan, Source
from paasd.build.recipes import reference
from paasd.build.registries import host_registries
from paasd.progress import Progress


class Tree(Source, Protocol):
    def tar(self, prefix: str = "") -> AsyncIterator[bytes]:
        """All files as an uncompressed tar, paths under `prefix`."""


async def base_images(bases: BaseImages, plan: Plan, progress: Progress) -> dict[str, str]:
    """Full image names of the plan's base images by their bare name; made first if they are missing."""
    return {reference(base).name: await bases.ensure(base, progress) for base in plan.bases}


async def build_context(
    buildpacks: Buildpacks, bases: BaseImages, plan: Plan, checkout: Tree, images: Mapping[str, str], app_id: str
) -> AsyncIterator[bytes]:
    """The repository as it is when it brings its Dockerfile; else the buildpack's files with the repository in `app/`.

    Raises SourceRejected.
    """
    if plan.in_repository:
        return repository_context(checkout, checkout.tar(), plan.dockerfile)
    first = plan.bases[0]
    files = {
        **await asyncio.to_thread(host_registries),
        **await bases.package_files(first),
        "build.env": "",
        **buildpacks.render(plan, images, app_id, await bases.suite(first)),
    }
    return joined(files, _archive(plan, checkout))


def _archive(plan: Plan, checkout: Tree) -> AsyncIterator[bytes]:
    """The repository in `app/`, without what the plan leaves out; nobody pays for that who has nothing of the kind."""
    archive, names = checkout.tar("app/"), set(plan.left_out)
    if not names or not any(names.intersection(path.split("/")) for path in checkout.files):
        return archive
    return filtered(archive, lambda path: names.isdisjoint(path.split("/")))
