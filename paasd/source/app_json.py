"""app.json: what paasd reads of Heroku's and Dokku's keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paasd import schedules
from paasd.autoscale_rules import checked_rule
from paasd.check_grammar import parse_all
from paasd.errors import InvalidInput, SourceRejected
from paasd.models import ConfigVarNeed
from paasd.names import config_key, process_type, shown
from paasd.source.documents import json_document, table

FILE = "app.json"
_MAX_QUANTITY = 100
_KNOWN = {"name", "description", "keywords", "website", "repository", "logo", "success_url", "stack", "image"}
_USED = {"env", "scripts", "buildpacks", "formation", "healthchecks", "cron"}
_AUTOSCALING = {"min": "min_quantity", "max": "max_quantity", "cooldown": "cooldown_period_seconds"}


@dataclass(frozen=True)
class AppJson:
    healthchecks: Mapping[str, Any] = field(default_factory=dict)
    config_vars: Mapping[str, ConfigVarNeed] = field(default_factory=dict)
    buildpacks: tuple[str, ...] = ()
    test_command: str = ""
    kept: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def parse(text: str | None) -> AppJson:
    """Empty without the file. Raises SourceRejected naming the key that is wrong."""
    if text is None:
        return AppJson()
    document = json_document(FILE, text)
    scripts = _scripts(document)
    kept = {
        "formation": _formation(document),
        "autoscaling": _autoscaling(document),
        "cron": _cron(document),
        "scripts": scripts,
    }
    healthchecks, unused_checks = _healthchecks(document)
    unused = [f"{FILE}: {key}" for key in sorted(set(document) - _KNOWN - _USED)]
    return AppJson(
        healthchecks=healthchecks,
        config_vars=_env(document),
        buildpacks=tuple(_buildpacks(document)),
        test_command=scripts.pop("test", ""),
        kept={key: value for key, value in kept.items() if value},
        unused=(*unused, *unused_checks),
    )


def _healthchecks(document: Mapping[str, Any]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    try:
        return parse_all(document.get("healthchecks", {}), "app.json: healthchecks")
    except InvalidInput as error:
        raise SourceRejected(error.detail, hint=error.hint) from error


def _env(document: Mapping[str, Any]) -> dict[str, ConfigVarNeed]:
    found = {}
    for name, value in table(FILE, document, "env").items():
        where = f"app.json: env.{name}"
        try:
            config_key(name)
        except InvalidInput as error:
            raise SourceRejected(f"app.json: env: {error.detail}", hint=error.hint) from error
        given = {"value": value} if isinstance(value, str | int | float | bool) else value
        if not isinstance(given, dict):
            raise SourceRejected(f"{where} must be a string or an object")
        generator = given.get("generator")
        if generator not in (None, "secret"):
            raise SourceRejected(f"{where}.generator is {shown(str(generator))}; only secret is known")
        text = given.get("value")
        found[name] = ConfigVarNeed(
            # Only when it says so: on Heroku a push asks for nothing, and apps made for it shall deploy as they are.
            required=given.get("required") is True and text is None and generator is None,
            value=_text(text),
            generated=generator == "secret",
            description=str(given.get("description", "")),
        )
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _buildpacks(document: Mapping[str, Any]) -> list[str]:
    found = document.get("buildpacks", [])
    if not isinstance(found, list):
        raise SourceRejected("app.json: buildpacks must be a list")
    return [str(entry.get("url", "")) if isinstance(entry, dict) else str(entry) for entry in found]


def _scripts(document: Mapping[str, Any]) -> dict[str, str]:
    """By the names that the deployment knows; Dokku's are under `scripts.dokku`."""
    scripts = table(FILE, document, "scripts")
    dokku = table(f"{FILE} scripts", scripts, "dokku")
    environments = table(FILE, document, "environments")
    test = table(FILE, table(FILE, environments, "test"), "scripts").get("test")
    wanted = {
        "predeploy": dokku.get("predeploy"),
        "postdeploy": scripts.get("postdeploy"),
        "postdeploy-always": dokku.get("postdeploy"),
        "test": scripts.get("test", test),
    }
    for name, value in wanted.items():
        if value is not None and not isinstance(value, str):
            raise SourceRejected(f"app.json: scripts: {name} must be a string")
    return {name: value.strip() for name, value in wanted.items() if value and value.strip()}


def _formation(document: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for name, value in table(FILE, document, "formation").items():
        quantity = value.get("quantity", 1) if isinstance(value, dict) else None
        if not isinstance(quantity, int) or isinstance(quantity, bool) or not 0 <= quantity <= _MAX_QUANTITY:
            raise SourceRejected(f"app.json: formation.{name}.quantity must be a whole number up to {_MAX_QUANTITY}")
        try:
            found[process_type(name)] = quantity
        except InvalidInput as error:
            raise SourceRejected(f"app.json: formation: {error.detail}", hint=error.hint) from error
    return found


def _autoscaling(document: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Settings of `autoscale:set` by process type. Of the triggers those by use of CPU and memory are known."""
    found = {}
    for name, value in table(FILE, document, "formation").items():
        given = value.get("autoscaling") if isinstance(value, dict) else None
        if given is None:
            continue
        where = f"app.json: formation.{name}.autoscaling"
        if not isinstance(given, dict):
            raise SourceRejected(f"{where} must be an object")
        settings = {key: given[theirs] for key, theirs in _AUTOSCALING.items() if given.get(theirs) is not None}
        settings |= _triggers(given.get("triggers", []), where)
        try:
            found[name] = checked_rule(name, {key: str(value) for key, value in settings.items()})
        except InvalidInput as error:
            raise SourceRejected(f"{where}: {error.detail}", hint=error.hint) from error
    return found


def _triggers(triggers: Any, where: str) -> dict[str, Any]:
    if not isinstance(triggers, list):
        raise SourceRejected(f"{where}.triggers must be a list")
    found = {}
    for number, trigger in enumerate(triggers):
        kind = trigger.get("type") if isinstance(trigger, dict) else None
        metadata = trigger.get("metadata") if isinstance(trigger, dict) else None
        if kind not in ("cpu", "memory") or not isinstance(metadata, dict):
            raise SourceRejected(
                f"{where}.triggers[{number}] is not by use of cpu or memory",
                hint="Set others with autoscale:set, and leave them out of app.json.",
            )
        if metadata.get("type", "Utilization") != "Utilization":
            raise SourceRejected(f"{where}.triggers[{number}].metadata.type must be Utilization")
        found[kind] = metadata.get("value", "")
    return found


def _cron(document: Mapping[str, Any]) -> list[dict[str, str]]:
    found = document.get("cron", [])
    if not isinstance(found, list):
        raise SourceRejected("app.json: cron must be a list")
    return [_cron_entry(number, entry) for number, entry in enumerate(found)]


def _cron_entry(number: int, entry: Any) -> dict[str, str]:
    where = f"app.json: cron[{number}]"
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("command", "schedule")):
        raise SourceRejected(f"{where} must have a command and a schedule")
    if not entry["command"].strip() or "\0" in entry["command"]:
        raise SourceRejected(f"{where}.command is empty, or holds a null character")
    try:
        schedule = schedules.checked(entry["schedule"])
    except ValueError as error:
        raise SourceRejected(
            f"{where}.schedule {shown(entry['schedule'])} is no schedule: it must be {error}",
            hint='Write for example "0 3 * * *" or "@daily".',
        ) from None
    return {"command": entry["command"].strip(), "schedule": schedule, **_cron_options(where, entry)}


def _cron_options(where: str, entry: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    if (policy := entry.get("concurrency_policy", "allow")) not in ("allow", "forbid", "replace"):
        raise SourceRejected(f"{where}.concurrency_policy must be allow, forbid or replace")
    if policy != "allow":
        found["concurrency"] = policy
    if (zone := entry.get("timezone")) is not None:
        try:
            found["timezone"] = schedules.checked_zone(str(zone))
        except ValueError as error:
            raise SourceRejected(f"{where}.timezone {shown(str(zone))} must be {error}") from None
    return found
