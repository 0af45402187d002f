"""The stages source and build: from a repository to an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paasd.build.app_images import AppImages
from paasd.build.base_images import BaseImages
from paasd.build.builder import Builder
from paasd.build.buildpacks import Buildpacks
from paasd.build.decision import Planner
from paasd.build.disk import Disk
from paasd.build.making import Maker
from paasd.build.matrix import Matrix
from paasd.build.queue import BuildQueue
from paasd.composition.base import Base
from paasd.composition.stores import Stores
from paasd.source.repositories import Repositories

_BUILDPACKS = Path(__file__).parent.parent.parent / "buildpacks"


@dataclass(frozen=True)
class BuildParts:
    repositories: Repositories
    planner: Planner
    images: AppImages
    builder: Builder
    matrix: Matrix


def compose_build(base: Base, stores: Stores) -> BuildParts:
    config, engine, settings = base.config, base.engine, stores.build_settings
    buildpacks = Buildpacks(_BUILDPACKS)
    bases = BaseImages(engine, config.build, buildpacks.recipes, config.data_dir / "cache")
    queue, disk = BuildQueue(config.build.concurrency), Disk(config, engine)
    planner = Planner(config, buildpacks, bases, settings)
    images = AppImages(config, base.database, engine)
    maker = Maker(config.build, engine, buildpacks, bases, images, settings, disk)
    return BuildParts(
        repositories=Repositories(config),
        planner=planner,
        images=images,
        builder=Builder(config, stores.builds, queue, planner, maker, images, settings, disk),
        matrix=Matrix(queue, planner, maker),
    )
