"""base:*: base images, made and moved without the daemon"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paasd.cli.framework import Cli, json_option
from paasd.cli.local import box_only
from paasd.cli.own_config import ROOT, own_config, own_config_options
from paasd.errors import InvalidInput
from paasd.progress import Progress

if TYPE_CHECKING:
    from paasd.build.base_catalog import BaseCatalog
    from paasd.build.base_images import BaseImages

_CHUNK = 1024 * 1024


@box_only.command("base:build", examples=("base:build", "base:build python@3.13"))
@own_config_options
@click.argument("names", nargs=-1)
@click.pass_obj
def build(cli: Cli, config_file: Path | None, data_dir: Path, names: tuple[str, ...]) -> None:
    """Make base images from the host's package sources, unless they are up to date. Needs root."""

    async def work(bases: BaseImages, catalog: BaseCatalog, progress: Progress) -> None:
        for name in names or ("base",):
            cli.console.print(f"-----> {await bases.ensure(name, progress)} is up to date")

    _with_bases(cli, config_file, data_dir, work)


@box_only.command("base:list", examples=("base:list", "base:list --json"))
@own_config_options
@json_option
@click.pass_obj
def listing(cli: Cli, config_file: Path | None, data_dir: Path, as_json: bool) -> None:
    """List the base images that the engine has, and whether they fit what the host has now."""

    async def work(bases: BaseImages, catalog: BaseCatalog, progress: Progress) -> None:
        images = await catalog.present()
        rows = [
            (i.name, i.state, f"{i.size / 1e6:.0f} MB", datetime.fromtimestamp(i.created_at, UTC).isoformat())
            for i in images
        ]
        if as_json:
            keys = ("name", "state", "size", "created_at")
            return cli.console.json([dict(zip(keys, row, strict=True)) for row in rows])
        cli.console.table(("IMAGE", "STATE", "SIZE", "MADE"), rows)

    _with_bases(cli, config_file, data_dir, work)


@box_only.command("base:update", examples=("base:update", "base:update python@3.13"))
@own_config_options
@click.argument("names", nargs=-1)
@click.pass_obj
def update(cli: Cli, config_file: Path | None, data_dir: Path, names: tuple[str, ...]) -> None:
    """Make base images (by default all there are) anew, with the newest packages. Apps get them with their next push.
    Needs root."""

    async def work(bases: BaseImages, catalog: BaseCatalog, progress: Progress) -> None:
        wanted = names or tuple(i.name.removeprefix("paasd/") for i in await catalog.present() if i.state != "unknown")
        for name in wanted:
            cli.console.print(f"-----> {await bases.ensure(name, progress, anew=True)} is new")

    _with_bases(cli, config_file, data_dir, work)


@box_only.command("base:export", examples=("base:export bases.tar", "base:export bases.tar python@3.13"))
@own_config_options
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1)
@click.pass_obj
def export(cli: Cli, config_file: Path | None, data_dir: Path, file: Path, names: tuple[str, ...]) -> None:
    """Write base images (by default all) to a file, for a box that cannot make them."""

    async def work(bases: BaseImages, catalog: BaseCatalog, progress: Progress) -> None:
        present = [image.name for image in await catalog.present()]
        wanted = ["paasd/" + name.replace("@", ":") for name in names] or present
        if missing := [name for name in wanted if name not in present] or (not wanted and ["any base image"]):
            raise InvalidInput(f"the engine does not have {', '.join(missing)}", hint="List them: paasd base:list")
        with file.open("wb") as target:
            async for chunk in catalog.export(wanted):
                await asyncio.to_thread(target.write, chunk)
        cli.console.print(
            f"-----> Wrote {len(wanted)} images to {file}; take them in with: paasd base:import {file.name}"
        )

    _with_bases(cli, config_file, data_dir, work)


@box_only.command("base:import", examples=("base:import bases.tar",))
@own_config_options
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def import_(cli: Cli, config_file: Path | None, data_dir: Path, file: Path) -> None:
    """Take in base images that base:export wrote on another box."""

    async def work(bases: BaseImages, catalog: BaseCatalog, progress: Progress) -> None:
        for name in await catalog.load(_chunks(file)):
            cli.console.print(f"-----> {name}")

    _with_bases(cli, config_file, data_dir, work)


def _with_bases(
    cli: Cli,
    config_file: Path | None,
    data_dir: Path,
    work: Callable[[BaseImages, BaseCatalog, Progress], Awaitable[None]],
) -> None:
    progress = Progress()
    progress.add(cli.console.print)

    async def run() -> None:
        async with _opened(config_file, data_dir) as (bases, catalog):
            await work(bases, catalog, progress)

    asyncio.run(run())


@asynccontextmanager
async def _opened(config_file: Path | None, data_dir: Path) -> AsyncIterator[tuple[BaseImages, BaseCatalog]]:
    from paasd.build.base_catalog import BaseCatalog
    from paasd.build.base_images import BaseImages
    from paasd.build.buildpacks import Buildpacks
    from paasd.docker_engine import DockerEngine

    config = own_config(config_file, data_dir)
    engine = DockerEngine(config.docker_host)
    try:
        # Not in the data directory, where root's files would be in the daemon's way.
        with tempfile.TemporaryDirectory(prefix="paasd-base-", dir="/var/tmp") as work_dir:
            bases = BaseImages(engine, config.build, Buildpacks(ROOT / "buildpacks").recipes, Path(work_dir))
            yield bases, BaseCatalog(engine, bases)
    finally:
        await engine.close()


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        while chunk := await asyncio.to_thread(os.read, descriptor, _CHUNK):
            yield chunk
    finally:
        os.close(descriptor)
