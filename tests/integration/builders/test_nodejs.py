"""Node.js apps of many shapes: pushed with real git, built with the real package managers, fetched through Nginx."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import Box, Done, Repository

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
APPS = Path(__file__).parents[2] / "fixtures" / "apps"
SERVER = 'require("http").createServer((q, a) => a.end("plain")).listen(process.env.PORT)\n'


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box()
    try:
        yield box.start()
    finally:
        box.close()


def fixture(box: Box, name: str) -> Repository:
    """A repository of the files in `tests/fixtures/apps/nodejs-<name>`."""
    folder = APPS / f"nodejs-{name}"
    return box.repository({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})


def pushed(box: Box, repository: Repository, app: str) -> str:
    """What the pusher read, without Git's prefix."""
    done = box.push(repository, app, timeout=590)
    if done.status != 0:
        raise AssertionError(said(done))
    return said(done)


def refused(box: Box, files: dict[str, str], app: str) -> str:
    done = box.push(box.repository(files), app, timeout=590)
    assert done.status != 0, done
    assert box.get(app).status != 200
    return said(done)


def said(done: Done) -> str:
    return re.sub(r"^remote: ?", "", done.all, flags=re.MULTILINE)


def package(**members: object) -> str:
    return json.dumps({"name": "app", "private": True, **members})


def inside(box: Box, app: str, *command: str) -> str:
    done = box.ssh("run", app, *command)
    assert done.status == 0 and done.out, done
    return done.out.strip()


def test_express_with_a_lockfile_and_what_is_needed_only_for_development(box: Box) -> None:
    repository = box.repository(example="nodejs")
    log = pushed(box, repository, "express")
    assert "Hello from paasd, release v1" in box.get("express").text
    assert "engines.node in package.json is '>=20'" in log and "npm installs packages: package-lock.json" in log
    assert "nodemon" not in inside(box, "express", "ls", "node_modules")
    assert "node server.js" in inside(box, "express", "npm", "run")
    server = (repository.path / "server.js").read_text()
    repository.commit({"server.js": server.replace("Hello", "Bonjour")})
    again = pushed(box, repository, "express")
    assert "Bonjour from paasd, release v2" in box.get("express").text
    assert re.search(r"npm ci .* CACHED", again) and not re.search(r"npm ci .*\]$", again, re.MULTILINE)


def test_a_plain_server_without_lockfile_or_packages(box: Box) -> None:
    log = pushed(box, box.repository({"package.json": package(), "server.js": SERVER}), "plain")
    assert box.get("plain").text == "plain"
    assert "nothing to install" in log and "server.js: run as it is" in log


def test_committed_node_modules_are_ignored_and_a_missing_lockfile_is_said(box: Box) -> None:
    files = {
        "package.json": package(dependencies={"ms": "2.1.3"}, main="main.js"),
        "main.js": 'require("http").createServer((q, a) => a.end(require("ms")(1000))).listen(process.env.PORT)',
        "node_modules/ms/index.js": 'module.exports = () => "committed"',
    }
    log = pushed(box, box.repository(files), "committed")
    assert box.get("committed").text == "1s"
    assert "node_modules in the repository is ignored" in log and "no lockfile of npm" in log


def test_a_vite_app_is_served_as_a_single_page(box: Box) -> None:
    log = pushed(box, fixture(box, "vite"), "vite")
    assert "Vite builds a site in dist/" in log
    page = box.get("vite")
    assert page.status == 200 and page.headers["Cache-Control"] == "no-cache"
    deep = box.get("vite", "/users/42")
    assert (deep.status, deep.text) == (200, page.text)
    asset = re.search(r'src="(/assets/[^"]+\.js)"', page.text)
    assert asset and "immutable" in box.get("vite", asset[1]).headers["Cache-Control"]
    assert box.get("vite", "/assets/gone-DiwrgTda.js").status == 404
    assert "immutable" not in box.get("vite", "/robots.txt").headers["Cache-Control"]
    hidden = box.get("vite", "/.env")
    assert hidden.status == 404 and "leaked" not in hidden.text


def test_a_static_generator_has_a_404_page_and_no_fallback(box: Box) -> None:
    log = pushed(box, fixture(box, "eleventy"), "eleventy")
    assert "Eleventy builds a site in _site/" in log
    assert "Built by Eleventy" in box.get("eleventy").text
    missing = box.get("eleventy", "/none")
    assert missing.status == 404 and "Nothing here" in missing.text


def test_next_with_standalone_output(box: Box) -> None:
    log = pushed(box, fixture(box, "next"), "next")
    assert "Next.js, started with `node server.js`" in log
    page = box.get("next").text
    assert "Next.js in release <!-- -->v1" in page
    asset = re.search(r'"(/_next/static/[^"]+\.js)"', page)
    assert asset and box.get("next", asset[1]).status == 200


def test_a_monorepo_of_pnpm(box: Box) -> None:
    log = pushed(box, fixture(box, "pnpm"), "pnpm")
    assert box.get("pnpm").text == "a workspace, 1m, Node.js 22"
    assert "pnpm 10.12.1 installs packages: packageManager in package.json" in log
    assert "build: the build scripts of the workspaces" in log
    assert "cpy-cli" not in inside(box, "pnpm", "ls", "packages/greeting/node_modules")


def test_yarn_berry(box: Box) -> None:
    log = pushed(box, fixture(box, "berry"), "berry")
    assert box.get("berry").text == "berry 1s false"
    assert "Yarn 4.9.2 installs packages" in log and "Plug'n'Play is not used here" in log


def test_yarn_1_with_typescript_on_a_pinned_patch_level(box: Box) -> None:
    log = pushed(box, fixture(box, "yarn-ts"), "yarnts")
    assert box.get("yarnts").text == "typescript 1s v20.11.1 false"
    assert "Node.js 20.11.1: .nvmrc says '20.11.1'" in log and "Yarn 1 installs packages: yarn.lock" in log


def test_native_modules_and_what_a_build_writes_into_node_modules(box: Box) -> None:
    files = {
        "package.json": package(
            dependencies={"native": "file:./native"},
            devDependencies={"ms": "2.1.3"},
            scripts={"build": "node generate.js", "start": "node server.js"},
        ),
        "generate.js": """
require("ms");
require("fs").mkdirSync("node_modules/.generated/client", { recursive: true });
require("fs").writeFileSync("node_modules/.generated/client/index.js", "module.exports = 'generated';");
""",
        "server.js": """
const text = require("native").hello() + " " + require(".generated/client") + " " + process.env.NODE_ENV;
require("http").createServer((q, a) => a.end(text)).listen(process.env.PORT);
""",
        "native/package.json": json.dumps({"name": "native", "version": "1.0.0", "main": "index.js"}),
        "native/index.js": 'module.exports = require("./build/Release/native.node");\n',
        "native/binding.gyp": '{"targets": [{"target_name": "native", "sources": ["native.c"]}]}\n',
        "native/native.c": """
#include <node_api.h>
static napi_value hello(napi_env env, napi_callback_info info) {
  napi_value text;
  napi_create_string_utf8(env, "native", NAPI_AUTO_LENGTH, &text);
  return text;
}
NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "hello", NAPI_AUTO_LENGTH, hello, NULL, &function);
  napi_set_named_property(env, exports, "hello", function);
  return exports;
}
""",
    }
    pushed(box, box.repository(files), "native")
    assert box.get("native").text == "native generated production"
    assert inside(box, "native", "ls", "node_modules") == "native"


def test_what_runs_may_need_development_dependencies(box: Box) -> None:
    scripts = {"start": "cross-env GREETING=kept node server.js"}
    files = {
        "package.json": package(devDependencies={"cross-env": "7.0.3"}, scripts=scripts),
        "server.js": SERVER.replace('"plain"', "process.env.GREETING"),
    }
    log = pushed(box, box.repository(files), "kept")
    assert box.get("kept").text == "kept"
    assert "cross-env is a development dependency and needed to run" in log


def test_bun_installs_and_runs(box: Box) -> None:
    members = {"packageManager": "bun@1.2.2", "dependencies": {"ms": "2.1.3"}, "scripts": {"start": "bun server.js"}}
    files = {
        "package.json": package(**members),
        "server.js": 'const ms = require("ms");\n'
        "Bun.serve({ port: process.env.PORT, fetch: () => new Response(`bun ${ms(1000)}`) });\n",
    }
    log = pushed(box, box.repository(files), "bun")
    assert box.get("bun").text == "bun 1s" and "Bun 1.2.2 installs packages" in log


def test_an_old_node_with_a_procfile_that_calls_yarn(box: Box) -> None:
    members = {"engines": {"node": "16.x", "yarn": "1.x"}, "scripts": {"serve": "node server.js"}}
    lock = "# yarn lockfile v1\n"
    files = {
        "package.json": package(**members),
        "yarn.lock": lock,
        "server.js": SERVER,
        "Procfile": "web: yarn serve\n",
    }
    log = pushed(box, box.repository(files), "old")
    assert box.get("old").text == "plain" and "Node.js 16: engines.node" in log


def test_a_lockfile_that_is_out_of_date(box: Box) -> None:
    folder = APPS / "nodejs-vite"
    stale = json.loads((folder / "package.json").read_text())
    stale["dependencies"] = {"ms": "^2.1.3"}
    lock = (folder / "package-lock.json").read_text()
    log = refused(box, {"package.json": json.dumps(stale), "package-lock.json": lock, "index.html": ""}, "stale")
    assert "run `npm install`, commit package-lock.json" in log
    frozen = {name: (APPS / "nodejs-berry" / name).read_text() for name in ("yarn.lock", "index.js")}
    changed = json.loads((APPS / "nodejs-berry/package.json").read_text())
    changed["dependencies"]["is-number"] = "^7.0.0"
    log = refused(box, {**frozen, "package.json": json.dumps(changed)}, "stale-yarn")
    assert "run `yarn install`, commit yarn.lock" in log


def test_a_package_that_does_not_exist_is_named(box: Box) -> None:
    missing = {"package.json": package(dependencies={"paasd-no-such-package": "1"}), "server.js": SERVER}
    assert "The registry has no package paasd-no-such-package" in refused(box, missing, "missing")
    version = {"package.json": package(dependencies={"ms": "99.0.0"}), "server.js": SERVER}
    assert "There is no version ms@99.0.0" in refused(box, version, "no-version")
    with_pnpm = {"packageManager": "pnpm@10.12.1", "dependencies": {"paasd-no-such-package": "1"}}
    log = refused(box, {"package.json": package(**with_pnpm), "server.js": SERVER}, "missing-pnpm")
    assert "The registry has no package paasd-no-such-package" in log


def test_a_build_script_that_fails_shows_what_it_printed(box: Box) -> None:
    files = {
        "package.json": package(scripts={"build": "node build.js", "start": "node server.js"}),
        "server.js": SERVER,
    }
    log = refused(box, {**files, "build.js": 'require("./templates")\n'}, "broken")
    assert "./templates cannot be found" in log and "build.js:1" in log
    box.ssh("builds:set", "broken", "build-command", "node build.js && echo built")
    log = refused(box, {**files, "build.js": 'require("./parts")\n'}, "broken")
    assert "./parts cannot be found" in log and "failed with exit code 1" in log


def test_a_build_that_leaves_no_site_names_the_folder(box: Box) -> None:
    scripts = {"build": "mkdir elsewhere"}
    files = {"package.json": package(scripts=scripts, devDependencies={"react-scripts": "*"}, workspaces=[])}
    files["package.json"] = files["package.json"].replace('"react-scripts": "*"', '"@11ty/eleventy": "file:./none"')
    files["none/package.json"] = package(name="@11ty/eleventy", version="1.0.0")
    assert "The site was expected in _site" in refused(box, files, "siteless")


@pytest.mark.parametrize("engines", ["0.8", "99", ">=99"])
def test_versions_that_cannot_be_had_stop_with_the_list(box: Box, engines: str) -> None:
    files = {"package.json": package(engines={"node": engines}), "server.js": SERVER}
    log = refused(box, files, "impossible")
    assert f"engines.node in package.json asks for Node.js '{engines}'" in log and "There are 26, 24, 22, 20, 18" in log
