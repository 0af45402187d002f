"""Which version of Node.js a repository gets. What package.json's `engines.node` allows is the frame; a pin of
`.nvmrc`, `.node-version`, `.tool-versions` or volta chooses within it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from semantic_version import NpmSpec, Version

from paasd.build.plan import Settings, Source
from paasd.errors import SourceRejected
from paasd.names import shown

from .manifest import Package

_OLDEST = 14
# First letters rise with the versions; a codename that is not known yet is refused with the list.
_CODENAMES = {"fermium": "14", "gallium": "16", "hydrogen": "18", "iron": "20", "jod": "22", "krypton": "24"}
_EXACT = re.compile(r"v?(\d+(?:\.\d+){0,2})")
_WORD = re.compile(r"(?:lts|stable|current|node|latest|\*|x)?", re.IGNORECASE)
_MINORS = range(60, -1, -1)


def node_version(source: Source, root: Package | None, settings: Settings) -> tuple[str, str]:
    """The version and the line for the build log. Raises SourceRejected for what cannot be had."""
    had = settings.versions
    if settings.version:
        version = _chosen("the setting for the version", settings.version, had)
        return version, f"Node.js {version}: set for this app"
    engines = root.table("engines").get("node", "").strip() if root else ""
    for name, text in _pins(source, root):
        version = _chosen(name, text, had)
        if not engines or _allows(engines, version):
            return version, f"Node.js {version}: {name} says {shown(text)}"
        allowed = _chosen("engines.node in package.json", engines, had)
        return allowed, (
            f"Node.js {allowed}: engines.node in package.json is {shown(engines)}; {name} ({shown(text)}) is outside"
        )
    if engines:
        version = _chosen("engines.node in package.json", engines, had)
        return version, f"Node.js {version}: engines.node in package.json is {shown(engines)}"
    return had[0], f"Node.js {had[0]}, the default; engines.node in package.json or .nvmrc may name another"


def _pins(source: Source, root: Package | None) -> Iterator[tuple[str, str]]:
    for name in (".nvmrc", ".node-version"):
        if text := _first_line(source.read(name)):
            yield name, text
    if match := re.search(r"^nodejs\s+(\S+)", source.read(".tool-versions") or "", re.MULTILINE):
        yield ".tool-versions", match[1]
    if root and (pinned := root.table("volta").get("node")):
        yield "volta.node in package.json", pinned


def _first_line(text: str | None) -> str:
    lines = [line.partition("#")[0].strip() for line in (text or "").splitlines()]
    return next((line for line in lines if line), "")


def _chosen(name: str, asked: str, had: Sequence[str]) -> str:
    text = asked.strip().lower().removeprefix("node@").removeprefix("node/")
    if text.startswith("lts/"):
        text = _CODENAMES.get(text[4:], "lts" if text[4:] in ("*", "") else "?")
    if _WORD.fullmatch(text):
        return had[0]
    if match := _EXACT.fullmatch(text):
        return _exact(match[1], had) or _refuse(name, asked, had)
    return _of_range(text, had) or _refuse(name, asked, had)


def _exact(version: str, had: Sequence[str]) -> str:
    """npm has every patch level, so a pin is met exactly."""
    newest = max(int(v) for v in had)
    return version if _OLDEST <= int(version.partition(".")[0]) <= newest else ""


def _of_range(text: str, had: Sequence[str]) -> str:
    """The default if it is allowed, else the newest of the listed series, else of all; the whole series if possible."""
    spec = _spec(text)
    if spec is None:
        return ""
    newest = max(int(v) for v in had)
    others = [str(major) for major in range(newest, _OLDEST - 1, -1) if str(major) not in had]
    for major in (*had, *others):
        if spec.match(Version(f"{major}.999.999")):
            return major
    for major in (*had, *others):
        for minor in _MINORS:
            if spec.match(Version(f"{major}.{minor}.999")):
                return f"{major}.{minor}"
    named = [Version(found) for found in re.findall(r"\d+\.\d+\.\d+", text)]
    exact = max((version for version in named if spec.match(version) and _exact(str(version), had)), default=None)
    return str(exact or "")


def _allows(engines: str, version: str) -> bool:
    """Whether `version`, or for a series some patch level of it, is allowed."""
    spec = _spec(engines)
    if spec is None:
        return True
    numbers = version.split(".")
    if len(numbers) == 3:
        return bool(spec.match(Version(version)))
    if len(numbers) == 2:
        return any(spec.match(Version(f"{version}.{patch}")) for patch in (0, 999))
    return any(spec.match(Version(f"{version}.{minor}.999")) for minor in (999, *_MINORS))


def _spec(text: str) -> NpmSpec | None:
    """None for what is no range. npm allows spaces and a `v` that the library does not."""
    text = re.sub(r"([<>=~^])\s+(?=[v\d*x])", r"\1", text.replace(",", " ").lower())
    text = re.sub(r"(^|[\s<>=~^])v(?=\d)", r"\1", text)
    text = re.sub(r"~>\s*", "~", text).replace("||", " || ")
    try:
        return NpmSpec(" ".join(text.split()))
    except ValueError:
        return None


def _refuse(name: str, asked: str, had: Sequence[str]) -> str:
    raise SourceRejected(
        f"{name} asks for Node.js {shown(asked)}, which cannot be had here",
        hint=f"There are {', '.join(sorted(had, key=int, reverse=True))}, and every release of them such as 22.11.0, "
        f"back to {_OLDEST}; ask for one of these.",
    )
