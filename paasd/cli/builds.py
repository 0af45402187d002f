"""builds:*, config:explain"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput


@root.command("builds", examples=("builds blog",))
@app_argument
@click.option("-n", "--num", default=20, show_default=True, help="How many.")
@json_option
@click.pass_obj
def builds(cli: Cli, app: str, num: int, as_json: bool) -> None:
    """List an app's builds, newest first."""
    found = cli.client.get(app_path(app, "builds"), limit=num)["items"]
    if as_json:
        return cli.console.json(found)
    rows = [
        (
            b["number"],
            b["status"],
            b["revision"][:8],
            b["branch"],
            b["pushed_by"],
            f"{b['seconds']:.1f} s" if b["seconds"] is not None else "",
            b["reason"],
        )
        for b in found
    ]
    cli.console.table(("BUILD", "STATUS", "REVISION", "BRANCH", "BY", "TOOK", "REASON"), rows)


@root.command("builds:log", examples=("builds:log blog", "builds:log blog 7", "builds:log blog -t"))
@app_argument
@click.argument("number", required=False, type=int)
@click.option("-t", "--tail", is_flag=True, help="Follow it while it runs; the usual thing, kept for habit.")
@click.pass_obj
def build_log(cli: Cli, app: str, number: int | None, tail: bool) -> None:
    """Print a build's log (the newest one's by default), following it while it runs."""
    number = number or _newest(cli, app)
    cli.console.lines(cli.client.text(app_path(app, "builds", number, "log"), {"follow": 1}))


@root.command("builds:info", examples=("builds:info blog", "builds:info blog 7 --json"))
@app_argument
@click.argument("number", required=False, type=int)
@json_option
@click.pass_obj
def info(cli: Cli, app: str, number: int | None, as_json: bool) -> None:
    """Show what a build (the newest by default) decided, why, and where its time went."""
    found = cli.client.get(app_path(app, "builds", number or _newest(cli, app)))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} build {found['number']}")
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found["phases"].items())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    cli.console.facts(
        {
            "Status": f"{found['status']} {found['reason']}".strip(),
            "Revision": f"{found['revision']} ({found['branch']}, {found['pushed_by']})",
            "Buildpack": " ".join(filter(None, (found["buildpack"], versions and f"({versions})"))),
            "Phases": phases,
            "Steps": f"{found['steps']}, {found['cached_steps']} of them from the cache" if found["steps"] else "none",
            "Image": f"{found['image']} ({found['image_size'] / 1e6:.0f} MB)" if found["image"] else "none",
        }
    )
    for reason in found["reasons"]:
        cli.console.print(f"       {reason}")


@root.command(
    "builds:set",
    examples=("builds:set blog root-dir apps/web", "builds:set blog builder python", "builds:set blog version ''"),
)
@app_argument
@click.argument("key")
@click.argument("value", nargs=-1)
@click.pass_obj
def set_(cli: Cli, app: str, key: str, value: tuple[str, ...]) -> None:
    """Set how an app is built from the next push on; without a value the repository decides again."""
    text = " ".join(value)
    cli.client.request("PATCH", app_path(app, "build-settings"), {"settings": {key: text or None}})
    cli.console.print(f"-----> Set {key} of {app} to {text}" if text else f"-----> Unset {key} of {app}")
    cli.console.print("       The next push uses it; see what decides: config:explain " + app)


@root.command("ports:set", examples=("ports:set blog 3000", "ports:set blog ''"))
@app_argument
@click.argument("port")
@click.pass_context
def set_port(context: click.Context, app: str, port: str) -> None:
    """Say which port the web process listens on, when it does not heed PORT; the next push uses it."""
    context.invoke(set_, app=app, key="port", value=(port,) if port else ())


_LANGUAGES = ("python", "nodejs", "go", "rust", "ruby", "php")


@root.command("builds:matrix", examples=("builds:matrix blog --python 3.11,3.13", "builds:matrix blog 20 22 --json"))
@app_argument
@click.argument("versions", nargs=-1)
@json_option
@click.pass_obj
def matrix(cli: Cli, /, app: str, versions: tuple[str, ...], as_json: bool, **languages: str | None) -> int:
    """Build and test the pushed code with several versions of its language side by side, without releasing any."""
    named = {name: text for name, text in languages.items() if text}
    if len(named) > 1 or bool(named) == bool(versions):
        raise InvalidInput("name the versions once", hint=f"For example: builds:matrix {app} --python 3.11,3.13")
    language, text = next(iter(named.items()), ("", ""))
    body = {"language": language, "versions": [*versions, *filter(None, text.split(","))]}
    shown = (lambda line: None) if as_json else cli.console.print
    trials = cli.client.stream("POST", app_path(app, "matrix"), body, shown)["items"]
    if as_json:
        cli.console.json(trials)
    else:
        rows = [(t["version"], t["outcome"], f"{t['seconds']:.1f} s") for t in trials]
        cli.console.table(("VERSION", "OUTCOME", "TOOK"), rows)
    return 0 if all(t["outcome"] in ("passed", "built") for t in trials) else 1


for _language in _LANGUAGES:
    click.option(f"--{_language}", metavar="VERSIONS", help=f"Versions of {_language}, with commas.")(matrix)


@root.command("builds:cache:clear", examples=("builds:cache:clear blog",))
@app_argument
@click.pass_obj
def clear(cli: Cli, app: str) -> None:
    """Let the app's next build start without its caches."""
    cli.client.request("DELETE", app_path(app, "build-cache"))
    cli.console.print(f"-----> The next build of {app} starts from nothing")


@root.command("config:explain", examples=("config:explain blog", "config:explain blog --json"))
@app_argument
@json_option
@click.pass_obj
def explain(cli: Cli, app: str, as_json: bool) -> None:
    """Show how the pushed code is built and started, and which file or setting decides each of it."""
    found = cli.client.get(app_path(app, "build-settings", "explain"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} at {found['revision'][:8]}: buildpack {found['buildpack']}")
    cli.console.table(
        ("SETTING", "VALUE", "DECIDED BY"), [(s["key"], s["value"], s["origin"]) for s in found["settings"]]
    )
    for reason in found["reasons"]:
        cli.console.print(f"       {reason}")
    cli.console.facts(
        {f"Process {name}": command or "(the image's own)" for name, command in found["process_types"].items()}
    )
    cli.console.table(
        ("PROCESS", "INSTANCES", "DECIDED BY"),
        [(i["process_type"], str(i["count"]), i["origin"]) for i in found["instances"]],
    )
    cli.console.facts({f"Config var {name}": _need(need) for name, need in found["config_vars"].items()})
    for what in found["unused"]:
        cli.console.print(f"       not used: {what}")


@root.command("builds:cancel", examples=("builds:cancel blog",))
@app_argument
@click.pass_obj
def cancel(cli: Cli, app: str) -> None:
    """Cancel the build under way; the pusher sees why."""
    build = cli.client.request("POST", app_path(app, "builds", "cancel"), {})
    cli.console.print(f"-----> Cancelling build {build['number']} of {app}")


def _newest(cli: Cli, app: str) -> int:
    newest = cli.client.get(app_path(app, "builds"), limit=1)["items"]
    if not newest:
        raise InvalidInput(f"{app} has no builds yet", hint="Push it: git push paasd main")
    return int(newest[0]["number"])


def _need(need: dict[str, Any]) -> str:
    kind = "required" if need["required"] else "generated when nobody sets it" if need["generated"] else "optional"
    return f"{kind}; {need['description']}" if need["description"] else kind
