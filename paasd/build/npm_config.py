"""The host's npm settings that builds need too: registries, tokens and proxies. Given to builds as mounted files,
because they hold credentials: `.npmrc` for npm, pnpm, Yarn 1 and Bun, `.yarnrc.yml` for later versions of Yarn."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_GLOBAL = ("/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc")
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PLAIN = ("registry", "proxy", "https-proxy", "noproxy", "strict-ssl", "fetch-timeout", "fetch-retries")
# npm itself waits five minutes for a download that has come to a halt.
_DEFAULTS = {"fetch-timeout": "60000"}
_AUTH = ("_authToken", "_auth", "username", "_password", "email")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass
class NpmConfig:
    """What is taken over. Names as in an npmrc; `//host/path/:_authToken` is kept by its place."""

    plain: dict[str, str] = field(default_factory=lambda: dict(_DEFAULTS))
    scopes: dict[str, str] = field(default_factory=dict)
    """Registry by scope, without the @."""
    places: dict[str, dict[str, str]] = field(default_factory=dict)
    """Credentials by place (`//host/path/`)."""

    def npmrc(self) -> str:
        lines = [f"cafile={_CA_BUNDLE}"]
        lines += [f"{name}={value}" for name, value in self.plain.items()]
        lines += [f"@{scope}:registry={url}" for scope, url in self.scopes.items()]
        lines += [f"{place}:{name}={value}" for place, found in self.places.items() for name, value in found.items()]
        return "\n".join(lines) + "\n"

    def yarnrc(self) -> str:
        """YAML in its JSON form."""
        settings: dict[str, object] = {"enableTelemetry": False}
        for name, key in (("registry", "npmRegistryServer"), ("proxy", "httpProxy"), ("https-proxy", "httpsProxy")):
            if value := self.plain.get(name):
                settings[key] = value.rstrip("/") if name == "registry" else value
        if self.plain.get("strict-ssl") == "false":
            settings["enableStrictSsl"] = False
        if self.scopes:
            settings["npmScopes"] = {s: {"npmRegistryServer": url.rstrip("/")} for s, url in self.scopes.items()}
        places = {place: auth for place, found in self.places.items() if (auth := _yarn_auth(found))}
        if places:
            settings["npmRegistries"] = {place.rstrip("/"): auth for place, auth in places.items()}
        return json.dumps(settings, indent=2) + "\n"


def host_npm_config(environ: Mapping[str, str] = os.environ) -> NpmConfig:
    """From the host's files and the daemon's environment. Reads files."""
    files = [*map(Path, _GLOBAL), Path(environ.get("HOME", "/nonexistent")) / ".npmrc"]
    files += [
        Path(path) for name in ("npm_config_globalconfig", "npm_config_userconfig") if (path := environ.get(name))
    ]
    return npm_config([text for path in files if (text := _text(path)) is not None], environ)


def npm_config(files: Iterable[str], environ: Mapping[str, str]) -> NpmConfig:
    """Later files win over earlier ones, the environment over all. Only http(s) places can be reached from a build."""
    found = NpmConfig()
    for text in files:
        for line in text.splitlines():
            name, mark, value = line.strip().partition("=")
            if mark and not name.startswith((";", "#")):
                _take(found, name.strip(), _expanded(value.strip().strip("\"'"), environ))
    for variable, value in environ.items():
        if variable.lower().startswith("npm_config_"):
            _take(found, _option(variable[len("npm_config_") :]), value)
    return found


def _option(name: str) -> str:
    """`HTTPS_PROXY` → `https-proxy`; scopes and places keep their letters."""
    return name if name.startswith(("@", "//")) else name.lower().replace("_", "-")


def _take(found: NpmConfig, name: str, value: str) -> None:
    if not value or _CONTROL.search(value):
        return
    place, mark, option = name.rpartition(":")
    if name in _PLAIN:
        if name != "registry" or _is_remote(value):
            found.plain[name] = value
    elif mark and place.startswith("//") and option in _AUTH:
        found.places.setdefault(place, {})[option] = value
    elif mark and place.startswith("@") and option == "registry" and _is_remote(value):
        found.scopes[place[1:]] = value


def _yarn_auth(found: Mapping[str, str]) -> dict[str, object]:
    if token := found.get("_authToken"):
        return {"npmAuthToken": token, "npmAlwaysAuth": True}
    if ident := found.get("_auth"):
        return {"npmAuthIdent": ident, "npmAlwaysAuth": True}
    return {}


def _expanded(value: str, environ: Mapping[str, str]) -> str:
    """`${NPM_TOKEN}` as npm expands it; left as it is when the daemon does not know it."""
    return _VARIABLE.sub(lambda match: environ.get(match[1], match[0]), value)


def _is_remote(value: str) -> bool:
    return value.startswith(("http://", "https://"))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
