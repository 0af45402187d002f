"""Reads package.json files: of the root, of its workspaces, and which files installing needs beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paasd.build.plan import Source
from paasd.errors import SourceRejected
from paasd.names import shown

FILE = "package.json"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9@_.+~/-]+")
_INSTALL_SCRIPTS = ("preinstall", "install", "postinstall", "prepare")
_LOCAL = re.compile(r"(?:file|link|portal):(?:\./)?([^:#?]+)")
_NEEDS_NOTHING = re.compile(r"(?:npx )?(?:husky|lefthook|simple-git-hooks|only-allow|is-ci|exit|true)\b[^;&|]*")
_BESIDE = (".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml", ".pnpmfile.cjs", "bunfig.toml")
_FOLDERS = (".yarn/releases/", ".yarn/plugins/", ".yarn/patches/", ".yarn/cache/", "patches/")
_PNPM_LIST = re.compile(r"^packages:[ \t]*(?:#.*)?\n((?:[ \t]*(?:-.*|#.*)?\n)+)", re.MULTILINE)
_PNPM_INLINE = re.compile(r"^packages:[ \t]*\[([^\]]*)\]", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """One package.json. Members of a wrong type count as missing: npm itself says what is wrong with them."""

    folder: str
    """Empty for the root, else without a slash at its end."""
    data: Mapping[str, Any]

    @property
    def path(self) -> str:
        return f"{self.folder}/{FILE}" if self.folder else FILE

    def table(self, name: str) -> dict[str, str]:
        value = self.data.get(name)
        return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}

    def text(self, name: str) -> str:
        value = self.data.get(name)
        return value.strip() if isinstance(value, str) else ""

    @cached_property
    def scripts(self) -> dict[str, str]:
        return {name: text.strip() for name, text in self.table("scripts").items() if text.strip()}

    @cached_property
    def needed(self) -> dict[str, str]:
        """Dependencies that are there at run time, too."""
        return {**self.table("optionalDependencies"), **self.table("dependencies")}

    @cached_property
    def development(self) -> dict[str, str]:
        return {name: value for name, value in self.table("devDependencies").items() if name not in self.needed}

    @cached_property
    def dependencies(self) -> dict[str, str]:
        return {**self.development, **self.needed}


@dataclass(frozen=True)
class Manifest:
    """The package.json files of a repository."""

    root: Package
    workspaces: tuple[Package, ...]

    @property
    def packages(self) -> tuple[Package, ...]:
        return (self.root, *self.workspaces)

    def installs(self) -> bool:
        return any(package.dependencies or package.table("peerDependencies") for package in self.packages)

    def develops(self) -> bool:
        return any(package.development for package in self.packages)


@dataclass(frozen=True)
class InstallFiles:
    """What is copied before packages are installed. `why_all` is set when that must be the whole repository."""

    folders: Mapping[str, tuple[str, ...]]
    """Files by their folder (with a slash at its end; empty for the root)."""
    trees: tuple[str, ...]
    """Whole folders, with a slash at their end."""
    why_all: str = ""


def read_manifest(source: Source) -> Manifest | None:
    """Raises SourceRejected for a package.json that is not JSON."""
    root = _package(source, "")
    if root is None:
        return None
    workspaces = [_package(source, folder) for folder in _workspace_folders(source, root)]
    return Manifest(root, tuple(package for package in workspaces if package is not None))


def install_files(source: Source, manifest: Manifest, lockfile: str, extra_why: str = "") -> InstallFiles:
    files = {name for name in (FILE, lockfile, *_BESIDE) if name in source.files}
    trees = {folder for folder in _FOLDERS if any(path.startswith(folder) for path in source.files)}
    why = extra_why
    for package in manifest.packages:
        beside = [package.path, f"{package.folder}/.npmrc"] if package.folder else []
        files |= {path for path in beside if path in source.files}
        why = why or _script_that_needs_code(source, package, trees)
        for target in _local_targets(package):
            if target in source.files:
                files.add(target)
            elif any(path.startswith(f"{target}/") for path in source.files):
                trees.add(f"{target}/")
            else:
                why = why or f"{package.path} refers to {shown(target)}"
    if odd := next((path for path in sorted(files | trees) if not _PLAIN_PATH.fullmatch(path)), None):
        why = why or f"the name {shown(odd)} is unusual"
    return InstallFiles({} if why else _by_folder(files), () if why else tuple(sorted(trees)), why)


def _package(source: Source, folder: str) -> Package | None:
    path = f"{folder}/{FILE}" if folder else FILE
    text = source.read(path)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceRejected(
            f"{path} is not JSON: {error}", hint=f"Mend it; `npm pkg get name` says whether npm can read {path}."
        ) from error
    if not isinstance(data, dict):
        raise SourceRejected(f"{path} must hold a JSON object", hint="Write one such as `npm init` makes.")
    return Package(folder, data)


def _workspace_folders(source: Source, root: Package) -> list[str]:
    patterns = list(_workspace_patterns(source, root))
    if not patterns:
        return []
    matching = [_pattern(pattern) for pattern in patterns if not pattern.startswith("!")]
    folders = [path.removesuffix(f"/{FILE}") for path in source.files if path.endswith(f"/{FILE}")]
    return sorted(
        folder
        for folder in folders
        if "node_modules" not in folder.split("/") and any(pattern.fullmatch(folder) for pattern in matching)
    )


def _workspace_patterns(source: Source, root: Package) -> Iterator[str]:
    listed = root.data.get("workspaces")
    listed = listed.get("packages") if isinstance(listed, dict) else listed
    yield from (pattern for pattern in listed if isinstance(pattern, str)) if isinstance(listed, list) else ()
    text = source.read("pnpm-workspace.yaml") or ""
    if match := _PNPM_LIST.search(f"{text}\n"):
        entries = [line.strip().removeprefix("-").split(" #")[0].strip() for line in match[1].splitlines()]
    elif match := _PNPM_INLINE.search(text):
        entries = match[1].split(",")
    else:
        entries = []
    yield from (entry.strip().strip("\"'") for entry in entries if entry.strip() and not entry.startswith("#"))


def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/?|\*)", glob.removeprefix("./").rstrip("/"))
    texts = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*"}
    return re.compile("".join(texts.get(part, re.escape(part)) for part in parts))


def _script_that_needs_code(source: Source, package: Package, trees: set[str]) -> str:
    """Why installing needs the whole repository; what known scripts need is added to `trees`."""
    for name in _INSTALL_SCRIPTS:
        for command in re.split(r"&&|\|\||;", package.scripts.get(name, "")):
            command = command.strip()
            if not command or _NEEDS_NOTHING.fullmatch(command) or command == "patch-package":
                continue
            prisma = f"{package.folder}/prisma/".lstrip("/")
            if re.fullmatch(r"(?:npx )?prisma generate", command) and _holds(source, prisma):
                trees.add(prisma)
                continue
            return f"{package.path} has a {name} script"
    return ""


def _holds(source: Source, folder: str) -> bool:
    return any(path.startswith(folder) for path in source.files)


def _local_targets(package: Package) -> Iterator[str]:
    """Paths in the repository that dependencies name."""
    for value in package.dependencies.values():
        if match := _LOCAL.fullmatch(value):
            parts: list[str] = package.folder.split("/") if package.folder else []
            for part in match[1].rstrip("/").split("/"):
                if part == ".." and parts:
                    parts.pop()
                elif part != ".":
                    parts.append(part)
            yield "/".join(parts)


def _by_folder(files: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for path in sorted(files):
        folder, slash, _ = path.rpartition("/")
        found.setdefault(folder + slash, []).append(path)
    return {folder: tuple(paths) for folder, paths in sorted(found.items())}
