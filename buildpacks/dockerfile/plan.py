"""Plans a repository that brings its own Dockerfile."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paasd.build.buildkit import pin_frontend
from paasd.build.buildpacks import Source
from paasd.models import Plan, ProcessType

# ` AS <stage>` and a tag may follow; the suite in the tag is the author's choice.
_OUR_BASE = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*paasd/([a-z][a-z0-9-]*)(?=[\s:]|$)", re.IGNORECASE | re.MULTILINE)


def plan(source: Source, settings: Mapping[str, str]) -> Plan | None:
    path = settings.get("dockerfile", "Dockerfile")
    text = source.read(path)
    if text is None:
        return None
    pin_frontend(text)  # a foreign frontend is refused before anything is built
    return Plan(
        buildpack="dockerfile",
        dockerfile=path,
        process_types=(ProcessType("web", None),),
        reasons=(f"{path}: built as it is; web runs its CMD and must listen on $PORT",),
        in_repository=True,
        bases=tuple(dict.fromkeys(_OUR_BASE.findall(text))),
    )
