"""What a repository's own Dockerfile may not do, since the engine would do it with the host's eyes or another app's
files. Variables are refused where their value would decide."""

from __future__ import annotations

import re

from paasd.errors import SourceRejected
from paasd.models import shown

_CONTINUED = re.compile(r"\\[ \t]*\r?\n")
_ADD = re.compile(r"^\s*(?:ONBUILD\s+)?ADD\s", re.IGNORECASE)
_REMOTE = re.compile(r"://|git@|\$")
_CACHE_ID = re.compile(r"--mount=\S*\bid=(?:paasd-|\S*\$)", re.IGNORECASE)
_IMAGE = re.compile(r"(?:^\s*FROM\s+(?:--\S+\s+)*|--from=|--mount=\S*\bfrom=)([^\s,]+)", re.IGNORECASE)


def check(text: str, label: str) -> None:
    """Raises SourceRejected naming the instruction. `label` is the prefix of the images of this paasd's apps."""
    for line in _CONTINUED.sub(" ", text).splitlines():
        if _ADD.match(line) and _REMOTE.search(line):
            raise SourceRejected(
                f"the Dockerfile adds a remote file, which the engine would fetch with the host's eyes: {shown(line)}",
                hint="Fetch it in a RUN instruction instead, for example with curl or wget.",
            )
        if _CACHE_ID.search(line):
            raise SourceRejected(
                f"the Dockerfile names a cache that is not its own: {shown(line)}",
                hint="Leave id= out of --mount=type=cache, or use a fixed name that does not begin with paasd-.",
            )
        for image in _IMAGE.findall(line):
            if image.removeprefix("docker.io/").startswith(f"{label}/"):
                raise SourceRejected(
                    f"the Dockerfile uses the image of an app: {shown(image)}",
                    hint="Build on an image of your own, or on paasd/base, paasd/python and the like.",
                )
