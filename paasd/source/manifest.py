"""What the files in a repository say, put together: Procfile, app.json, then the files of other platforms."""

from __future__ import annotations

from collections.abc import Callable

from paasd.build_settings import checked
from paasd.errors import InvalidInput, SourceRejected
from paasd.models import Manifest, Setting
from paasd.source import app_json, imports, procfile

APTFILE = "Aptfile"


def read_manifest(read: Callable[[str], str | None]) -> Manifest:
    """`read` gives the text of a file, None when there is none. Raises SourceRejected naming file and key."""
    text = read("Procfile")
    own = app_json.parse(read(app_json.FILE))
    settings: dict[str, Setting] = {}
    checks, unused = dict(own.healthchecks), list(own.unused)
    for name, found in _files(read, own):
        for key, (value, where) in found.settings.items():
            try:
                settings.setdefault(key, Setting(checked(key, value), f"{name} {where}"))
            except InvalidInput as error:
                raise SourceRejected(f"{name} {where}: {error.detail}", hint=error.hint) from error
        checks = {**found.checks, **checks}
        unused += found.unused
    return Manifest(
        process_types=None if text is None else procfile.parse(text),
        healthchecks=checks,
        settings=settings,
        config_vars=own.config_vars,
        kept=own.kept,
        unused=tuple(unused),
    )


def _files(read: Callable[[str], str | None], own: app_json.AppJson) -> list[tuple[str, imports.Import]]:
    """In the order in which they decide."""
    first = imports.Import()
    imports.choose(list(own.buildpacks), "buildpacks", app_json.FILE, first)
    first.take("test-command", own.test_command, "scripts.test")
    found = [(app_json.FILE, first)]
    if (text := read(APTFILE)) is not None:
        packages = imports.Import()
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        names = [line for line in lines if line and not line.startswith((":", "http"))]
        packages.unused += [f"{APTFILE}: {line}" for line in lines if line.startswith((":", "http"))]
        packages.take("packages", " ".join(names), "lines")
        found.append((APTFILE, packages))
    for name in imports.FILES:
        if (text := read(name)) is not None:
            found.append((name, imports.read(name, text)))
    return found
