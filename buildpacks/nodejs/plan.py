"""Plans the build of a Node.js app: version, package manager, build, and what runs or is served."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import SourceRejected
from paasd.models import ProcessType
from paasd.names import shown

from . import frameworks
from .frameworks import Framework
from .managers import PackageManager, choose
from .manifest import Manifest, Package, install_files, read_manifest
from .start import Start, development_needed, find_start
from .versions import node_version

_NGINX = "exec nginx -e stderr -c /etc/nginx/paasd.conf"
_NODE_PROCFILE = re.compile(r"^\w+:\s*(?:\w+=\S*\s+)*node\s", re.MULTILINE)
_FOLDER = re.compile(r"[A-Za-z0-9_.@][A-Za-z0-9_.@/-]*")
_LEFT_OUT = ("node_modules", ".pnp.cjs", ".pnp.data.json", ".pnp.loader.mjs")
_MOUNTS = (
    "type=bind,source=npmrc,target=/root/.npmrc",
    "type=bind,source=yarnrc.yml,target=/root/.yarnrc.yml",
)


def plan(source: Source, settings: Settings) -> Plan | None:
    manifest = read_manifest(source)
    if manifest is None:
        if not (settings.builder_is_set or _procfile_runs_node(source)):
            return None
        manifest = Manifest(Package("", {}), ())
    elif not settings.builder_is_set and _is_a_page(source, settings, manifest.root):
        return None
    version, why = node_version(source, manifest.root, settings)
    manager = choose(source, manifest.root)
    framework = frameworks.find(source, manifest.root)
    build, build_reasons = _build(source, settings, manifest, manager, framework)
    start = find_start(source, settings, manifest, framework, bool(build))
    made = _Parts(source, settings, manifest, manager, framework, start, build)
    return Plan(
        buildpack="nodejs",
        process_types=_process_types(settings, start),
        reasons=(why, *made.install_reasons, *build_reasons, *start.reasons, *made.reasons),
        versions={"node": version, **({manager.name: manager.version} if manager.version else {})},
        user="10001:10001",
        bases=(f"nodejs-build@{version}", "static" if start.site else f"nodejs@{version}"),
        packages=settings.packages,
        files=("nginx.conf",) if start.site else (),
        left_out=_LEFT_OUT,
        values=made.values(),
    )


def _procfile_runs_node(source: Source) -> bool:
    scripts = any(path.endswith((".js", ".mjs", ".cjs")) for path in source.files)
    return scripts and _NODE_PROCFILE.search(source.read("Procfile") or "") is not None


def _is_a_page(source: Source, settings: Settings, root: Package) -> bool:
    """A static site whose package.json only brings tools."""
    page = {"index.html", "public/index.html", "Staticfile"} & source.files
    runs = {"start", "build", "heroku-postbuild", "start:prod"} & root.scripts.keys()
    wanted = settings.build_command or settings.start_command or settings.process_types is not None
    return bool(page) and not runs and not wanted and not root.needed and frameworks.find(source, root) is None


def _process_types(settings: Settings, start: Start) -> tuple[ProcessType, ...]:
    if start.site:
        return (ProcessType("web", _NGINX),)
    return (ProcessType("web", start.command),) if start.command else ()


def _build(
    source: Source, settings: Settings, manifest: Manifest, manager: PackageManager, framework: Framework | None
) -> tuple[str, tuple[str, ...]]:
    """The command that builds, and why."""
    scripts = manifest.root.scripts
    if settings.build_command:
        return settings.build_command, (f"build: `{settings.build_command}`, set for this app",)
    for name in ("heroku-postbuild", "build"):
        if name in scripts:
            return manager.run(name), (f"build: the script {name} of package.json",)
    everywhere = manager.run_everywhere("build")
    if everywhere and any("build" in package.scripts for package in manifest.workspaces):
        return everywhere, ("build: the build scripts of the workspaces",)
    if framework and framework.build and not _has_web(settings):
        return framework.build, (f"build: `{framework.build}`, because package.json has {framework.title}",)
    if "typescript" in manifest.root.dependencies and "tsconfig.json" in source.files and _wants_built(manifest.root):
        return "tsc", ("build: `tsc`, because what starts is made from TypeScript and there is no build script",)
    return "", ()


def _has_web(settings: Settings) -> bool:
    return settings.process_types is not None and "web" in settings.process_types


def _wants_built(root: Package) -> bool:
    return re.search(r"\b(?:dist|build|out|lib)/", f"{root.scripts.get('start', '')} {root.text('main')}/") is not None


_ON_INSTALL = {"preinstall", "install", "postinstall", "prepare", "prepublish"}


class _Parts:
    """What the Dockerfile is rendered from."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        manifest: Manifest,
        manager: PackageManager,
        framework: Framework | None,
        start: Start,
        build: str,
    ) -> None:
        self._settings = settings
        self._manager = manager
        self._start = start
        self._build = build
        self._framework = framework
        self._prebuild = manager.run("heroku-prebuild") if "heroku-prebuild" in manifest.root.scripts else ""
        self._installs = manifest.installs() or bool(settings.install_command)
        why_all = "a heroku-prebuild script" if self._prebuild else ""
        why_all = why_all or ("the install command was set for this app" if settings.install_command else "")
        self._files = install_files(source, manifest, manager.lockfile, why_all)
        self._bundle = framework.bundle if framework and start.framework and not start.site else ()
        self._kept = development_needed(start, manifest) if manifest.develops() else ""
        self._prunes = self._installs and manifest.develops() and not self._kept and bool(manager.prune)
        # Scripts of packages being installed may call what only development needs.
        scripts = {name for package in manifest.packages for name in package.scripts}
        needed = build or self._prebuild or settings.tests or settings.install_command or _ON_INSTALL & scripts
        self._lean = bool(self._prunes and manager.install_lean and not needed)
        # Everything else that installing leaves in /app came from the repository, and does so again.
        alone = self._files.folders.keys() == {""} and not self._files.trees
        self._only_modules = alone and manager.keeps_to_modules and bool(manifest.root.table("dependencies"))
        self._committed = any(path.startswith("node_modules/") or "/node_modules/" in path for path in source.files)

    @property
    def install_reasons(self) -> tuple[str, ...]:
        if not self._installs:
            return ("package.json names no packages: nothing to install",)
        lines = [*self._manager.reasons]
        if self._settings.install_command:
            lines = [f"install: `{self._settings.install_command}`, set for this app"]
        if self._files.why_all:
            lines.append(f"packages are installed again after every change: {self._files.why_all}")
        return tuple(lines)

    @property
    def reasons(self) -> tuple[str, ...]:
        lines = []
        if self._committed:
            lines.append("node_modules in the repository is ignored: packages are installed for this system")
        if self._kept:
            lines.append(f"{self._kept} is a development dependency and needed to run: all of them are kept")
        return tuple(lines)

    def values(self) -> Mapping[str, Any]:
        site = self._start.site and _folder(self._start.site)
        return {
            "manager": self._manager.package,
            "manager_runs": self._manager.package if self._runs_manager() else "",
            "env": dict(self._manager.env),
            "whole": bool(self._files.why_all),
            "manifests": {f: list(paths) for f, paths in self._files.folders.items()} if self._installs else {},
            "trees": list(self._files.trees) if self._installs else [],
            "prebuild": self._prebuild,
            "install": self._install,
            "prune": self._manager.prune if self._prunes and not self._lean else "",
            "package_caches": self._manager.caches,
            "mounts": list(_MOUNTS),
            "build": self._build,
            "build_caches": self._caches(),
            "collect": self._collect(site) if self._build else "",
            "has_packages": self._installs and not self._bundle,
            "only_modules": self._only_modules,
            "run_env": dict(self._framework.env) if self._framework else {},
            "site": site,
            "spa": self._start.spa,
        }

    @property
    def _install(self) -> str:
        if not self._installs:
            return ""
        usual = self._manager.install_lean if self._lean else self._manager.install
        return self._settings.install_command or usual

    def _runs_manager(self) -> bool:
        names = {"npm": "npm|npx", "yarn": "yarn", "pnpm": "pnpm|pnpx", "bun": "bun|bunx"}[self._manager.name]
        return any(re.search(rf"(?:^|[\s;&|(:])(?:{names})\s", text) for text in self._start.texts)

    def _caches(self) -> dict[str, str]:
        folders = ["node_modules/.cache", *(self._framework.caches if self._framework else ())]
        if self._start.site in folders:  # it would be empty once the step is over
            folders.remove(self._start.site)
        return {f"/app/{folder}": re.sub(r"[^a-z]+", "-", folder.lower()).strip("-") for folder in folders}

    def _collect(self, site: str) -> str:
        """Puts what the run stage takes into /out."""
        if site:
            return _copy(site, ".")
        if self._bundle:
            return "; ".join(_copy(folder, target, optional=target == "public") for folder, target in self._bundle)
        caches = " ".join(f"-o -path {shlex.quote('./' + path.removeprefix('/app/'))}" for path in self._caches())
        # What a build writes into node_modules (Prisma's client) is laid over the pruned packages.
        return (
            rf"{{ find . \( -name node_modules {caches} \) -prune -o -print0;"
            " find . -path '*/node_modules/*' -cnewer /tmp/installed ! -path '*/.cache/*' ! -path '*/.vite/*'"
            r" \( -type f -o -type l \) -print0; } | tar --null --no-recursion -T - -cf - | tar -xf - -C /out"
        )


def _copy(folder: str, target: str, *, optional: bool = False) -> str:
    quoted, into = shlex.quote(folder), shlex.quote(f"/out/{target}")
    missing = "true" if optional else f"{{ echo 'the build made no folder' {quoted} >&2; exit 1; }}"
    leave_out = (
        " --exclude=./node_modules --exclude=./package.json --exclude=./package-lock.json" if folder == "." else ""
    )
    copy = f"mkdir -p {into}; tar -C {quoted}{leave_out} -cf - . | tar -xf - -C {into}"
    return f"if [ -d {quoted} ]; then {copy}; else {missing}; fi"


def _folder(folder: str) -> str:
    plain = folder.strip("/").removeprefix("./") or "."
    if not _FOLDER.fullmatch(plain) or ".." in plain.split("/"):
        raise SourceRejected(f"the output directory {shown(folder)} is not a plain folder of the repository")
    return plain
