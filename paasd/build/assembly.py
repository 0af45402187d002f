"""Puts together what BuildKit gets for one plan: base images by name, and the context as a stream."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from paasd.build.base_images import BaseImages
from paasd.build.buildpacks import Buildpacks
from paasd.build.context import filtered, joined, repository_context
from paasd.build.plan import Plan, Source
from paasd.build.registries import host_registries
from paasd.build.templates import environment
from paasd.models import Secret
from paasd.progress import Progress

TEST_STAGE = "paasd-test"
DOCKERFILE = "Dockerfile"
ENVIRONMENT = "build.env"
_TEST = """
{% import "macros.j2" as m with context %}
FROM {{ stage }} AS {{ test_stage }}
{% if not in_repository %}
WORKDIR /app
COPY app/ /app/
{% endif %}
{{ m.run(command) }}
"""


class Tree(Source, Protocol):
    def tar(self, prefix: str = "") -> AsyncIterator[bytes]:
        """All files as an uncompressed tar, paths under `prefix`."""


async def base_images(bases: BaseImages, plan: Plan, progress: Progress) -> dict[str, str]:
    """Full image names of the plan's base images by their bare name; made first if they are missing."""
    return await bases.ensure_all(plan.bases, progress)


async def build_files(
    buildpacks: Buildpacks,
    bases: BaseImages,
    plan: Plan,
    images: Mapping[str, str],
    cache: str,
    env: Mapping[str, Secret],
) -> dict[str, str]:
    """The buildpack's files for the context, by path; none for a repository that brings its Dockerfile. `cache` names
    the app's own caches, `env` holds the config vars its build may see."""
    if plan.in_repository:
        return {}
    first = plan.bases[0]
    files = buildpacks.render(plan, images, cache, await bases.suite(first))
    return {**await bases.package_files(first), ENVIRONMENT: exports(env), **files}


def test_files(
    buildpacks: Buildpacks, plan: Plan, files: Mapping[str, str], command: str, image: str, env: Mapping[str, Secret]
) -> dict[str, str]:
    """Files for a build whose stage `TEST_STAGE` runs the tests: on the stage that the plan names, or on the `image`
    made from the repository's own Dockerfile."""
    values = {
        "stage": image if plan.in_repository else plan.test_stage,
        "test_stage": TEST_STAGE,
        "command": command,
        "in_repository": plan.in_repository,
    }
    stage = environment({**buildpacks.shared, "": _TEST}).get_template("").render(suite="", app_id="", **values)
    return {**files, ENVIRONMENT: exports(env), DOCKERFILE: files.get(DOCKERFILE, "") + stage}


def exports(env: Mapping[str, Secret]) -> str:
    return "".join(f"export {name}={shlex.quote(value.reveal())}\n" for name, value in sorted(env.items()))


async def build_context(plan: Plan, checkout: Tree, files: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The repository as it is when it brings its Dockerfile and no `files` take its place; else `files` with the
    repository in `app/`. Raises SourceRejected."""
    if plan.in_repository and not files:
        return repository_context(checkout, checkout.tar(), plan.dockerfile)
    return joined({**await asyncio.to_thread(host_registries), **files}, _archive(plan, checkout))


def digest(tree: str, plan: Plan, files: Mapping[str, str], bases: Mapping[str, str]) -> str:
    """Of all that goes into an image. `bases`: name → what identifies the base image's content."""
    facts = [tree, plan.buildpack, plan.dockerfile, plan.target, list(plan.left_out), dict(files), dict(bases)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _archive(plan: Plan, checkout: Tree) -> AsyncIterator[bytes]:
    """The repository in `app/`, without what the plan leaves out; nobody pays for that who has nothing of the kind."""
    archive, names = checkout.tar("app/"), set(plan.left_out)
    if not names or not any(names.intersection(path.split("/")) for path in checkout.files):
        return archive
    return filtered(archive, lambda path: names.isdisjoint(path.split("/")))
