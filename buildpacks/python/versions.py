"""Which Python a repository asks for, and which of those that can be had is taken."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from paasd.build.plan import Settings, Source
from paasd.errors import SourceRejected
from paasd.names import shown

from .documents import pyproject, table, toml

_PIN = re.compile(r"(?:python-|cpython[-@]?|py)?(\d{1,2})(?:\.(\d{1,2}))?(?:\.(\d{1,3}|x|\*))?")
_RANGE = re.compile(r"\s*[<>=!~^]")
_PYTHON_REQUIRES = re.compile(r"python_requires\s*=\s*[\"']([^\"']+)[\"']")
_CARET = re.compile(r"\^\s*(\d+)(?:\.(\d+))?(?:\.\d+)*")
_TILDE = re.compile(r"~\s*(\d+)(?:\.(\d+))?(?:\.\d+)*")
_BARE = re.compile(r"\d+(?:\.\d+)*(?:\.\*)?")
_PATCHES = 40
"""A series is fit for a range when any of its patch levels up to this one is."""


@dataclass(frozen=True)
class Wish:
    origin: str
    """The file and key that says it."""
    text: str


@dataclass(frozen=True)
class Choice:
    version: str
    reason: str


def choose(source: Source, settings: Settings) -> Choice:
    """Raises SourceRejected when what is asked for cannot be had, or when two files contradict each other."""
    pin, limit = next(_pins(source, settings), None), next(_ranges(source), None)
    if pin is not None and _RANGE.match(pin.text):
        pin, limit = None, pin
    if pin is None and limit is None:
        return Choice(settings.versions[0], f"Python {settings.versions[0]}, the default")
    if pin is None:
        assert limit is not None
        return _within(limit, settings)
    choice = _pinned(pin, settings)
    if limit is not None and not _fits(choice.version, _alternatives(limit)):
        raise SourceRejected(
            f"{pin.origin} asks for Python {choice.version}, but {limit.origin} allows only {shown(limit.text)}",
            hint="Make the two agree, then commit and push again.",
        )
    return choice


def _pins(source: Source, settings: Settings) -> Iterator[Wish]:
    """What names one version, in the order in which it is believed."""
    if settings.version:
        yield Wish("the setting version", settings.version.strip())
    for path in (".python-version", "runtime.txt"):
        for line in _lines(source.read(path)):
            yield Wish(path, line)
    for line in _lines(source.read(".tool-versions")):
        name, _, version = line.partition(" ")
        if name == "python" and version.split():
            yield Wish(".tool-versions", version.split()[0])
    requires = table(toml(source, "Pipfile"), "requires")
    for key in ("python_full_version", "python_version"):
        wanted = requires.get(key)
        if isinstance(wanted, str) and wanted != "*":
            yield Wish(f"Pipfile requires.{key}", wanted)


def _ranges(source: Source) -> Iterator[Wish]:
    document = pyproject(source)
    if isinstance(text := table(document, "project").get("requires-python"), str):
        yield Wish("pyproject.toml requires-python", text)
    python: object = table(document, "tool", "poetry", "dependencies").get("python")
    wanted = python.get("version") if isinstance(python, dict) else python
    if isinstance(wanted, str):
        yield Wish("pyproject.toml tool.poetry.dependencies.python", wanted)
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(source.read("setup.cfg") or "")
        yield Wish("setup.cfg python_requires", parser.get("options", "python_requires"))
    except configparser.Error:
        pass
    if match := _PYTHON_REQUIRES.search(source.read("setup.py") or ""):
        yield Wish("setup.py python_requires", match[1])


def _lines(text: str | None) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (text or "").splitlines()]
    return [line for line in lines if line]


def _pinned(wish: Wish, settings: Settings) -> Choice:
    match = _PIN.fullmatch(wish.text)
    if match is None:
        raise SourceRejected(
            f"{wish.origin} says {shown(wish.text)}, which is no version of CPython. {_offer(settings)}",
            hint=f"Write a version there, such as {settings.versions[0]}.",
        )
    major, minor, patch = match.groups()
    if minor is None:
        return _within(Wish(wish.origin, f"=={major}.*"), settings)
    version = f"{major}.{minor}"
    official = version not in settings.versions
    if official and settings.official is None:
        raise _cannot_be_had(wish, settings)
    reason = f"Python {version}, from {wish.origin}"
    if official:
        reason += ", with the official image"
    elif patch and patch.isdigit():
        reason += f" ({version}.{patch}; the patch level is the distribution's)"
    return Choice(version, reason)


def _within(wish: Wish, settings: Settings) -> Choice:
    """The default if it is in the range, else the newest that is."""
    alternatives = _alternatives(wish)
    for version in settings.versions:
        if _fits(version, alternatives):
            return Choice(version, f"Python {version}, in the range of {wish.origin} ({wish.text.strip()})")
    for version in settings.official or ():
        if _fits(version, alternatives):
            return Choice(
                version, f"Python {version}, from {wish.origin} ({wish.text.strip()}), with the official image"
            )
    raise _cannot_be_had(wish, settings)


def _fits(version: str, alternatives: Sequence[SpecifierSet]) -> bool:
    return any(each.contains(f"{version}.{patch}") for each in alternatives for patch in range(_PATCHES))


def _alternatives(wish: Wish) -> list[SpecifierSet]:
    """The range as PEP 440 says it. Poetry also knows `^3.11`, `~3.11`, bare versions and `||`."""
    try:
        return [_specifiers(part) for part in re.split(r"\|\|?", wish.text)]
    except InvalidSpecifier:
        raise SourceRejected(
            f"{wish.origin} says {shown(wish.text)}, which is not a range of versions",
            hint="Write one like >=3.11,<4",
        ) from None


def _specifiers(text: str) -> SpecifierSet:
    parts = [part.strip() for part in re.split(r",|(?<=[\d*])\s+(?=[<>=!~^])", text)]
    return SpecifierSet(",".join(_specifier(part) for part in parts if part not in ("", "*")))


def _specifier(part: str) -> str:
    following: tuple[tuple[re.Pattern[str], Callable[[int, int], str]], ...] = (
        (_CARET, lambda major, minor: f"{major + 1}"),
        (_TILDE, lambda major, minor: f"{major}.{minor + 1}"),
    )
    for pattern, end in following:
        if match := pattern.fullmatch(part):
            no_minor = match[2] is None
            limit = f"{int(match[1]) + 1}" if no_minor else end(int(match[1]), int(match[2]))
            return f">={part.lstrip('^~ ')},<{limit}"
    if _BARE.fullmatch(part):
        return f"=={part}" if part.endswith(".*") or part.count(".") > 1 else f"=={part}.*"
    return part


def _cannot_be_had(wish: Wish, settings: Settings) -> SourceRejected:
    hint = f"Write one of these there: {', '.join(settings.versions)}."
    if settings.official is None:
        hint += " For others, set build.official_images in paasd.toml to a registry that has python:<version>-slim."
    return SourceRejected(f"{wish.origin} asks for Python {shown(wish.text)}. {_offer(settings)}", hint=hint)


def _offer(settings: Settings) -> str:
    beside = f", and with official images {', '.join(settings.official)}" if settings.official else ""
    return f"There are: {', '.join(settings.versions)}{beside}"
