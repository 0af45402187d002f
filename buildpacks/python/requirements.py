"""requirements.txt with the files it includes: which files they are, and which packages they name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from paasd.build.plan import Source

from .documents import package

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)")
_LOCAL = re.compile(
    r"(?:-e\s|--editable|\.|/|file:|--find-links\s+[^h]|-f\s+[^h])|\S+\s*@\s*file:|\S+\.(?:whl|tar\.gz|zip)$"
)


class Requirements:
    def __init__(self, source: Source, path: str) -> None:
        self.files: list[str] = []
        self.names: set[str] = set()
        self.needs_code = False
        """Whether a requirement is a part of the repository."""
        self._read(source, path)
        self.files.sort()

    def _read(self, source: Source, path: str) -> None:
        text = source.read(path)
        if path in self.files or text is None:
            return
        self.files.append(path)
        for line in _lines(text):
            if include := _INCLUDE.match(line):
                self._include(source, path, include[1])
            elif _LOCAL.match(line):
                self.needs_code = True
            elif name := package(line):
                self.names.add(name)

    def _include(self, source: Source, path: str, included: str) -> None:
        folder = path.rpartition("/")[0]
        target = f"{folder}/{included}" if folder else included
        if included.startswith(("http://", "https://")):
            return
        parts = target.split("/")
        while ".." in parts[1:]:  # requirements/prod.txt includes ../requirements.txt
            place = parts.index("..", 1)
            del parts[place - 1 : place + 1]
        target = "/".join(part for part in parts if part != ".")
        if not _PLAIN_PATH.fullmatch(target) or ".." in parts or target not in source.files:
            self.needs_code = True
            return
        self._read(source, target)


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        if cleaned := re.sub(r"(?:^|\s)#.*", "", line).strip():
            yield cleaned
