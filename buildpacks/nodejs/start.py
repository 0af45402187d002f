"""What runs: a server with its command, or a built site that is served as files; and which file decided it."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from paasd.build.plan import Settings, Source
from paasd.errors import SourceRejected

from .frameworks import Framework
from .manifest import Manifest, Package

_DEVELOPMENT = re.compile(
    r"(?:(?:cross-env\s+)?(?:\w+=\S*\s+)*)(?:npx\s+)?(?:react-scripts start|vue-cli-service serve|ng s(?:erve)?\b"
    r"|gatsby (?:develop|serve)|astro(?: dev| preview|$)|vite(?: dev| serve| preview| -|$)|next dev|nuxi? "
    r"|nuxt(?: dev| preview|$)|webpack(?:-dev-server| serve)|parcel(?! build)|docusaurus (?:start|serve)"
    r"|vitepress (?:dev|preview)|remix dev|react-router dev|ember s|(?:eleventy|hexo).*serve).*"
)
_FILE_SERVER = re.compile(r"(?:npx\s+)?(?:serve|http-server|sirv)\s.*")
_RUNS_SCRIPT = re.compile(r"(?:npm|yarn|pnpm|bun)\s+(?:run(?:-script)?\s+)?(?:-s\s+|--silent\s+)?([\w:.-]+)")
_NODEMON = re.compile(r"nodemon(?:\s+--?\w\S*)*\s+(\S+\.[cm]?js)")
_SERVER_FILES = ("server", "index", "app", "main", "src/index", "src/server", "src/app", "src/main")
_BUILT = re.compile(r"(?:\./)?(?:dist|build|lib|out)\b")
_SIMPLE = re.compile(r"(?!exec |cd )[\w./@-][^;&|<>()`\n]*")
_ASSIGNS = re.compile(r"\w+=")
_WORD = re.compile(r"@?[\w.-]+(?:/[\w.-]+)?")
_NO_PACKAGES = {"node", "npm", "npx", "yarn", "pnpm", "bun", "run", "start", "build", "dist", "src", "index.js"}
_BINARIES = {
    "tsc": "typescript",
    "nest": "@nestjs/cli",
    "babel-node": "@babel/node",
    "remix-serve": "@remix-run/serve",
    "react-router-serve": "@react-router/serve",
    "dotenv": "dotenv-cli",
    "strapi": "@strapi/strapi",
    "medusa": "@medusajs/cli",
}


@dataclass(frozen=True)
class Start:
    reasons: tuple[str, ...]
    command: str = ""
    """Of `web`; empty when the Procfile has it, and for a site."""
    site: str = ""
    """Folder to serve; "." is the root."""
    spa: bool = False
    texts: tuple[str, ...] = field(default=())
    """All that is run at run time, as far as it can be known: commands and the scripts they run."""
    framework: bool = False
    """Whether the framework's own command was taken."""


def find_start(
    source: Source, settings: Settings, manifest: Manifest, framework: Framework | None, builds: bool
) -> Start:
    """`builds`: whether a build makes files that are not in the repository. Raises SourceRejected."""
    root = manifest.root
    procfile = source.read("Procfile") or ""
    if settings.output_dir:
        spa = framework is not None and framework.spa
        return Start(
            (f"{settings.output_dir}: set as the folder of the built site",), site=settings.output_dir, spa=spa
        )
    if settings.start_command:
        return _server(root, procfile, settings.start_command, "start command: set for this app")
    if settings.process_types is not None and "web" in settings.process_types:
        return Start((), texts=tuple(_texts(root, procfile)))
    found = (
        _script(source, root, framework)
        or _of_framework(root, framework)
        or _file(source, root, builds)
        or _in_workspace(manifest)
        or _page(source, builds)
    )
    if isinstance(found, Start):
        return found
    if found is not None:
        return _server(root, procfile, *found)
    raise SourceRejected(
        "package.json does not say how to start this app: no Procfile, no start script, no main, and none of "
        + ", ".join(f"{name}.js" for name in _SERVER_FILES[:4]),
        hint='Add a Procfile with a line such as `web: node server.js`, or "scripts": {"start": "node server.js"} to '
        "package.json. If the build makes a static site, set its folder as output directory.",
    )


def development_needed(start: Start, manifest: Manifest) -> str:
    """The development dependency that what runs names, if there is one."""
    development = {name for package in manifest.packages for name in package.development}
    for word in (word for text in start.texts for word in _WORD.findall(text)):
        for name in (word, word.partition("/")[0], _BINARIES.get(word, "")):
            if name in development and name not in _NO_PACKAGES:
                return name
    return ""


def _server(root: Package, procfile: str, command: str, reason: str) -> Start:
    return Start((reason,), _exec(command), texts=tuple(_texts(root, f"{procfile}\n{command}")))


def _exec(command: str) -> str:
    """In place of the shell where that is possible: a shell does not hand signals on to what it runs."""
    if not _SIMPLE.fullmatch(command):
        return command
    return f"exec env {command}" if _ASSIGNS.match(command) else f"exec {command}"


def _texts(root: Package, text: str) -> Iterator[str]:
    """`text` and the scripts it runs, and those that they run."""
    seen: set[str] = set()
    pending = [text]
    while pending:
        text = pending.pop()
        yield text
        for name in _RUNS_SCRIPT.findall(text):
            for script in (f"pre{name}", name):
                if script in root.scripts and script not in seen:
                    seen.add(script)
                    pending.append(root.scripts[script])


def _script(source: Source, root: Package, framework: Framework | None) -> tuple[str, str] | None:
    for name in ("start", "start:prod", "start:production", "serve:prod"):
        text = _followed(root, root.scripts.get(name, ""))
        if not text or _is_beaten(text, framework):
            continue
        if match := _NODEMON.fullmatch(text):
            return f"node {match[1]}", f"package.json: the {name} script is `{text}`; here it runs without nodemon"
        if before := root.scripts.get(f"pre{name}"):
            text = f"{{ {before}; }} && {text}"
        return text, f"package.json: the {name} script starts the app"
    return None


def _followed(root: Package, text: str) -> str:
    """What a script that only runs another one really runs."""
    for _ in range(5):
        match = _RUNS_SCRIPT.fullmatch(text)
        if match is None or match[1] not in root.scripts or f"pre{match[1]}" in root.scripts:
            break
        text = root.scripts[match[1]]
    return text


def _is_beaten(text: str, framework: Framework | None) -> bool:
    if framework is None or not (framework.command or framework.site):
        return False
    if _DEVELOPMENT.fullmatch(text) or (framework.site and _FILE_SERVER.fullmatch(text)):
        return True
    return bool(framework.replaces) and re.fullmatch(framework.replaces, text) is not None


def _of_framework(root: Package, framework: Framework | None) -> Start | None:
    if framework is None or not (framework.command or framework.site):
        return None
    if framework.command:
        reason = f"package.json: {framework.title}, started with `{framework.command}`"
        texts = tuple(_texts(root, framework.command))
        return Start((reason,), _exec(framework.command), texts=texts, framework=True)
    fallback = "; index.html answers for paths that are no files" if framework.spa else ""
    reason = f"package.json: {framework.title} builds a site in {framework.site}/, served as files{fallback}"
    return Start((reason,), site=framework.site, spa=framework.spa, framework=True)


def _file(source: Source, root: Package, builds: bool) -> tuple[str, str] | None:
    main = posixpath.normpath(root.text("main")) if root.text("main") else ""
    for path in (main, f"{main}.js", f"{main}/index.js") if main else ():
        if path in source.files or (builds and path == main and _BUILT.match(main)):
            return f"node {shlex.quote(path)}", f"package.json: main is {main}"
    for stem in _SERVER_FILES:
        for path in (f"{stem}.js", f"{stem}.mjs", f"{stem}.cjs"):
            if path in source.files:
                return f"node {path}", f"{path}: run as it is"
    for runner in ("tsx", "ts-node"):
        typed = [f"{stem}.ts" for stem in _SERVER_FILES if f"{stem}.ts" in source.files]
        if runner in root.dependencies and typed:
            return f"{runner} {typed[0]}", f"{typed[0]}: run with {runner}"
    return None


def _in_workspace(manifest: Manifest) -> tuple[str, str] | None:
    able = [package for package in manifest.workspaces if "start" in package.scripts]
    if len(able) != 1:
        return None
    folder = shlex.quote(able[0].folder)
    command = f"cd {folder} && PATH=$PWD/node_modules/.bin:$PATH && {able[0].scripts['start']}"
    return command, f"{able[0].path}: the only workspace with a start script"


def _page(source: Source, builds: bool) -> Start | None:
    for folder in ("public", "."):
        page = posixpath.normpath(f"{folder}/index.html")
        if builds and page in source.files:
            return Start((f"{page} and a build script, but no server: served as files",), site=folder)
    return None
