"""What frameworks make of a build: a server with a command of its own, or a site to be served as files."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from paasd.build.plan import Source
from paasd.errors import SourceRejected

from .manifest import Package

_SUFFIXES = (".js", ".mjs", ".cjs", ".ts", ".mts")
_FOLDER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./-]*")


@dataclass(frozen=True)
class Framework:
    title: str
    build: str
    """Used when there is no build script."""
    command: str = ""
    """Starts its server."""
    site: str = ""
    """Folder of the site it builds, when there is no server."""
    spa: bool = False
    """Whether every path is the app's own, so that index.html answers for paths that are no files."""
    env: Mapping[str, str] = field(default_factory=dict)
    """For running."""
    caches: tuple[str, ...] = ()
    """Folders kept between builds."""
    bundle: tuple[tuple[str, str], ...] = ()
    """All that is needed at run time: folder → where it goes. Empty: the whole app with its packages."""
    replaces: str = ""
    """Start scripts (a pattern) that `command` or `site` is better than."""


_EVERYWHERE = {"HOST": "0.0.0.0"}
_SITES = {
    "gatsby": Framework("Gatsby", "gatsby build", site="public", caches=(".cache", "public")),
    "react-scripts": Framework("Create React App", "react-scripts build", site="build", spa=True),
    "@vue/cli-service": Framework("Vue CLI", "vue-cli-service build", site="dist", spa=True),
    "@docusaurus/core": Framework("Docusaurus", "docusaurus build", site="build"),
    "vitepress": Framework("VitePress", "vitepress build", site=".vitepress/dist"),
    "@11ty/eleventy": Framework("Eleventy", "eleventy", site="_site"),
    "ember-cli": Framework("Ember", "ember build --environment=production", site="dist", spa=True),
    "preact-cli": Framework("Preact CLI", "preact build", site="build", spa=True),
    "hexo": Framework("Hexo", "hexo generate", site="public"),
    "parcel": Framework("Parcel", "parcel build", site="dist", caches=(".parcel-cache",)),
}


def find(source: Source, package: Package) -> Framework | None:
    """The framework that the package's dependencies name. Raises SourceRejected for one that cannot run here."""
    for name, finder in _FINDERS.items():
        if name in package.dependencies and (found := finder(source, package)):
            return found
    return next((found for name, found in _SITES.items() if name in package.dependencies), None)


def _next(source: Source, package: Package) -> Framework:
    config = _config(source, package, "next.config")
    made = Framework("Next.js", "next build", "next start", env={"HOSTNAME": "0.0.0.0"}, caches=(".next/cache",))
    if re.search(r"\boutput:\s*['\"]export['\"]", config):
        return replace(made, command="", site=_named(config, "distDir") or "out", replaces=r"next start\b.*")
    if re.search(r"\boutput:\s*['\"]standalone['\"]", config) and not package.folder:
        parts = ((".next/standalone", "."), (".next/static", ".next/static"), ("public", "public"))
        return replace(made, command="node server.js", bundle=parts, replaces=r"next start\b.*|node .*server\.js")
    return made


def _nuxt(source: Source, package: Package) -> Framework:
    build = package.scripts.get("build", "")
    if "generate" in build or ("build" not in package.scripts and "generate" in package.scripts):
        return Framework("Nuxt", "nuxt generate", site=".output/public", spa=True, replaces=r"nuxi? \w+|nuxt.*")
    server = "node .output/server/index.mjs"
    return Framework(
        "Nuxt",
        "nuxt build",
        server,
        env=_EVERYWHERE,
        bundle=((".output", ".output"),),
        replaces=r"nux[ti].*|node \.output.*",
    )


def _sveltekit(source: Source, package: Package) -> Framework:
    config = _config(source, package, "svelte.config")
    if "adapter-node" in config or "svelte-adapter-bun" in config:
        return Framework("SvelteKit", "vite build", "node build", env=_EVERYWHERE, replaces="vite preview.*")
    if "adapter-static" in config:
        fallback = re.search(r"\bfallback:\s*['\"]", config) is not None
        return Framework("SvelteKit", "vite build", site=_named(config, "pages") or "build", spa=fallback)
    raise SourceRejected(
        "svelte.config.js names no adapter that makes a server or a site that runs here",
        hint="For a server: npm install -D @sveltejs/adapter-node, and import it in svelte.config.js. For a static"
        " site: @sveltejs/adapter-static.",
    )


def _astro(source: Source, package: Package) -> Framework:
    config = _config(source, package, "astro.config")
    if "@astrojs/node" in config:
        command = "node ./dist/server/entry.mjs"
        return Framework("Astro", "astro build", command, env=_EVERYWHERE, replaces="astro preview.*")
    return Framework("Astro", "astro build", site=_named(config, "outDir") or "dist")


def _react_router(source: Source, package: Package) -> Framework:
    if re.search(r"\bssr:\s*false", _config(source, package, "react-router.config")):
        return Framework(
            "React Router", "react-router build", site="build/client", spa=True, replaces="react-router-.*"
        )
    return Framework("React Router", "react-router build", "react-router-serve ./build/server/index.js")


def _remix(source: Source, package: Package) -> Framework:
    vite = bool(_config(source, package, "vite.config"))
    server = "./build/server/index.js" if vite else "./build/index.js"
    return Framework("Remix", "remix vite:build" if vite else "remix build", f"remix-serve {server}")


def _nest(source: Source, package: Package) -> Framework:
    return Framework("NestJS", "nest build", "node dist/main", replaces="nest start.*")


def _angular(source: Source, package: Package) -> Framework | None:
    try:
        data = json.loads(source.read(posixpath.join(package.folder, "angular.json")) or "{}")
        name = data.get("defaultProject") or next(iter(data["projects"]))
        target = data["projects"][name]["architect"]["build"]
        options, builder = target.get("options", {}), target["builder"]
        path = options.get("outputPath") or f"dist/{name}"
        path = path if isinstance(path, str) else path["base"]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None
    if options.get("ssr"):
        return Framework("Angular", "ng build", f"node {path}/server/server.mjs", caches=(".angular/cache",))
    browser = "/browser" if builder.endswith(":application") else ""
    return Framework("Angular", "ng build", site=f"{path}{browser}", spa=True, caches=(".angular/cache",))


def _vite(source: Source, package: Package) -> Framework | None:
    config = _config(source, package, "vite.config")
    root = _named(config, "root")
    if posixpath.join(package.folder, root, "index.html") not in source.files:
        return None
    site = posixpath.normpath(posixpath.join(root, _named(config, "outDir") or "dist"))
    return Framework("Vite", "vite build", site=site, spa=True, caches=("node_modules/.vite",))


def _fastify(source: Source, package: Package) -> Framework | None:
    """Only says where to listen: its start script is the app's own."""
    return Framework("Fastify", "", "", env={"FASTIFY_ADDRESS": "0.0.0.0"})


_FINDERS: dict[str, Callable[[Source, Package], Framework | None]] = {
    "next": _next,
    "nuxt": _nuxt,
    "@sveltejs/kit": _sveltekit,
    "astro": _astro,
    "@react-router/dev": _react_router,
    "@remix-run/dev": _remix,
    "@nestjs/core": _nest,
    "@angular/core": _angular,
    "vite": _vite,
    "fastify-cli": _fastify,
}


def _config(source: Source, package: Package, stem: str) -> str:
    for suffix in _SUFFIXES:
        if text := source.read(posixpath.join(package.folder, f"{stem}{suffix}")):
            return re.sub(r"^\s*//.*", "", text, flags=re.MULTILINE)
    return ""


def _named(config: str, option: str) -> str:
    """A folder that a configuration names in plain text."""
    match = re.search(rf"\b{option}:\s*['\"]([^'\"]+)['\"]", config)
    return match[1].strip("/") if match and _FOLDER.fullmatch(match[1]) else ""
