"""quota:*"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput

_project = click.option("--project", help="Of this project.")
_organization = click.option("--org", is_flag=True, help="Of the whole organization; the default.")


@root.command(
    "quota:set",
    examples=("quota:set --org apps=20 memory=8g disk=100g", "quota:set --project blog memory=2g cpu=1.5 builds=1"),
)
@_organization
@_project
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.pass_obj
def set_quotas(cli: Cli, org: bool, project: str | None, pairs: tuple[str, ...]) -> None:
    """Set what a project or the organization may use: apps, memory, cpu, disk, builds, builds-per-hour, builds-per-day,
    and warn, the percentage from which on it is told. For administrators. What runs already is never stopped."""
    settings: dict[str, str | None] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not value:
            raise InvalidInput(f"{pair!r} is not of the form key=value", hint="For example: quota:set --org memory=8g")
        settings[key] = value
    _change(cli, org, project, settings)


@root.command("quota:unset", examples=("quota:unset --project blog memory", "quota:unset --org builds-per-hour"))
@_organization
@_project
@click.argument("keys", nargs=-1, required=True)
@click.pass_obj
def unset(cli: Cli, org: bool, project: str | None, keys: tuple[str, ...]) -> None:
    """Take quotas away. For administrators."""
    _change(cli, org, project, dict.fromkeys(keys))


@root.command("quota:report", examples=("quota:report", "quota:report --project blog", "quota:report --org --json"))
@_organization
@_project
@json_option
@click.pass_obj
def report(cli: Cli, org: bool, project: str | None, as_json: bool) -> None:
    """Show what the organization and its projects use, and their quotas."""
    query = {"project": _named(org, project)} if org or project else {}
    found = cli.client.get("/quotas", **query)["items"]
    if as_json:
        return cli.console.json(found)
    _print(cli, found)


def _change(cli: Cli, org: bool, project: str | None, settings: dict[str, str | None]) -> None:
    body = {"project": _named(org, project) or None, "settings": settings}
    found = cli.client.request("PATCH", "/quotas", body)["items"]
    cli.console.print(f"-----> Quotas of {f'project {project}' if project else 'the organization'} are set")
    _print(cli, found)


def _named(org: bool, project: str | None) -> str:
    """Empty for the organization."""
    if org and project:
        raise InvalidInput("say either --org or --project")
    return project or ""


def _print(cli: Cli, scopes: list[dict[str, Any]]) -> None:
    rows = []
    for scope in scopes:
        for key, quota in scope["quotas"].items():
            if quota["limit"] is None and not quota["used"]:
                continue
            title = scope["project"] or "(organization)"
            rows.append((title, key, _shown(key, quota["used"]), _shown(key, quota["limit"]), _state(quota)))
    cli.console.table(("PROJECT", "QUOTA", "USED", "LIMIT", ""), rows)


def _state(quota: dict[str, Any]) -> str:
    if quota["limit"] is None or not quota["near"]:
        return ""
    return "USED UP" if quota["used"] >= quota["limit"] else "NEARLY USED UP"


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key not in ("memory", "disk"):
        return f"{value:.4g}"
    return f"{value / 1024**2:.4g} MiB" if value < 1024**3 else f"{value / 1024**3:.4g} GiB"
