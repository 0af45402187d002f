"""Plans the build of a Rust program: which compiler, which binaries, and which of them is `web`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import InvalidInput, SourceRejected
from paasd.models import ProcessType
from paasd.names import process_type, shown

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_SERIES = re.compile(r"(\d+)\.(\d+)(?:\.\d+)?")
_WEB_NAMES = ("web", "server")
_LINKED = ("openssl-sys", "pq-sys")
"""Crates that link libraries of the distribution, which the larger image has."""
_CARGO_CONFIGS = (".cargo/config.toml", ".cargo/config")


class _Crate(NamedTuple):
    """One Cargo.toml with a package: its name and its binaries."""

    name: str
    binaries: tuple[str, ...]
    default: str


class _Asked(NamedTuple):
    where: str
    text: str
    exact: bool
    """A pinned compiler, not only the oldest that will do."""


def plan(source: Source, settings: Settings) -> Plan | None:
    if "Cargo.toml" not in source.files:
        return None
    root = _toml(source, "Cargo.toml")
    version, version_reason = _version(source, root, settings)
    crates = _crates(source, root)
    binaries = list(dict.fromkeys(name for crate in crates for name in crate.binaries))
    if not binaries:
        raise SourceRejected(
            "this is a Rust repository, but no program was found in it: no crate has src/main.rs, src/bin/ or [[bin]]",
            hint="A library cannot be deployed; add src/main.rs.",
        )
    main = _main(crates, binaries)
    process_types, start_reasons = _process_types(main, binaries, "rocket" in _locked(source), settings)
    linked = [name for name in _LINKED if name in _locked(source)]
    run_base = "rust-full" if linked or settings.packages else "rust-run"
    return Plan(
        buildpack="rust",
        process_types=process_types,
        reasons=(
            version_reason,
            f"Cargo.toml: building {', '.join(f'bin/{name}' for name in binaries)}",
            *_dependencies(source),
            *(
                f"Cargo.lock: {name} links a library of the distribution, so the image is the larger one"
                for name in linked
            ),
            *start_reasons,
        ),
        versions={"rust": version},
        user="10001:10001",
        bases=(f"rust@{version}", f"{run_base}@{version}"),
        packages=settings.packages,
        values={
            "version": version,
            "commands": _commands(source, binaries, settings),
            "run_base": run_base,
            "vendored": _vendored(source),
            "cargo_run": any("cargo run" in text for text in (source.read("Procfile") or "", settings.start_command)),
            "default_binary": main or binaries[0],
        },
    )


def _toml(source: Source, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read(path) or "")
    except tomllib.TOMLDecodeError as error:
        raise SourceRejected(f"{path} is not valid TOML: {error}", hint="Check it with: cargo metadata") from error


def _table(data: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A table inside of tables; empty when it is not there, or something else."""
    found: Any = data
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _crates(source: Source, root: Mapping[str, Any]) -> list[_Crate]:
    """The root's own crate, then the members of the workspace."""
    manifests = [("", root), *((folder, _toml(source, f"{folder}/Cargo.toml")) for folder in _members(source, root))]
    return [_crate(source, folder, data) for folder, data in manifests if _table(data, "package")]


def _members(source: Source, root: Mapping[str, Any]) -> list[str]:
    workspace = _table(root, "workspace")
    patterns = workspace.get("default-members") or workspace.get("members") or []
    excluded = workspace.get("exclude") or []
    folders = sorted(path.removesuffix("/Cargo.toml") for path in source.files if path.endswith("/Cargo.toml"))
    return [f for f in folders if _FOLDER.fullmatch(f) and _any(f, patterns) and not _any(f, excluded)]


def _any(folder: str, patterns: Any) -> bool:
    """Whether a pattern of Cargo's matches; `*` stands for one part of a path."""
    texts = [p.removeprefix("./").rstrip("/") for p in patterns if isinstance(p, str)]
    return any(p.count("/") == folder.count("/") and fnmatchcase(folder, p) for p in texts)


def _crate(source: Source, folder: str, data: Mapping[str, Any]) -> _Crate:
    package, prefix = _table(data, "package"), f"{folder}/" if folder else ""
    name = str(package.get("name", ""))
    listed = data.get("bin")
    found = (
        [str(entry.get("name", "")) for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )
    if package.get("autobins", True) is not False:
        claimed = (
            {entry.get("path") for entry in listed if isinstance(entry, dict)} if isinstance(listed, list) else set()
        )
        if f"{prefix}src/main.rs" in source.files and "src/main.rs" not in claimed:
            found.append(name)
        found += [bin for bin, path in _in_bin_folder(source, prefix) if path not in claimed]
    binaries = tuple(dict.fromkeys(found))
    for binary in binaries:
        if not _NAME.fullmatch(binary):
            raise SourceRejected(f"{prefix}Cargo.toml names a binary {shown(binary)}, which Cargo would not build")
    return _Crate(name, binaries, str(package.get("default-run", "")))


def _in_bin_folder(source: Source, prefix: str) -> list[tuple[str, str]]:
    """Binaries of `src/bin/`: name, and path inside the crate."""
    start = f"{prefix}src/bin/"
    found = []
    for path in sorted(source.files):
        name, slash, rest = path.removeprefix(start).partition("/")
        if path.startswith(start) and (rest == "main.rs" or (not slash and name.endswith(".rs"))):
            found.append((name.removesuffix(".rs"), path.removeprefix(prefix)))
    return found


def _main(crates: Iterable[_Crate], binaries: list[str]) -> str:
    """The binary that is `web` when no file says so; empty when that is not clear."""
    if len(binaries) == 1:
        return binaries[0]
    crates = list(crates)
    likely = [*(crate.default for crate in crates), *_WEB_NAMES, crates[0].name]
    return next((name for name in likely if name in binaries), "")


def _process_types(
    main: str, binaries: list[str], rocket: bool, settings: Settings
) -> tuple[tuple[ProcessType, ...], list[str]]:
    if settings.process_types is not None and "web" in settings.process_types:
        return (), []
    if settings.start_command:
        return (ProcessType("web", settings.start_command),), [f"setting: web runs {settings.start_command}"]
    if not main:
        raise SourceRejected(
            f"this repository has several programs, and nothing says which one is web: {', '.join(sorted(binaries))}",
            hint=f"Add a file named Procfile with a line like: web: {min(binaries)}",
        )
    others = [name for name in binaries if name not in (main, "web") and _is_process_type(name)]
    reasons = [f"no Procfile: web runs bin/{main}"]
    command = main
    if rocket:
        command = f"ROCKET_ADDRESS=0.0.0.0 ROCKET_PORT=$PORT exec {main}"
        reasons.append("Cargo.toml: Rocket is told the address and the port by its variables")
    if others:
        reasons.append(f"also process types, not started until they are scaled: {', '.join(others)}")
    return (ProcessType("web", command), *(ProcessType(name, name) for name in others)), reasons


def _is_process_type(name: str) -> bool:
    try:
        return bool(process_type(name))
    except InvalidInput:
        return False


def _version(source: Source, root: Mapping[str, Any], settings: Settings) -> tuple[str, str]:
    """The compiler and which file decided it. Raises SourceRejected for one that cannot be had."""
    default = settings.versions[0] if settings.versions else ""
    asked = _asked(source, root, settings)
    if asked is None or asked.text == "stable" or not settings.versions:
        return default, f"Rust {default}, the default" + (f": {asked.where} says stable" if asked else "")
    match = _SERIES.match(asked.text)
    if match is None:
        raise _cannot(asked, settings)
    wanted = (int(match[1]), int(match[2]))
    enough = sorted((v for v in settings.versions if _numbers(v) >= wanted), key=_numbers)
    if not enough:
        raise _cannot(asked, settings)
    chosen = default if not asked.exact and default in enough else enough[0]
    older = "" if _numbers(chosen) == wanted else ", which newer compilers build too"
    return chosen, f"{asked.where}: {asked.text}{older}: Rust {chosen} or a later one of its suite"


def _cannot(asked: _Asked, settings: Settings) -> SourceRejected:
    return SourceRejected(
        f"{asked.where} asks for Rust {shown(asked.text)}, which cannot be had here",
        hint=f"There are: {', '.join(settings.versions)}. Ask for one of them, or for stable.",
    )


def _asked(source: Source, root: Mapping[str, Any], settings: Settings) -> _Asked | None:
    if settings.version:
        return _Asked("setting", settings.version, True)
    for path in ("rust-toolchain.toml", "rust-toolchain"):
        text = (source.read(path) or "").strip()
        if text:
            channel = _table(_toml(source, path), "toolchain").get("channel") if "[" in text else text
            if isinstance(channel, str):
                return _Asked(path, channel, True)
    for table in (_table(root, "package"), _table(root, "workspace", "package")):
        if isinstance(oldest := table.get("rust-version"), str):
            return _Asked("Cargo.toml rust-version", oldest, False)
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _locked(source: Source) -> set[str]:
    packages = _toml_or_nothing(source, "Cargo.lock").get("package")
    return {str(p.get("name")) for p in packages if isinstance(p, dict)} if isinstance(packages, list) else set()


def _toml_or_nothing(source: Source, path: str) -> dict[str, Any]:
    try:
        return _toml(source, path)
    except SourceRejected:  # Cargo will say what is wrong with it
        return {}


def _vendored(source: Source) -> list[str]:
    """Folders of the repository that hold the code of dependencies."""
    found = []
    for path in _CARGO_CONFIGS:
        for place in _table(_toml_or_nothing(source, path), "source").values():
            folder = place.get("directory") if isinstance(place, dict) else None
            if isinstance(folder, str) and _FOLDER.fullmatch(folder) and ".." not in folder.split("/"):
                found.append(folder)
    return found


def _dependencies(source: Source) -> list[str]:
    if folders := _vendored(source):
        return [f".cargo/config.toml: dependencies come from {', '.join(folders)}, nothing is fetched"]
    if "Cargo.lock" in source.files:
        return ["Cargo.lock: dependencies are fetched once and kept compiled in the app's cache"]
    return ["no Cargo.lock: Cargo chooses versions at each build; commit the file to keep them"]


def _commands(source: Source, binaries: list[str], settings: Settings) -> list[str]:
    made = [settings.install_command] if settings.install_command else []
    if settings.build_command:
        return [*made, settings.build_command]
    locked = " --locked" if "Cargo.lock" in source.files else ""
    chosen = "".join(f" --bin {name}" for name in binaries)
    copied = " ".join(f'"$CARGO_TARGET_DIR/release/{name}"' for name in binaries)
    return [*made, f"cargo build --release{locked}{chosen} && mkdir -p bin && cp {copied} bin/"]
