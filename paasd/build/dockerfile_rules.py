"""What a repository's own Dockerfile may not do, since the engine would do it with the host's eyes or another app's
files: add remote files, use caches of paasd's own, build on the image of another app.

How a Dockerfile falls into instructions depends on the frontend, its escape character and here-documents. So every
line that any reading could begin an instruction with is judged as one; quotes and escape characters, which flags and
image names may hold anywhere, are taken out first. What an image from elsewhere brings along (ONBUILD) is not seen.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from paasd.errors import SourceRejected
from paasd.names import shown

_CONTINUED = re.compile(r"[\\`]\s*$")
_QUOTES = str.maketrans("", "", "\"'\\`")
_FROM = re.compile(r"\s*(?:ONBUILD\s+)*FROM\s+(?:--\S*\s+)*(\S+)", re.IGNORECASE)
_ADD = re.compile(r"\s*(?:ONBUILD\s+)*ADD\s", re.IGNORECASE)
_WORD = re.compile(r"[^\s,\[\]]+")
_REMOTE = re.compile(r"://|git@|^[\w.-]+@[\w.-]+:|^github\.com/", re.IGNORECASE)
_MOUNT = re.compile(r"--mount=\S*", re.IGNORECASE)
_COPY_FROM = re.compile(r"--from=([^\s,]+)", re.IGNORECASE)
_MOUNT_FROM = re.compile(r"\bfrom=([^\s,]+)", re.IGNORECASE)
_CACHE_ID = re.compile(r"\bid=([^\s,]+)", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(\w+)=(\S*)")
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?:(:?[-+?])([^{}$]*))?\}|\$\{[^{}$]*\}|\$")
_PLATFORM = re.compile(r"(?:TARGET|BUILD)(?:PLATFORM|OS|ARCH|VARIANT)")
_APP_IMAGE = re.compile(r"[^/]+/[a-z][a-z0-9-]*-[0-9a-f]{8}(?:[:@].*)?")
_BUILD_TAG = re.compile(r":b[0-9]+$")
_BASES = "paasd/"
_HUB = ("docker.io/", "index.docker.io/")
_OWN_CACHE = "paasd-"
_UNKNOWN = "\0"
_MAX_VALUES, _MAX_STEPS, _MAX_LENGTH = 200, 20_000, 1000


def check(text: str, label: str) -> None:
    """Raises SourceRejected naming the instruction. `label` is the prefix of the images of this paasd's apps."""
    lines = list(_joined(text))
    variables = _Variables(line for line, _ in lines)
    for line, starts in lines:
        _check_added(line, starts)
        _check_caches(line)
        for image in _images(line, starts, variables):
            if _is_apps(image, label):
                raise SourceRejected(
                    f"the Dockerfile uses the image of an app, or may do so: {shown(image.replace(_UNKNOWN, '$…'))}",
                    hint="Build on an image of your own, or on paasd/base, paasd/python and the like; "
                    "give variables in FROM a default with ARG, and none to --from.",
                )


def _joined(text: str) -> Iterator[tuple[str, list[int]]]:
    """Lines with those that continue them, and the offsets at which each of them begins. Comments and empty lines do
    not end a continuation."""
    parts: list[str] = []
    starts: list[int] = []
    length = 0
    for raw in text.split("\n"):
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        end = _CONTINUED.search(raw)
        part = (raw[: end.start()] if end else raw).translate(_QUOTES)
        parts.append(part)
        starts.append(length)
        length += len(part)
        if not end:
            yield "".join(parts), starts
            parts, starts, length = [], [], 0
    if parts:
        yield "".join(parts), starts


def _check_added(line: str, starts: list[int]) -> None:
    sources = list(_WORD.finditer(line))[:-1]  # the last word is where to
    remote = max((word.start() for word in sources if _may_be_remote(word[0])), default=-1)
    if any(_ADD.match(line, start) for start in starts if start < remote):
        raise SourceRejected(
            f"the Dockerfile adds a remote file, which the engine would fetch with the host's eyes: {shown(line)}",
            hint="Fetch it in a RUN instruction instead, for example with curl or wget. "
            "Begin a file's name that holds a variable with ./",
        )


def _may_be_remote(source: str) -> bool:
    if source.startswith("--"):
        return False
    known, variable, _ = source.partition("$")
    # A variable may become any text, but what has become a path stays one.
    return bool(_REMOTE.search(source)) or (bool(variable) and ("/" not in known or ":" in known or "@" in known))


def _check_caches(line: str) -> None:
    for mount in _MOUNT.findall(line):
        for name in _CACHE_ID.findall(mount):
            known, variable, _ = name.partition("$")
            if known.startswith(_OWN_CACHE) or (variable and _OWN_CACHE.startswith(known)):
                raise SourceRejected(
                    f"the Dockerfile names a cache that is not its own: {shown(line)}",
                    hint="Leave id= out of --mount=type=cache, or use a name that does not begin with paasd-.",
                )


def _images(line: str, starts: list[int], variables: _Variables) -> Iterator[str]:
    for start in starts:
        if found := _FROM.match(line, start):
            yield from variables.replaced(found[1])
    named = _COPY_FROM.findall(line)
    named += [name for mount in _MOUNT.findall(line) for name in _MOUNT_FROM.findall(mount)]
    for name in named:  # Docker expands no variables there, but nobody promised
        known, variable, _ = name.partition("$")
        yield known + (_UNKNOWN if variable else "")


class _Variables:
    """Every value that anything in the file gives a name: more than what ARG does, never less."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._values: defaultdict[str, set[str]] = defaultdict(set)
        self._steps = _MAX_STEPS
        for line in lines:
            for name, value in _ASSIGNMENT.findall(line):
                self._values[name].add(value if len(value) < _MAX_LENGTH else _UNKNOWN)

    def replaced(self, word: str) -> set[str]:
        """What `word` may be once its variables are replaced, with _UNKNOWN for what cannot be told."""
        done: set[str] = set()
        waiting = {word}
        while waiting and len(waiting) < _MAX_VALUES and self._steps:
            self._steps -= 1
            text = waiting.pop()
            if len(text) > _MAX_LENGTH:
                done.add(text.partition("$")[0] + _UNKNOWN)
            elif found := _VARIABLE.search(text):
                rest = text[found.end() :]
                waiting |= {text[: found.start()] + choice + rest for choice in self._choices(found)}
            else:
                done.add(text)
        return done | {text.partition("$")[0] + _UNKNOWN for text in waiting}

    def _choices(self, found: re.Match[str]) -> set[str]:
        name, operator, other = found[1] or found[2], found[3], found[4]
        if not name or _PLATFORM.fullmatch(name):
            return {_UNKNOWN}
        choices = {"", *self._values.get(name, ())}
        return choices | {other} if operator else choices


def _is_apps(image: str, label: str) -> bool:
    """Whether it names an image of an app, of this paasd or another on the engine; the base images are for all."""
    name, unknown, _ = image.partition(_UNKNOWN)
    for hub in _HUB:
        name = name.removeprefix(hub)
    own = f"{label}/"
    if unknown and not re.search(r"/.*[:@]", name):
        return name.startswith(own) or any(f"{hub}{own}".startswith(name) for hub in ("", *_HUB))
    if _APP_IMAGE.fullmatch(name) and (name.startswith((own, _BASES)) or bool(_BUILD_TAG.search(name))):
        return True
    return name.startswith(own) and own != _BASES
