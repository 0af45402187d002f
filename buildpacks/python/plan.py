"""Plans the build of a Python app: version, dependencies, what the build does with the code, what runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import SourceRejected
from paasd.models import ProcessType
from paasd.names import shown

from . import dependencies, django, libraries, start, versions
from .dependencies import Dependencies, is_python

_SCRIPTS = ("main.py", "app.py", "server.py")
_OTHERS = ("package.json", "go.mod", "Cargo.toml", "composer.json", "Gemfile", "index.html", "Staticfile")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_CACHES = {"/root/.cache/pip": "pip"}
_MOUNTS = ("type=bind,source=pip.conf,target=/etc/pip.conf",)
_UV_CACHES = {"/root/.cache/uv": "uv"}
_UV_MOUNTS = ("type=bind,source=uv.toml,target=/etc/uv/uv.toml",)
_GENERATED_MOUNT = f"type=bind,source=dependencies.txt,target={dependencies.GENERATED}"
_COLLECTSTATIC = (
    'if [ "${DISABLE_COLLECTSTATIC:-0}" != 0 ]; then echo "DISABLE_COLLECTSTATIC is set: no static files collected"; '
    "else export SECRET_KEY=${SECRET_KEY:-none} DJANGO_SECRET_KEY=${DJANGO_SECRET_KEY:-none} "
    "DATABASE_URL=${DATABASE_URL:-sqlite:////tmp/none.db}; "
    "python %smanage.py collectstatic --noinput || echo 'WARNING: collectstatic failed, so that static files are "
    "missing; the build goes on. Set DISABLE_COLLECTSTATIC=1 to leave it out.'; fi"
)


def plan(source: Source, settings: Settings) -> Plan | None:
    if not _is_ours(source, settings):
        return None
    left_out = tuple(_virtual_environments(source))
    version = versions.choose(source, settings)
    found = dependencies.find(source, settings)
    web = _web(source, settings, found, left_out)
    needs = libraries.needed(found.every)
    steps = tuple(_build_steps(source, settings, found))
    apt = tuple(_packages(settings))
    reasons = [version.reason, *found.reasons]
    reasons += [f"{folder}/ is a virtual environment: left out" for folder in left_out]
    reasons += [f"{name} needs {', '.join(need.run)}" for name, need in needs.items()]
    reasons += [reason for _, reason in steps] + ([web.reason] if web else [])
    build_base = f"python-{found.tool}" if found.tool != "pip" else "python-build"
    return Plan(
        buildpack="python",
        process_types=(ProcessType("web", web.command),) if web else (),
        reasons=tuple(reasons),
        user="10001:10001",
        versions={"python": version.version},
        bases=(f"{build_base}@{version.version}", f"python@{version.version}"),
        packages=tuple(dict.fromkeys([*(name for need in needs.values() for name in need.run), *apt])),
        left_out=left_out,
        values={
            "build_base": build_base,
            "version": version.version,
            "build_packages": list(
                dict.fromkeys([*(name for need in needs.values() for name in (*need.build, *need.run)), *apt])
            ),
            "files": _by_folder(found.files),
            "needs_code": found.needs_code,
            "installs": [*found.steps, *_server_steps(found, web)],
            "changes_code": [command for command, _ in steps] not in ([], [found.app_step]),
            "app_steps": [command for command, _ in steps],
            "dependencies": "".join(f"{line}\n" for line in found.generated),
            "caches": _UV_CACHES if found.tool == "uv" else _CACHES,
            "mounts": [
                *(_UV_MOUNTS if found.tool == "uv" else _MOUNTS),
                *([_GENERATED_MOUNT] if found.generated else []),
            ],
        },
    )


def _is_ours(source: Source, settings: Settings) -> bool:
    scripts = any(path.endswith(".py") and "/" not in path for path in source.files)
    if settings.builder_is_set or is_python(source) or ("Procfile" in source.files and scripts):
        return True
    return any(path in source.files for path in _SCRIPTS) and not any(path in source.files for path in _OTHERS)


def _web(source: Source, settings: Settings, found: Dependencies, left_out: tuple[str, ...]) -> start.Start | None:
    if settings.start_command:
        return start.Start(settings.start_command, "the setting start-command says what web runs")
    return start.find(source, found, left_out) if settings.process_types is None else None


def _server_steps(found: Dependencies, web: start.Start | None) -> Iterator[str]:
    if web and web.server:
        yield f"{'uv pip' if found.tool == 'uv' else 'pip'} install '{start.SERVERS[web.server]}'"


def _build_steps(source: Source, settings: Settings, found: Dependencies) -> Iterator[tuple[str, str]]:
    """Commands that need the code, and why they run."""
    if found.app_step:
        yield found.app_step, "the app itself is installed after every change"
    if settings.build_command:
        yield settings.build_command, "the setting build-command is run"
    elif "django" in found.every and (app := django.find(source, found.direct)) and app.collects_static:
        note = "" if "whitenoise" in found.every else "; to have them served, add whitenoise"
        place = f"{app.folder}/" if app.folder else ""
        yield _COLLECTSTATIC % place, f"STATIC_ROOT is set: manage.py collectstatic is run{note}"


def _packages(settings: Settings) -> Iterator[str]:
    for name in settings.packages:
        if not _PACKAGE.fullmatch(name):
            raise SourceRejected(
                f"{shown(name)} is no name of a package of the distribution", hint="Mend the list of packages."
            )
        yield name


def _virtual_environments(source: Source) -> Iterator[str]:
    """Names of folders that somebody committed: they hold paths and binaries of another machine."""
    roots = [path.removesuffix("pyvenv.cfg") for path in source.files if path.endswith("/pyvenv.cfg")]
    for name in sorted({root.split("/")[-2] for root in roots}):
        bearing = (path for path in source.files if f"/{name}/" in f"/{path}")
        if all(path.startswith(tuple(roots)) for path in bearing):  # no code is called like it
            yield name


def _by_folder(files: tuple[str, ...]) -> dict[str, list[str]]:
    """Files with what they have to be copied to."""
    found: dict[str, list[str]] = {}
    for path in files:
        folder = path.rpartition("/")[0]
        found.setdefault(f"/app/{folder}/" if folder else "/app/", []).append(f"app/{path}")
    return found
