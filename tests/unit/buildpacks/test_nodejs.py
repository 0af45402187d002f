"""Plans of the buildpack nodejs: version, package manager, what is copied first, build, start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paasd.build.buildpacks import Buildpacks
from paasd.build.plan import Plan, Settings
from paasd.errors import SourceRejected

ROOT = Path(__file__).parents[3] / "buildpacks"
SUITES = ("bookworm",)
YARN_1 = "# yarn lockfile v1\n"
WEB = Settings(process_types=("web",))
BASES = {name: f"paasd/{name}:x" for name in ("nodejs-build", "nodejs", "static")}


class Repository:
    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    @property
    def files(self) -> frozenset[str]:
        return frozenset(self._files)

    def read(self, path: str) -> str | None:
        if (text := self._files.get(path)) is not None and len(text) > 1024 * 1024:
            raise SourceRejected(f"{path} is too large")
        return text


@pytest.fixture(scope="module")
def packs() -> Buildpacks:
    return Buildpacks(ROOT)


def package(**members: Any) -> str:
    return json.dumps({"name": "app", **members})


def plan(packs: Buildpacks, files: dict[str, str], settings: Settings | None = None, **members: Any) -> Plan:
    if members or "package.json" not in files:
        files = {"package.json": package(**members), **files}
    return packs.plan(Repository(files), 5000, settings=settings, suites=SUITES)


def node(packs: Buildpacks, files: dict[str, str], engines: str = "", **settings: str) -> str:
    members: dict[str, Any] = {"engines": {"node": engines}} if engines else {}
    made = plan(packs, {"server.js": "", **files}, Settings(**settings), **members)  # type: ignore[arg-type]
    return made.versions["node"]


def command(packs: Buildpacks, files: dict[str, str], **members: Any) -> str | None:
    (process_type,) = plan(packs, files, **members).process_types
    assert process_type.name == "web"
    return process_type.command and process_type.command.removeprefix("exec ")


@pytest.mark.parametrize(
    ("engines", "version"),
    [
        ("", "24"),
        ("*", "24"),
        ("x", "24"),
        (">=18", "24"),
        (">= 18.0.0", "24"),
        ("20.x", "20"),
        ("^20.11.0", "20"),
        ("20", "20"),
        ("v20", "20"),
        ("18 || 20", "20"),
        ("<23", "22"),
        (">=18 <=22", "22"),
        ("20 - 22", "22"),
        ("20.11.1", "20.11.1"),
        ("v20.11.1", "20.11.1"),
        ("=20.11.1", "20.11.1"),
        ("20.11", "20.11"),
        ("20.11.x", "20.11"),
        ("~20.11.0", "20.11"),
        (">=18.0.0 <18.17.0", "18.16"),
        ("21.x", "21"),
        ("^16", "16"),
        ("14 || 16", "16"),
        ("20.11.0 || 20.11.1 <20.11.2", "20.11.1"),
        ("lts/*", "24"),
        ("lts/iron", "20"),
        ("latest", "24"),
        (">=25", "26"),
    ],
)
def test_engines_choose_the_version(packs: Buildpacks, engines: str, version: str) -> None:
    assert node(packs, {}, engines) == version


@pytest.mark.parametrize("engines", ["0.8", "99", ">=99", "12.x", "lts/none", "node twenty", "<10"])
def test_what_cannot_be_had_is_refused_with_the_list(packs: Buildpacks, engines: str) -> None:
    with pytest.raises(SourceRejected) as caught:
        node(packs, {}, engines)
    assert "engines.node in package.json" in caught.value.detail and "26, 24, 22, 20, 18" in caught.value.hint


@pytest.mark.parametrize(
    ("files", "engines", "version", "reason"),
    [
        ({".nvmrc": "v20\n"}, "", "20", ".nvmrc says 'v20'"),
        ({".nvmrc": "# comment\nlts/jod\n"}, "", "22", ".nvmrc"),
        ({".node-version": "20.11.1\n"}, ">=18", "20.11.1", ".node-version says"),
        ({".tool-versions": "python 3\nnodejs 22.3.0\n"}, "", "22.3.0", ".tool-versions"),
        ({".nvmrc": "18"}, "20.x", "20", "is '20.x'; .nvmrc ('18') is outside"),
        ({".nvmrc": "20", ".node-version": "22"}, "", "20", ".nvmrc"),
    ],
)
def test_a_pin_chooses_within_engines(
    packs: Buildpacks, files: dict[str, str], engines: str, version: str, reason: str
) -> None:
    members = {"engines": {"node": engines}} if engines else {}
    made = plan(packs, {"server.js": "", **files}, **members)
    assert (made.versions["node"], reason in made.reasons[0]) == (version, True), made.reasons
    assert made.bases == (f"nodejs-build@{version}", f"nodejs@{version}")


def test_a_setting_beats_every_file(packs: Buildpacks) -> None:
    assert node(packs, {".nvmrc": "20"}, "22", version="18") == "18"
    settings = Settings(
        install_command="make deps", build_command="make", start_command="./run", packages=("imagemagick",)
    )
    made = plan(
        packs, {"package-lock.json": ""}, settings, dependencies={"a": "1"}, scripts={"build": "b", "start": "s"}
    )
    assert (made.values["install"], made.values["build"]) == ("make deps", "make")
    assert made.values["whole"] is True
    assert (made.process_types[0].command, made.packages) == ("exec ./run", ("imagemagick",))
    assert "imagemagick" in packs.render(made, BASES, "app1", "bookworm")["Dockerfile"]


@pytest.mark.parametrize(
    ("files", "members", "title", "installs"),
    [
        ({}, {}, "npm", "npm install --include=dev"),
        ({"package-lock.json": ""}, {}, "npm", "npm ci --include=dev"),
        ({"npm-shrinkwrap.json": ""}, {}, "npm", "npm ci --include=dev"),
        ({"yarn.lock": YARN_1}, {}, "Yarn 1", "yarn install --frozen-lockfile --non-interactive --production=false"),
        ({"yarn.lock": YARN_1 + "x" * 2_000_000}, {}, "Yarn 1", "yarn install --frozen-lockfile"),
        ({"yarn.lock": "#\n__metadata:\n  version: 8\n"}, {}, "Yarn 4", "yarn install --immutable"),
        ({"yarn.lock": "#\n__metadata:\n  version: 6\n"}, {}, "Yarn 3", "yarn install --immutable"),
        ({"yarn.lock": ""}, {"packageManager": "yarn@3.6.0"}, "Yarn 3.6.0", "yarn install --immutable"),
        ({}, {"packageManager": "yarn@4.1.0+sha512.00"}, "Yarn 4.1.0", "yarn install --no-immutable"),
        ({"pnpm-lock.yaml": "lockfileVersion: '9.0'\n"}, {}, "pnpm 10", "pnpm install --frozen-lockfile --prod=false"),
        ({"pnpm-lock.yaml": "lockfileVersion: 5.4\n"}, {}, "pnpm 7", "pnpm install --frozen-lockfile"),
        ({"pnpm-lock.yaml": "lockfileVersion: '6.0'\n"}, {"engines": {"pnpm": "8.x"}}, "pnpm 8", "pnpm install"),
        ({"bun.lock": ""}, {}, "Bun 1", "bun install --frozen-lockfile"),
        ({"package-lock.json": ""}, {"volta": {"node": "20.1.0"}}, "npm", "npm ci"),
        ({"yarn.lock": YARN_1, "package-lock.json": ""}, {}, "Yarn 1", "yarn install"),
        ({"yarn.lock": YARN_1, "package-lock.json": ""}, {"packageManager": "npm@10.8.2"}, "npm 10.8.2", "npm ci"),
    ],
)
def test_the_package_manager(
    packs: Buildpacks, files: dict[str, str], members: dict[str, Any], title: str, installs: str
) -> None:
    made = plan(packs, {"server.js": "", **files}, dependencies={"a": "1"}, **members)
    assert f"{title} installs packages" in made.reasons[1]
    assert made.values["install"].startswith(installs)


def test_two_lockfiles_say_which_won(packs: Buildpacks) -> None:
    files = {"server.js": "", "pnpm-lock.yaml": "", "yarn.lock": YARN_1, "package-lock.json": ""}
    made = plan(packs, files, dependencies={"a": "1"})
    assert "pnpm-lock.yaml is used and yarn.lock, package-lock.json ignored" in made.reasons[2]
    made = plan(packs, {"server.js": "", "yarn.lock": YARN_1}, packageManager="pnpm@9.0.0", dependencies={"a": "1"})
    assert "yarn.lock is not pnpm's and ignored" in made.reasons and "no lockfile of pnpm" in made.reasons[3]


@pytest.mark.parametrize("declared", ["pnpm", "pnpm@latest", "cnpm@1.0.0", "yarn@4.0.0; rm -rf /", "npm@https://x"])
def test_a_package_manager_nobody_knows_is_refused(packs: Buildpacks, declared: str) -> None:
    with pytest.raises(SourceRejected, match=r"packageManager in package\.json"):
        plan(packs, {"server.js": ""}, packageManager=declared)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": }', ""])
def test_a_broken_package_json_is_named(packs: Buildpacks, text: str) -> None:
    with pytest.raises(SourceRejected, match=r"package\.json"):
        plan(packs, {"package.json": text})


def test_members_of_a_wrong_type_do_no_harm(packs: Buildpacks) -> None:
    wrong = {"scripts": [], "dependencies": "x", "engines": 3, "workspaces": {"packages": 1}, "main": 7, "volta": None}
    assert command(packs, {"server.js": ""}, **wrong) == "node server.js"


@pytest.mark.parametrize(
    ("files", "members", "expected"),
    [
        ({}, {"scripts": {"start": "node a.js"}}, "node a.js"),
        ({}, {"scripts": {"start": "npm run prod", "prod": "node b.js"}}, "node b.js"),
        ({}, {"scripts": {"start": "node a.js", "prestart": "node m.js"}}, "{ node m.js; } && node a.js"),
        ({"main.js": ""}, {"main": "main.js"}, "node main.js"),
        ({"lib/index.js": ""}, {"main": "./lib"}, "node lib/index.js"),
        ({}, {"main": "dist/main.js", "scripts": {"build": "tsc"}}, "node dist/main.js"),
        ({"index.js": ""}, {}, "node index.js"),
        ({"src/index.ts": ""}, {"devDependencies": {"tsx": "4"}}, "tsx src/index.ts"),
        ({}, {"scripts": {"start": "nodemon app.js"}}, "node app.js"),
        ({}, {"scripts": {"start": "next dev"}, "dependencies": {"next": "15"}}, "next start"),
        ({}, {"scripts": {"start": "next start -p 80"}, "dependencies": {"next": "15"}}, "next start -p 80"),
        ({}, {"scripts": {"start": "nest start"}, "dependencies": {"@nestjs/core": "1"}}, "node dist/main"),
        (
            {},
            {"scripts": {"start": "nest start", "start:prod": "node dist/x"}, "dependencies": {"@nestjs/core": "1"}},
            "node dist/x",
        ),
        ({}, {"dependencies": {"nuxt": "3"}}, "node .output/server/index.mjs"),
        (
            {"svelte.config.js": "import a from '@sveltejs/adapter-node'"},
            {"devDependencies": {"@sveltejs/kit": "2"}},
            "node build",
        ),
        (
            {"astro.config.mjs": "import n from '@astrojs/node'"},
            {"dependencies": {"astro": "5"}},
            "node ./dist/server/entry.mjs",
        ),
        ({}, {"devDependencies": {"@react-router/dev": "7"}}, "react-router-serve ./build/server/index.js"),
        ({"vite.config.ts": "x"}, {"devDependencies": {"@remix-run/dev": "2"}}, "remix-serve ./build/server/index.js"),
        (
            {"index.html": ""},
            {"devDependencies": {"vite": "6"}, "scripts": {"start": "node server.js"}},
            "node server.js",
        ),
    ],
)
def test_what_runs(packs: Buildpacks, files: dict[str, str], members: dict[str, Any], expected: str) -> None:
    assert command(packs, files, **members) == expected


@pytest.mark.parametrize(
    ("files", "members", "site", "spa"),
    [
        ({"index.html": ""}, {"devDependencies": {"vite": "6"}}, "dist", True),
        (
            {"index.html": "", "vite.config.ts": "build: { outDir: 'build' }"},
            {"devDependencies": {"vite": "6"}},
            "build",
            True,
        ),
        (
            {"client/index.html": "", "vite.config.js": "root: 'client', build: {outDir: '../out'}"},
            {"devDependencies": {"vite": "6"}},
            "out",
            True,
        ),
        ({}, {"dependencies": {"react-scripts": "5"}, "scripts": {"start": "react-scripts start"}}, "build", True),
        ({}, {"dependencies": {"react-scripts": "5"}, "scripts": {"start": "serve -s build"}}, "build", True),
        ({}, {"devDependencies": {"@vue/cli-service": "5"}}, "dist", True),
        ({}, {"dependencies": {"gatsby": "5"}, "scripts": {"start": "gatsby develop"}}, "public", False),
        ({}, {"dependencies": {"astro": "5"}, "scripts": {"start": "astro dev"}}, "dist", False),
        (
            {"next.config.js": "output: 'export'"},
            {"dependencies": {"next": "15"}, "scripts": {"start": "next start"}},
            "out",
            False,
        ),
        (
            {"svelte.config.js": "adapter-static ({fallback: '200.html'})"},
            {"devDependencies": {"@sveltejs/kit": "2"}},
            "build",
            True,
        ),
        (
            {"react-router.config.ts": "ssr: false"},
            {"devDependencies": {"@react-router/dev": "7"}},
            "build/client",
            True,
        ),
        (
            {
                "angular.json": json.dumps(
                    {"projects": {"shop": {"architect": {"build": {"builder": "@angular/build:application"}}}}}
                )
            },
            {"dependencies": {"@angular/core": "20"}, "scripts": {"start": "ng serve"}},
            "dist/shop/browser",
            True,
        ),
        ({}, {"dependencies": {"nuxt": "3"}, "scripts": {"build": "nuxt generate"}}, ".output/public", True),
        ({"public/index.html": ""}, {"scripts": {"build": "tailwindcss"}}, "public", False),
        ({"index.html": ""}, {"scripts": {"build": "tailwindcss"}}, ".", False),
    ],
)
def test_what_is_served(
    packs: Buildpacks, files: dict[str, str], members: dict[str, Any], site: str, spa: bool
) -> None:
    made = plan(packs, files, **members)
    assert (made.values["site"], made.values["spa"]) == (site, spa)
    assert made.bases == ("nodejs-build@24", "static") and "nginx" in (made.process_types[0].command or "")
    assert f"cd {site}" in made.values["collect"] or site in made.values["collect"]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("node a.js --port=$PORT", "exec node a.js --port=$PORT"),
        ("NODE_ENV=production node a.js", "exec env NODE_ENV=production node a.js"),
        ("./bin/server", "exec ./bin/server"),
        ("node a.js && node b.js", "node a.js && node b.js"),
        ("node a.js | pino", "node a.js | pino"),
        ("exec node a.js", "exec node a.js"),
        ("cd web; node a.js", "cd web; node a.js"),
        ("(node a.js)", "(node a.js)"),
    ],
)
def test_what_runs_takes_the_place_of_its_shell(packs: Buildpacks, start: str, expected: str) -> None:
    assert plan(packs, {}, scripts={"start": start}).process_types[0].command == expected


def test_an_output_directory_that_was_set_is_served(packs: Buildpacks) -> None:
    made = plan(packs, {}, Settings(output_dir="./web/"), scripts={"build": "make", "start": "node x"})
    assert made.values["site"] == "web" and made.bases[1] == "static"
    with pytest.raises(SourceRejected, match="not a plain folder"):
        plan(packs, {}, Settings(output_dir="../../etc"), scripts={"build": "make"})


def test_svelte_without_an_adapter_says_which_to_take(packs: Buildpacks) -> None:
    with pytest.raises(SourceRejected) as caught:
        plan(
            packs,
            {"svelte.config.js": "import a from '@sveltejs/adapter-auto'"},
            devDependencies={"@sveltejs/kit": "2"},
        )
    assert "adapter-node" in caught.value.hint


def test_nothing_to_start_asks_for_a_procfile(packs: Buildpacks) -> None:
    with pytest.raises(SourceRejected, match="does not say how to start") as caught:
        plan(packs, {}, dependencies={"a": "1"})
    assert "Procfile" in caught.value.hint
    assert plan(packs, {}, WEB, dependencies={"a": "1"}).process_types == ()


@pytest.mark.parametrize(
    ("scripts", "expected"),
    [
        ({"build": "x"}, "npm run build"),
        ({"build": "x", "heroku-postbuild": "y"}, "npm run heroku-postbuild"),
        ({}, ""),
    ],
)
def test_the_build_script(packs: Buildpacks, scripts: dict[str, str], expected: str) -> None:
    assert plan(packs, {"server.js": ""}, scripts=scripts).values["build"] == expected


def test_typescript_without_a_build_script_is_compiled(packs: Buildpacks) -> None:
    members = {"scripts": {"start": "node dist/a.js"}, "devDependencies": {"typescript": "5"}}
    assert plan(packs, {"tsconfig.json": ""}, **members).values["build"] == "tsc"


def test_development_dependencies_go_unless_what_runs_needs_them(packs: Buildpacks) -> None:
    members: dict[str, Any] = {"dependencies": {"a": "1"}, "devDependencies": {"ts-node": "10", "jest": "29"}}
    assert "npm prune" in plan(packs, {"server.js": ""}, **members).values["prune"]
    kept = plan(packs, {}, **members, scripts={"start": "node -r ts-node/register src/a.ts"})
    assert kept.values["prune"] == "" and "ts-node is a development dependency and needed to run" in kept.reasons[-1]
    procfile = {"Procfile": "web: npm run serve\n"}
    by_procfile = plan(packs, procfile, WEB, **members, scripts={"serve": "npm run it", "it": "ts-node a.ts"})
    assert by_procfile.values["prune"] == ""
    assert (
        "npm prune"
        in plan(packs, procfile, WEB, **members, scripts={"test": "jest", "serve": "node a"}).values["prune"]
    )


def test_the_package_manager_is_there_when_what_runs_calls_it(packs: Buildpacks) -> None:
    files = {"pnpm-lock.yaml": "lockfileVersion: '9.0'\n"}
    members: dict[str, Any] = {"dependencies": {"a": "1"}}
    assert plan(packs, files, **members, scripts={"start": "pnpm -r start"}).values["manager_runs"] == "pnpm@10"
    assert plan(packs, files, **members, scripts={"start": "node a"}).values["manager_runs"] == ""
    procfile = {**files, "Procfile": "web: pnpm start\n"}
    assert plan(packs, procfile, WEB, **members).values["manager_runs"] == "pnpm@10"


def test_workspaces_are_copied_before_installing(packs: Buildpacks) -> None:
    files = {
        "package-lock.json": "",
        "a/one/package.json": package(scripts={"build": "x"}),
        "a/one/src/package.json": "{}",
        "b/package.json": "{}",
        "node_modules/a/package.json": "{}",
        "server.js": "",
    }
    made = plan(packs, files, dependencies={"x": "1"}, workspaces=["a/*", "./b"])
    assert made.values["manifests"] == {
        "": ["package-lock.json", "package.json"],
        "a/one/": ["a/one/package.json"],
        "b/": ["b/package.json"],
    }
    assert made.values["build"] == "npm run build --workspaces --if-present"
    assert any("node_modules in the repository is ignored" in reason for reason in made.reasons)
    dockerfile = packs.render(made, BASES, "app1", "bookworm")["Dockerfile"]
    assert 'COPY ["app/a/one/package.json", "/app/a/one/"]' in dockerfile


def test_many_workspaces_take_one_layer(packs: Buildpacks) -> None:
    files = {f"p/{number}/package.json": "{}" for number in range(200)}
    made = plan(
        packs,
        {"server.js": "", "pnpm-lock.yaml": "", "pnpm-workspace.yaml": "packages: ['p/**']", **files},
        dependencies={"x": "1"},
    )
    dockerfile = packs.render(made, BASES, "app1", "bookworm")["Dockerfile"]
    assert len(made.values["manifests"]) == 201 and dockerfile.count("COPY") < 12
    assert "p/199/package.json" in dockerfile


@pytest.mark.parametrize(
    ("script", "whole"),
    [
        ("husky", False),
        ("npx only-allow pnpm", False),
        ("patch-package", False),
        ("node setup.js", True),
        ("husky && make", True),
    ],
)
def test_scripts_of_installing_may_need_the_code(packs: Buildpacks, script: str, whole: bool) -> None:
    members = {"dependencies": {"a": "1"}, "scripts": {"postinstall": script}}
    made = plan(packs, {"server.js": "", "patches/a.patch": ""}, **members)
    assert made.values["whole"] is whole
    assert made.values["trees"] == ([] if whole else ["patches/"])


def test_local_packages_are_copied_too(packs: Buildpacks) -> None:
    files = {"server.js": "", "lib/x/index.js": "", "t/a.tgz": ""}
    made = plan(packs, files, dependencies={"x": "file:./lib/x", "t": "file:t/a.tgz", "r": "^1"})
    assert made.values["trees"] == ["lib/x/"] and made.values["manifests"]["t/"] == ["t/a.tgz"]
    assert plan(packs, files, dependencies={"x": "file:../outside"}).values["whole"] is True


def test_odd_names_cannot_steer_the_dockerfile(packs: Buildpacks) -> None:
    files = {"server.js": "", 'w/a"\nRUN evil/package.json': "{}", "w/$HOME*/package.json": "{}"}
    made = plan(packs, files, dependencies={"x": "1"}, workspaces=["w/*"], scripts={"start": 'x"\nRUN evil'})
    dockerfile = packs.render(made, BASES, "app1", "bookworm")["Dockerfile"]
    assert made.values["whole"] is True and "evil" not in dockerfile
    built = plan(packs, {}, Settings(build_command='a"\nRUN evil'), scripts={"start": "x"})
    assert "\nRUN evil" not in packs.render(built, BASES, "app1", "bookworm")["Dockerfile"]


def test_a_page_whose_package_json_brings_only_tools_is_static(packs: Buildpacks) -> None:
    assert plan(packs, {"index.html": ""}, devDependencies={"prettier": "3"}).buildpack == "static"
    assert (
        plan(packs, {"index.html": ""}, dependencies={"express": "4"}, scripts={"start": "node a"}).buildpack
        == "nodejs"
    )


def test_it_is_named_when_another_buildpack_comes_first(packs: Buildpacks) -> None:
    source = Repository({"package.json": package(dependencies={"a": "1"}), "Dockerfile": "FROM a", "index.html": ""})
    made = packs.plan(source, 5000, suites=SUITES)
    assert made.buildpack == "dockerfile" and packs.also_fit(source, made, SUITES) == ["nodejs", "static"]


def test_a_procfile_that_runs_node_is_enough(packs: Buildpacks) -> None:
    files = {"Procfile": "web: node app.js\n", "app.js": ""}
    made = packs.plan(Repository(files), 5000, settings=WEB, suites=SUITES)
    assert made.buildpack == "nodejs" and made.values["install"] == ""


def test_detection_of_a_large_repository_is_quick(packs: Buildpacks) -> None:
    files = {f"apps/{i % 50}/src/{i}/file.js": "" for i in range(20_000)}
    files |= {f"apps/{i}/package.json": "{}" for i in range(50)}
    members = {"workspaces": ["apps/*"], "dependencies": {"a": "1"}}
    assert len(plan(packs, {"server.js": "", **files}, **members).values["manifests"]) == 51


@pytest.mark.parametrize(
    ("scripts", "settings", "install"),
    [
        ({"start": "node a"}, Settings(), "npm ci --omit=dev --no-audit --no-fund"),
        ({"start": "node a"}, Settings(tests=True), "npm ci --include=dev --no-audit --no-fund"),
        ({"start": "node a", "build": "tsc"}, Settings(), "npm ci --include=dev --no-audit --no-fund"),
        ({"start": "node a", "prepare": "husky"}, Settings(), "npm ci --include=dev --no-audit --no-fund"),
    ],
)
def test_what_only_development_needs_is_not_installed_when_nothing_uses_it(
    packs: Buildpacks, scripts: dict[str, str], settings: Settings, install: str
) -> None:
    members = package(scripts=scripts, dependencies={"a": "1"}, devDependencies={"tool": "1"})
    source = Repository({"package.json": members, "package-lock.json": "{}"})
    values = packs.plan(source, 5000, settings=settings, suites=SUITES).values
    assert values["install"] == install
    assert bool(values["prune"]) == ("--include=dev" in install)


@pytest.mark.parametrize(
    ("files", "members", "alone"),
    [
        ({"package-lock.json": "{}"}, {"dependencies": {"x": "1"}}, True),
        ({"yarn.lock": "# yarn lockfile v1\n"}, {"dependencies": {"x": "1"}}, True),
        ({"yarn.lock": "__metadata:\n  version: 8\n"}, {"dependencies": {"x": "1"}}, False),
        ({}, {"optionalDependencies": {"x": "1"}}, False),
        ({}, {"dependencies": {"x": "file:./lib"}}, False),
        ({}, {"dependencies": {"x": "1"}, "workspaces": ["a"]}, False),
        ({}, {"dependencies": {"x": "1"}, "scripts": {"postinstall": "node make.js"}}, False),
    ],
)
def test_packages_are_taken_along_without_the_files_they_were_installed_from(
    packs: Buildpacks, files: dict[str, str], members: dict[str, Any], alone: bool
) -> None:
    made = plan(packs, {"server.js": "", "lib/package.json": "{}", "a/package.json": "{}", **files}, **members)
    folder = "/app/node_modules/" if alone else "/app/"
    bases = {"nodejs": "node", "nodejs-build": "build"}
    text = packs.render(made, bases, "app1", "bookworm")["Dockerfile"]
    assert f"COPY --from=pruned --chown=10001:10001 {folder} {folder}\n" in text
