"""Plans a repository that brings its own Dockerfile."""

from __future__ import annotations

import re

from paasd.build.buildkit import pin_frontend
from paasd.build.plan import Plan, Settings, Source
from paasd.models import ProcessType

# A tag may follow, then ` AS <stage>`.
_OUR_BASE = re.compile(
    r"^\s*FROM\s+(?:--\S+\s+)*paasd/([a-z][a-z0-9-]*(?::[A-Za-z0-9._-]+)?)(?=\s|$)", re.IGNORECASE | re.MULTILINE
)


def plan(source: Source, settings: Settings) -> Plan | None:
    path = settings.dockerfile or "Dockerfile"
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
        bases=tuple(dict.fromkeys(name.replace(":", "@") for name in _OUR_BASE.findall(text))),
        target=settings.target,
    )
