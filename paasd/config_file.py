"""Reading `paasd.toml`: settings by dotted name, checked against those of `Config`."""

from __future__ import annotations

import dataclasses
import ipaddress
import tomllib
from pathlib import Path
from typing import Any

from paasd.config import Config
from paasd.errors import InvalidInput
from paasd.names import shown

_NETWORKS = frozenset({"http.ocsp_to", "push.sync_from", "run.hooks_to"})
"""What `outbound.may_reach` reads, whenever somebody's request needs it."""
DEFAULT_CONFIG_FILE = Path("/etc/paasd/paasd.toml")


def load(path: Path | None, data_dir: Path) -> Config:
    """Read `path` (TOML; None for defaults only). Raises InvalidInput naming the setting that is wrong."""
    config = Config(data_dir=data_dir.absolute())
    if path is None:
        return config
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InvalidInput(f"no configuration file at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}") from error
    try:
        return changed(config, flatten(document))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.detail}", hint=error.hint) from None


def settings() -> dict[str, Any]:
    """Every setting with its default, by dotted name."""
    return {name: value for name, value in flatten(dataclasses.asdict(Config(Path("/")))).items() if name != "data_dir"}


def flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """A copy with dotted settings replaced, as in `{"http.port": 8080}`; None is left out. Raises InvalidInput."""
    changes = {key: value for key, value in changes.items() if value is not None}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        sections.setdefault(section, {})[key] = value
    top = {key: _checked(config, "", key, value) for key, value in sections.pop("", {}).items()}
    for section, values in sections.items():
        current = getattr(config, section, None)
        if not dataclasses.is_dataclass(current) or isinstance(current, type):
            raise InvalidInput(f"unknown section [{section}] in the configuration")
        checked = {key: _checked(current, section, key, value) for key, value in values.items()}
        top[section] = dataclasses.replace(current, **checked)
    return dataclasses.replace(config, **top)


def _checked(holder: Any, section: str, key: str, value: Any) -> Any:
    name = f"{section}.{key}" if section else key
    if key not in {f.name for f in dataclasses.fields(holder)}:
        raise InvalidInput(f"unknown setting {name}", hint="docs/config.md lists every setting.")
    current = getattr(holder, key)
    if isinstance(current, Path) and isinstance(value, str | Path):
        return Path(value).absolute()
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(current):
        raise InvalidInput(f"{name} must be {type(current).__name__}, not {shown_type(value)}")
    if name in _NETWORKS:
        _check_networks(name, value)
    return value


def _check_networks(name: str, value: str) -> None:
    section, _, key = name.rpartition(".")
    for word in value.split():
        try:
            ipaddress.ip_network(word)
        except ValueError as error:
            raise InvalidInput(
                f"{name} must be networks with spaces between, and {shown(word)} is none: {error}",
                hint=f"Write for example, under [{section}]: {key} = {_meant(word)!r}",
            ) from None


def _meant(word: str) -> str:
    """The network that an address with a length lies in."""
    try:
        return str(ipaddress.ip_network(word, strict=False))
    except ValueError:
        return "10.1.2.0/24 192.168.7.1"


def shown_type(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"
