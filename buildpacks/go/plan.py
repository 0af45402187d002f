"""Plans the build of a Go program: which toolchain, which main packages, and which of them is `web`."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import InvalidInput, SourceRejected
from paasd.models import ProcessType
from paasd.names import process_type, shown

_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAIN = re.compile(r"^package\s+main\b", re.MULTILINE)
_IGNORED = re.compile(r"^//(?:go:build| \+build)\s+ignore\b", re.MULTILINE)
_IMPORT_C = re.compile(r'^\s*(?:import\s+)?"C"\s*$', re.MULTILINE)
_IMPORTED = re.compile(r'^\s*(?:import\s+)?(?:[\w.]+\s+)?"([^"\s]+)"\s*$', re.MULTILINE)
_MODULE = re.compile(r'^module\s+"?([^\s"]+)', re.MULTILINE)
_GO_LINE = re.compile(r"^go\s+(\d+\.\d+)\S*", re.MULTILINE)
_TOOLCHAIN = re.compile(r"^toolchain\s+go(\d+\.\d+)\S*", re.MULTILINE)
_HEROKU_VERSION = re.compile(r"^//\s*\+heroku\s+goVersion\s+(?:go)?(\d+\.\d+)\S*", re.MULTILINE)
_HEROKU_INSTALL = re.compile(r"^//\s*\+heroku\s+install\s+(.+)$", re.MULTILINE)
_VERSION = re.compile(r"(?:go)?(\d+\.\d+)(?:\.\d+)*")
# Well-known modules that are C inside; most others work without.
_C_MODULES = re.compile(
    r"^\s*(?:require\s+)?(github\.com/(?:mattn/go-sqlite3|confluentinc/confluent-kafka-go\S*|h2non/bimg"
    r"|davidbyttow/govips\S*|marcboeker/go-duckdb\S*|linkedin/goavro-c))\s",
    re.MULTILINE,
)
_ASIDE = {"example", "examples", "_examples", "tools", "tool", "scripts", "script", "hack", "test", "tests", "internal"}
_WEB_NAMES = ("web", "server")
_MOST_READS = 60


class _Program(NamedTuple):
    """A main package: its folder (empty for the root) and the name of its binary."""

    folder: str
    name: str

    @property
    def package(self) -> str:
        return f"./{self.folder}" if self.folder else "."


def plan(source: Source, settings: Settings) -> Plan | None:
    folders = _code(source)
    modules = source.read("go.mod")
    is_workspace = "go.work" in source.files
    if modules is None and not is_workspace and not _is_main(source, folders.get("", [])):
        return None
    version, version_reason = _version(source, settings)
    module = _MODULE.search(modules or "")
    programs, reasons = _programs(source, folders, module[1] if module else "", settings)
    c_reason = _c_reason(source, folders, modules or "")
    vendored = "vendor/modules.txt" in source.files
    if modules is None and not is_workspace:
        _refuse_imports(source, folders[""])
    process_types, start_reasons = _process_types(programs, module[1] if module else "", settings)
    small = not c_reason and not settings.packages
    procfile = source.read("Procfile") or ""
    return Plan(
        buildpack="go",
        process_types=process_types,
        reasons=(
            version_reason,
            *reasons,
            _dependencies(source, modules, vendored),
            *([c_reason] if c_reason else []),
            *start_reasons,
        ),
        versions={"go": version},
        user="10001:10001",
        bases=(f"go@{version}", "go-run" if small else "base"),
        packages=settings.packages,
        values={
            "commands": _commands(programs, settings, makes_module=modules is None and not is_workspace),
            "binaries": [(p.folder, p.name) for p in sorted(programs, key=lambda p: -len(p.folder))],
            "go_flags": "-trimpath -buildvcs=false" + (" -mod=vendor" if vendored else ""),
            "go_run": "go run" in procfile or "go run" in settings.start_command,
            "run_base": "go-run" if small else "base",
            "cgo": bool(c_reason),
            "vendored": vendored,
        },
    )


def _code(source: Source) -> dict[str, list[str]]:
    """Files of Go by folder, in the order of their depth; tests and what Go itself leaves out are not among them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in source.files:
        if path.endswith(".go") and not path.endswith("_test.go"):
            found[path.rpartition("/")[0]].append(path)
    return {
        folder: sorted(found[folder], key=lambda path: (not path.endswith("main.go"), path))
        for folder in sorted(found, key=lambda folder: (folder.count("/") + bool(folder), folder))
        if _holds_code(folder)
    }


def _holds_code(folder: str) -> bool:
    if not folder:
        return True
    aside = any(part in ("vendor", "testdata", "node_modules") or part[0] in "._" for part in folder.split("/"))
    return not aside and _FOLDER.fullmatch(folder) is not None and not folder.endswith("/go-run")


def _text(source: Source, path: str) -> str:
    try:
        return source.read(path) or ""
    except SourceRejected:  # a huge file is generated code, which nobody need read here
        return ""


def _is_main(source: Source, paths: list[str]) -> bool:
    texts = (_text(source, path) for path in paths[:5])
    return any(_MAIN.search(text) and not _IGNORED.search(text) for text in texts)


def _programs(
    source: Source, folders: dict[str, list[str]], module: str, settings: Settings
) -> tuple[list[_Program], list[str]]:
    """The main packages to build, and why these. Raises SourceRejected when there is none."""
    wanted = _HEROKU_INSTALL.search(source.read("go.mod") or "")
    likely = [f for f in folders if not f or f.startswith("cmd/") or f"{f}/main.go" in folders[f] or wanted]
    mains = [f for f in sorted(likely, key=lambda f: (f.count("/"), f))[:_MOST_READS] if _is_main(source, folders[f])]
    chosen, reason = mains, "main packages"
    if wanted:
        chosen, reason = [f for f in mains if _matches(f, wanted[1].split())], "go.mod says +heroku install"
    elif usual := [f for f in mains if not f or f.startswith("cmd/")]:
        named = _named(source.read("Procfile") or "", settings.start_command)
        chosen = usual + [f for f in mains if f not in usual and (f in named or f.rpartition("/")[2] in named)]
    elif main := [f for f in mains if not _ASIDE & set(f.split("/"))]:
        chosen = main
    if not chosen:
        raise SourceRejected(
            "this is a Go repository, but no program was found in it: there is no package main in its root, "
            "in cmd/*, or in a folder with a main.go",
            hint="A library cannot be deployed; put the program's main.go into the root or into cmd/web/.",
        )
    programs = _with_names(chosen, module)
    listed = ", ".join(f"{program.package} as bin/{program.name}" for program in programs)
    return programs, [f"{reason}: building {listed}"]


def _matches(folder: str, patterns: list[str]) -> bool:
    for pattern in patterns:
        path = pattern.removeprefix("./").rstrip("/")
        if (
            path == "..."
            or folder == path.removeprefix(".")
            or f"{folder}/".startswith(path.removesuffix("...") or "/")
        ):
            return path.endswith("...") or folder == path.removeprefix(".")
    return False


def _named(*commands: str) -> set[str]:
    """What commands may mean by their words: folders, and names of binaries."""
    words = {word.removeprefix("./").rstrip("/") for command in commands for word in command.split()}
    return words | {word.rpartition("/")[2] for word in words} | {word.rpartition("/")[0] for word in words}


def _with_names(folders: list[str], module: str) -> list[_Program]:
    found: dict[str, _Program] = {}
    for folder in folders:
        name = folder.rpartition("/")[2] if folder else _module_name(module)
        if name in found:
            name = folder.replace("/", "-")
        found[name] = _Program(folder, name)
    return list(found.values())


def _module_name(module: str) -> str:
    """As `go build` names the binary of a module's root: without a major version at the end."""
    parts = [part for part in module.split("/") if not re.fullmatch(r"v\d+", part)]
    return parts[-1] if parts and _NAME.fullmatch(parts[-1]) else "app"


def _process_types(
    programs: list[_Program], module: str, settings: Settings
) -> tuple[tuple[ProcessType, ...], list[str]]:
    if settings.process_types is not None and "web" in settings.process_types:
        return (), []
    if settings.start_command:
        return (ProcessType("web", settings.start_command),), [f"setting: web runs {settings.start_command}"]
    web = _web(programs, module)
    others = [p for p in programs if p != web and _is_process_type(p.name) and p.name != "web"]
    reasons = [f"no Procfile: web runs bin/{web.name}"]
    if others:
        names = ", ".join(p.name for p in others)
        reasons.append(f"also process types, not started until they are scaled: {names}")
    return (ProcessType("web", web.name), *(ProcessType(p.name, p.name) for p in others)), reasons


def _web(programs: list[_Program], module: str) -> _Program:
    if len(programs) == 1:
        return programs[0]
    by_name = {program.name: program for program in programs}
    for name in (*_WEB_NAMES, _module_name(module)):
        if name in by_name:
            return by_name[name]
    raise SourceRejected(
        f"this repository has several programs, and nothing says which one is web: {', '.join(sorted(by_name))}",
        hint=f"Add a file named Procfile with a line like: web: {min(by_name)}",
    )


def _is_process_type(name: str) -> bool:
    try:
        return bool(process_type(name))
    except InvalidInput:
        return False


def _version(source: Source, settings: Settings) -> tuple[str, str]:
    """The toolchain's series and which file decided it. Raises SourceRejected for one that cannot be had."""
    default = settings.versions[0] if settings.versions else ""
    asked = _asked(source, settings)
    if asked is None:
        return default, f"Go {default}, the default: no file asks for one"
    where, series, line = asked
    if series in settings.versions or not settings.versions:
        return series, f"{where}: {line}, so Go {series} in its newest patch release"
    oldest = min(settings.versions, key=_numbers)
    if _numbers(series) < _numbers(oldest) and where != "setting":
        return default, f"{where}: {line}, which newer toolchains build too: Go {default}"
    raise SourceRejected(
        f"{where} asks for Go {series} ({shown(line)}), which cannot be had here",
        hint=f"There are: {', '.join(settings.versions)}. Ask for one of them.",
    )


def _asked(source: Source, settings: Settings) -> tuple[str, str, str] | None:
    """Where a version is asked for, its series, and the words."""
    if settings.version:
        match = _VERSION.fullmatch(settings.version)
        if match is None:
            raise SourceRejected(f"setting: {shown(settings.version)} is not a version of Go", hint="Write: 1.24")
        return "setting", match[1], settings.version
    texts = [(path, source.read(path) or "") for path in ("go.work", "go.mod")]
    for pattern in (_HEROKU_VERSION, _TOOLCHAIN, _GO_LINE):
        for path, text in texts:
            if match := pattern.search(text):
                return path, match[1], match[0].strip()
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _c_reason(source: Source, folders: dict[str, list[str]], modules: str) -> str:
    if match := _C_MODULES.search(modules):
        return f"go.mod: {match[1]} needs C, so CGO_ENABLED=1 and a larger image with the C library"
    for path in [path for paths in folders.values() for path in paths][:_MOST_READS]:
        if _IMPORT_C.search(_text(source, path)):
            return f'{path} imports "C", so CGO_ENABLED=1 and a larger image with the C library'
    return ""


def _refuse_imports(source: Source, paths: list[str]) -> None:
    for path in paths:
        foreign = [name for name in _IMPORTED.findall(_text(source, path)) if "." in name.partition("/")[0]]
        if foreign:
            raise SourceRejected(
                f"{path} imports {shown(foreign[0])}, and there is no go.mod that says which version",
                hint="Run: go mod init app && go mod tidy; then commit go.mod and go.sum and push again.",
            )


def _dependencies(source: Source, modules: str | None, vendored: bool) -> str:
    if vendored:
        return "vendor/modules.txt: dependencies come from vendor/, nothing is fetched"
    if "go.sum" in source.files:
        return "go.sum: modules are fetched once and kept in the app's cache"
    return "no go.sum: nothing to fetch" if modules is not None else "no go.mod: only the standard library"


def _commands(programs: list[_Program], settings: Settings, *, makes_module: bool) -> list[str]:
    made = ["go mod init app"] if makes_module else []
    made += [settings.install_command] if settings.install_command else []
    if settings.build_command:
        return [*made, settings.build_command]
    # Those that Go names as we do are built by one call, which is quicker than one for each.
    together = [p.package for p in programs if p.folder.rpartition("/")[2] == p.name]
    named = [f"-o bin/{p.name} {p.package}" for p in programs if p.package not in together]
    targets = [*named, *([f"-o bin/ {' '.join(together)}"] if together else [])]
    return [*made, " && ".join(f"go build -ldflags='-s -w' {target}" for target in targets)]
