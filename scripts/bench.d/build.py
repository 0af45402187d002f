"""Builds of every language's example against a Dockerfile written by hand for it, on the same BuildKit and the same
base images: one changed line, one more dependency, the size of the image. Then detection and planning in a repository
of 20,000 files, and on a whole box the time until an unchanged push is known to need no build."""

from __future__ import annotations

import argparse
import asyncio
import io
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _by_hand import LANGUAGES, NGINX, Language, fetch_once, salt
from _common import Box, machine, ok, ratio, started_box

from paasd.build.assembly import base_images, build_context, build_files, digest
from paasd.build.base_images import BaseImages
from paasd.build.buildkit import build_image
from paasd.build.buildpacks import Buildpacks
from paasd.build.context import joined
from paasd.build.plan import Plan, Settings
from paasd.build.registries import host_registries
from paasd.config import BuildConfig
from paasd.docker_engine import DockerEngine
from paasd.progress import Progress
from paasd.source.checkout import GitCheckout, open_checkout
from tests.box import EXAMPLES, ROOT, Repository, docker, remove_labelled

PORT, FILES, SECONDS = 5000, 20_000, 300
QUICK, MOST = 15.0, 51
"""Seconds for which quick builds are repeated, and how often at most."""
TARGETS = {
    "code changed": (1.10, ""),
    "dependency added": (1.20, ""),
    "image size": (1.15, ""),
    "pushed again": (1.0, " s"),
    "planned": (50.0, " ms"),
}
SAYS_NO_BUILD = "using its image"


@dataclass
class Row:
    """One line of the table: what was measured, and the two sides of a ratio for people."""

    language: str
    what: str
    value: float
    sides: str = ""

    def shown(self) -> str:
        target, unit = TARGETS[self.what]
        verdict = "met" if self.value <= target else "MISSED"
        number, limit = (f"{n:.0f}" if unit == " ms" else f"{n:.2f}" for n in (self.value, target))
        return f"  {self.language:8}  {self.what:17}  {number:>5}{unit:3}  ≤ {limit}{unit:3}  {verdict:6}  {self.sides}"


@dataclass
class Rounds:
    """Seconds of both sides, which take turns in going first."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    async def add(self, ours: Callable[[], Awaitable[float]], theirs: Callable[[], Awaitable[float]]) -> None:
        if len(self.ours) % 2:
            self.theirs.append(await theirs())
            self.ours.append(await ours())
        else:
            self.ours.append(await ours())
            self.theirs.append(await theirs())

    def row(self, language: str, what: str) -> Row:
        sides = f"{statistics.median(self.ours):.2f} s against {statistics.median(self.theirs):.2f} s"
        return Row(language, what, ratio(self.ours, self.theirs), sides)


class Workshop:
    """What builds are made with, and where; `close` removes the images and the repositories."""

    def __init__(self) -> None:
        self.label = f"paasd-bench-{secrets.token_hex(4)}"
        self.root = Path(tempfile.mkdtemp(prefix="bench", dir="/tmp"))
        self.engine = DockerEngine("unix:///var/run/docker.sock")
        self.packs = Buildpacks(ROOT / "buildpacks")
        self.bases = BaseImages(self.engine, BuildConfig(), self.packs.recipes, self.root / "bases")

    async def close(self) -> None:
        await self.engine.close()
        await asyncio.to_thread(remove_labelled, self.label)
        shutil.rmtree(self.root, ignore_errors=True)

    async def plan(self, checkout: GitCheckout) -> Plan:
        """As `build/decision.py` does it for an app that has no settings."""
        suites = (await self.bases.host()).suites
        types = checkout.manifest.process_types
        settings = Settings(process_types=None if types is None else tuple(t.name for t in types))
        plan = self.packs.plan(checkout, PORT, settings=settings, suites=suites)
        self.packs.also_fit(checkout, plan, suites)
        return plan

    async def make(self, tag: str, context: AsyncIterator[bytes]) -> None:
        await build_image(
            self.engine,
            context,
            tag=tag,
            labels={"paasd.instance": self.label},
            on_line=lambda line: None,
            timeout=SECONDS,
            idle_timeout=SECONDS,
        )


class Contest:
    """One language: the same repository built by its buildpack and by its Dockerfile."""

    def __init__(self, workshop: Workshop, name: str) -> None:
        self.workshop, self.name, self.language = workshop, name, LANGUAGES[name]
        self.tags = {side: f"{workshop.label}:{name}-{side}" for side in ("ours", "theirs")}
        # Compilers fill caches with hundreds of megabytes, so runs share those; packages are to be new in every run.
        self.cache = f"{workshop.label}-{name}" if self.language.add else f"paasd-bench-{name}"
        self.repository = Repository(workshop.root / name)
        self.dockerfile = ""
        shutil.copytree(EXAMPLES / name / "example", self.repository.path)
        self.repository.git("init", "-q", "-b", "main")
        salt(self.repository, workshop.label)
        self.repository.commit({})

    async def run(self, rounds: int) -> list[Row]:
        await self._prepare()
        await self.ours()
        await self.theirs()
        rows = [await self._code_changed(rounds)]
        if self.language.add is not None:
            rows.append(await self._dependency_added(min(rounds, len(self.language.packages))))
        sizes = [docker("GET", f"/images/{tag}/json")["Size"] for tag in self.tags.values()]
        return [
            *rows,
            Row(
                self.name,
                "image size",
                sizes[0] / sizes[1],
                "{:.1f} MB against {:.1f} MB".format(*(n / 1e6 for n in sizes)),
            ),
        ]

    async def _prepare(self) -> None:
        plan = await self.workshop.plan(await self._checkout())
        images = await base_images(self.workshop.bases, plan, Progress())
        self.dockerfile = self.language.dockerfile.format_map({**images, "cache": f"{self.cache}-hand"})

    async def _code_changed(self, rounds: int) -> Row:
        seconds, started = Rounds(), time.monotonic()
        # Quick builds scatter most, and cost least to be repeated.
        while len(seconds.ours) < rounds or (time.monotonic() - started < QUICK and len(seconds.ours) < MOST):
            self._change_code()
            await seconds.add(self.ours, self.theirs)
        return seconds.row(self.name, "code changed")

    async def _dependency_added(self, rounds: int) -> Row:
        seconds, add = Rounds(), self.language.add
        assert add is not None
        for package in self.language.packages[:rounds]:
            await asyncio.to_thread(fetch_once, self.name, package, self.workshop.root)
            add(self.repository, package)
            self.repository.commit({}, f"Add {package}")
            await seconds.add(self.ours, self.theirs)
        return seconds.row(self.name, "dependency added")

    def _change_code(self) -> None:
        note = secrets.token_hex(8)
        note = f"{self.language.comment} {note}\n" if self.language.comment else f"/* {note} */\n"
        path = self.repository.path / self.language.code
        self.repository.commit({self.language.code: f"{path.read_text().rstrip()}\n{note}"})

    async def _checkout(self) -> GitCheckout:
        path = self.repository.path
        return await open_checkout(path / ".git", self.repository.git("rev-parse", "HEAD"))

    async def ours(self) -> float:
        """All that the daemon does for an image, but for its database."""
        shop, revision = self.workshop, self.repository.git("rev-parse", "HEAD")
        started = time.monotonic()
        checkout = await open_checkout(self.repository.path / ".git", revision)
        plan = await shop.plan(checkout)
        images = await base_images(shop.bases, plan, Progress())
        files = await build_files(shop.packs, shop.bases, plan, images, self.cache, {})
        identities = {name: await shop.bases.identity(full) for name, full in images.items()}
        digest(checkout.tree, plan, files, identities)
        await shop.make(self.tags["ours"], await build_context(plan, checkout, files))
        return time.monotonic() - started

    async def theirs(self) -> float:
        """What `docker build` does: the folder as a tar, straight to BuildKit."""
        files = {**host_registries(), "Dockerfile": self.dockerfile, "nginx.conf": NGINX}
        started = time.monotonic()
        await self.workshop.make(self.tags["theirs"], joined(files, _folder(self.repository.path)))
        return time.monotonic() - started


async def _folder(path: Path) -> AsyncIterator[bytes]:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(path, "app", filter=lambda entry: None if entry.name == "app/.git" else entry)
    yield archive.getvalue()


def pushed_again(box: Box, name: str, rounds: int) -> Row:
    """From the start of `git push` to the line that says that nothing is built."""
    repository, app = box.repository(example=name), f"bench-{name}"
    ok(box.push(repository, app))
    seconds = [_until_decided(box, repository, app) for _ in range(rounds)]
    return Row(name, "pushed again", statistics.median(seconds), f"{min(seconds):.2f} to {max(seconds):.2f} s")


def _until_decided(box: Box, repository: Repository, app: str) -> float:
    repository.commit({}, "The same files")
    started, decided = time.monotonic(), 0.0
    push = box.begin_push(repository, app)
    assert push.stdout is not None
    said = []
    for line in push.stdout:
        said.append(line)
        if SAYS_NO_BUILD in line:
            decided = time.monotonic() - started
    if push.wait(SECONDS) or not decided:
        raise SystemExit(f"the push failed, or was built:\n{''.join(said)}")
    return decided


async def planned(workshop: Workshop, name: str, rounds: int) -> Row:
    """Detection and planning, in a new checkout each time. Opening it is Git's work, and told beside."""
    repository = await asyncio.to_thread(_large, workshop.root / f"{name}-large", name, LANGUAGES[name])
    revision = repository.git("rev-parse", "main")
    opening: list[float] = []
    planning: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        checkout = await open_checkout(repository.path, revision)
        opened = time.perf_counter()
        await workshop.plan(checkout)
        planning.append(1000 * (time.perf_counter() - opened))
        opening.append(1000 * (opened - started))
    return Row(
        name, "planned", statistics.median(planning), f"reading the tree before: {statistics.median(opening):.0f} ms"
    )


def _large(path: Path, name: str, language: Language) -> Repository:
    """The example, and files of its language in 1,000 folders beside it, up to 20,000 in all."""
    example = EXAMPLES / name / "example"
    contents = {str(file.relative_to(example)): file.read_bytes() for file in example.rglob("*") if file.is_file()}
    for number in range(FILES - len(contents)):
        folder = f"part{number // 200}/{number // 20 % 10}"
        contents[f"{folder}/file{number}.{language.suffix}"] = b"%d\n" % number
    stream = [b"commit refs/heads/main\ncommitter Bench <bench@example.org> 0 +0000\ndata 1\nx\n"]
    stream += [b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(c), c) for name, c in contents.items()]
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True, timeout=30)
    repository = Repository(path)
    repository.git("fast-import", "--quiet", stdin=b"".join(stream))
    return repository


async def measure(names: Sequence[str], rounds: int) -> list[Row]:
    workshop, rows = Workshop(), []
    try:
        for name in names:
            rows += _said(await Contest(workshop, name).run(rounds))
        for name in names:
            rows += _said([await planned(workshop, name, rounds)])
    finally:
        await workshop.close()
    return rows


def _said(rows: list[Row]) -> list[Row]:
    for row in rows:
        print(row.shown(), flush=True)
    return rows


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", default=",".join(LANGUAGES), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = options.languages.split(",")
    if unknown := set(names) - LANGUAGES.keys():
        parser.error(f"no language is called {', '.join(sorted(unknown))}; there are: {', '.join(LANGUAGES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"against Dockerfiles written by hand, median of {options.rounds} rounds ({machine()}):", flush=True)
    rows = asyncio.run(measure(names, options.rounds))
    with started_box() as box:
        for name in names:
            rows += _said([pushed_again(box, name, options.rounds)])
    return all(row.value <= TARGETS[row.what][0] for row in rows)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
