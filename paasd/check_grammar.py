"""The grammar of health checks: app.json's `healthchecks`, and the settings of `checks:set`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from paasd.errors import InvalidInput
from paasd.names import shown

STRATEGIES = ("path", "command", "listening")
_MOST_CHECKS, _MOST_WORDS, _MOST_HEADERS = 20, 64, 20
_URL = re.compile(r"https?://[\x21-\x7e]{1,500}")
_STATUSES = re.compile(r"[2-5](?:[0-9]{2}|xx)(?:[ ,]+[2-5](?:[0-9]{2}|xx)){0,19}", re.IGNORECASE)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


class CheckType(StrEnum):
    STARTUP = "startup"
    """Must pass before a new instance gets requests; all of them."""
    LIVENESS = "liveness"
    """An instance that fails it is restarted."""
    READINESS = "readiness"
    """An instance that fails it gets no requests until it passes again."""


SETTINGS = {
    "path": "HTTP path that must answer as status says; without one any HTTP answer will do",
    "status": "what it must answer: statuses such as 204, or classes such as 2xx, with spaces between (200 to 399)",
    "content": "text its answer must hold",
    "scheme": "http or https (http)",
    "httpHeaders": "headers of the request, as a list of {name, value}",
    "command": "command that must end with status 0 inside the instance, as a list of words",
    "listening": "true: the port must take connections",
    "port": "port that is asked (the one in $PORT)",
    "uptime": "seconds the instance must stay up (0; 3 where nothing else is checked)",
    "attempts": "failures in a row before the check counts as failed (3)",
    "successes": "successes in a row before it passes (1), or before an unready instance comes back (3)",
    "wait": "seconds between two attempts (5)",
    "timeout": "seconds for one answer (5)",
    "initialDelay": "seconds before the first attempt (0)",
    "name": "what reports call the check",
    "warn": "true: a failure is told, and nothing else happens",
    "onFailure": "what a failure sets off: {command: [words], url: address}",
}


def parse_all(document: Any, where: str) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """`healthchecks` of app.json, and what of it paasd does not do. Raises InvalidInput naming the place."""
    if not isinstance(document, dict) or not all(isinstance(listed, list) for listed in document.values()):
        raise InvalidInput(f"{where} must map process types to lists of checks")
    unused: list[str] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for name, listed in document.items():
        place = f"{where}.{_word(name)}"
        if len(listed) > _MOST_CHECKS:
            raise InvalidInput(f"{place} has {len(listed)} checks; at most {_MOST_CHECKS} are taken")
        found[name] = [_parsed(entry, f"{place}[{n}]", name, unused) for n, entry in enumerate(listed)]
    return found, unused


def _parsed(entry: Any, where: str, process_type: str, unused: list[str]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InvalidInput(f"{where} must be an object", hint='For example: {"type": "readiness", "path": "/ready"}')
    kind = entry.get("type", CheckType.STARTUP)
    if kind not in list(CheckType):
        raise InvalidInput(f"{where}.type must be startup, liveness or readiness, not {shown(str(kind))}")
    unused += [f"{where}.{_word(key)}" for key in entry if key != "type" and key not in SETTINGS]
    known = {key: value for key, value in entry.items() if key in ("type", *SETTINGS) and value is not None}
    check_settings({key: value for key, value in known.items() if key != "type"}, f"{where}.")
    if kind == CheckType.LIVENESS and "uptime" in known:
        del known["uptime"]
        unused.append(f"{where}.uptime (a liveness check that waits for it would restart the instance for ever)")
    if kind == CheckType.LIVENESS and "successes" in known:
        del known["successes"]
        unused.append(f"{where}.successes (one is enough for an instance not to be restarted)")
    if kind != CheckType.STARTUP and process_type != "web" and not _says_something(known):
        raise InvalidInput(
            f"{where} does not say what to check", hint="Give it one of path, command, listening; readiness: or uptime."
        )
    return known


def _word(name: str) -> str:
    return name if name.isidentifier() else shown(name)


def _says_something(entry: Mapping[str, Any]) -> bool:
    return any(entry.get(key) for key in (*STRATEGIES, "status", "content", "uptime"))


def check_settings(settings: Mapping[str, Any], where: str = "") -> None:
    """Raises InvalidInput for a setting that does not exist, a wrong value, or strategies that exclude each other.
    None values are left out of account."""
    for name, value in settings.items():
        if name not in SETTINGS:
            raise InvalidInput(f"unknown check setting {shown(name)}", hint=f"Known: {', '.join(SETTINGS)}")
        if value is not None and (wrong := _RULES[name](value)):
            raise InvalidInput(f"{where}{name} must be {wrong}")
    chosen = [name for name in STRATEGIES if settings.get(name)]
    if len(chosen) > 1:
        raise InvalidInput(
            f"{where}{chosen[1]} excludes {chosen[0]}", hint="Write two checks: all of a type must pass."
        )
    if misfits := answer_settings(settings) if chosen not in ([], ["path"]) else []:
        raise InvalidInput(
            f"{where}{misfits[0]} is for checks with a path",
            hint=f"Give it a path in place of {chosen[0]}, or write two checks: all of a type must pass.",
        )


def answer_settings(settings: Mapping[str, Any]) -> list[str]:
    """Which of them say what an HTTP answer must be."""
    return [name for name in ("status", "content") if settings.get(name) is not None]


def statuses_of(value: str | int | None) -> tuple[str, ...]:
    """`204` and `2xx`, of a setting `status` that is right."""
    return tuple(dict.fromkeys(str(value or "").lower().replace(",", " ").split()))


_Rule = Callable[[Any], str | None]


def _text(limit: int) -> _Rule:
    def rule(value: Any) -> str | None:
        good = isinstance(value, str) and value.isprintable() and 0 < len(value) <= limit
        return None if good else f"printable text of at most {limit} characters"

    return rule


def _number(least: float, most: float, *, whole: bool = False) -> _Rule:
    def rule(value: Any) -> str | None:
        good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        kind = "a whole number" if whole else "a number"
        return None if good and least <= value <= most else f"{kind} from {least:g} to {most:g}"

    return rule


def _path(value: Any) -> str | None:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or len(value) > 500:
        return "printable text of at most 500 characters that starts with /"
    return "without spaces" if " " in value else None


def _status(value: Any) -> str | None:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return None if _STATUSES.fullmatch(text) else "a status from 200 to 599, a class such as 2xx, or several of them"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _scheme(value: Any) -> str | None:
    return None if value in ("http", "https") else "http or https"


def _command(value: Any) -> str | None:
    good = isinstance(value, list) and value and all(isinstance(word, str) and "\0" not in word for word in value)
    small = good and len(value) <= _MOST_WORDS and len(json.dumps(value)) <= 4000
    return None if small and value[0] else 'a list of words, such as ["pg_isready", "-q"]'


def _on_failure(value: Any) -> str | None:
    if not isinstance(value, dict) or not value or set(value) - {"command", "url"}:
        return 'an object with a command, a url or both, such as {"url": "https://example.org/failed"}'
    if (command := value.get("command")) is not None and (wrong := _command(command)):
        return f"an object whose command is {wrong}"
    url = value.get("url")
    good = url is None or (isinstance(url, str) and _URL.fullmatch(url))
    return None if good else "an object whose url begins with https:// or http://"


def _headers(value: Any) -> str | None:
    good = isinstance(value, list) and len(value) <= _MOST_HEADERS and all(map(_is_header, value))
    return None if good else 'a list of headers, such as [{"name": "X-Check", "value": "1"}]'


def _is_header(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    name, value = entry.get("name"), entry.get("value")
    if not isinstance(name, str) or not isinstance(value, str) or not _HEADER.fullmatch(name):
        return False
    return value.isprintable() and len(value) <= 1000


_RULES: Mapping[str, _Rule] = {
    "path": _path,
    "status": _status,
    "content": _text(500),
    "scheme": _scheme,
    "httpHeaders": _headers,
    "command": _command,
    "listening": _boolean,
    "port": _number(1, 65535, whole=True),
    "uptime": _number(0, 3600),
    "attempts": _number(0, 1000, whole=True),
    "successes": _number(1, 1000, whole=True),
    "wait": _number(0, 3600),
    "timeout": _number(0, 3600),
    "initialDelay": _number(0, 3600),
    "name": _text(100),
    "warn": _boolean,
    "onFailure": _on_failure,
}
