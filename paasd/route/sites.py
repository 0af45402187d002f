"""Server blocks: the grammar of host names, the text of a site, and the directories `sites/` and `quarantine/`, which
only this module writes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jinja2

from paasd.config import HttpConfig
from paasd.errors import InvalidInput, InvalidSite
from paasd.models import Site
from paasd.names import app_name, shown
from paasd.route import processes

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_BODY_SIZE = re.compile(r"[0-9]{1,20}[kKmMgG]?")
_HSTS = re.compile(r"(?:max-age=[0-9]{1,10}(?:; includeSubDomains)?(?:; preload)?)?")
_MAX_READ_TIMEOUT = 24 * 3600


def server_name(value: str) -> str:
    """Check one host name as it may stand in a server block. Nginx itself would take wildcards, regular expressions
    and text that closes the block. Raises InvalidSite."""
    numeric = value.rpartition(".")[2].isdigit()
    if len(value) > 253 or numeric or not _HOST_NAME.fullmatch(value):
        raise InvalidSite(
            f"invalid host name {shown(value)}",
            hint="Use lowercase labels of letters, digits and inner hyphens joined by dots (IDNA names as xn--…); "
            "no wildcard, address or port.",
        )
    return value


def listen_addresses(http: HttpConfig) -> list[str]:
    """What server blocks listen on for plain HTTP."""
    return [f"{_bracketed(http.address)}:{http.port}"]


def tls_addresses(http: HttpConfig) -> list[str]:
    """The same for HTTPS; none when it is switched off, or when its port is not ours to open."""
    usable = http.https_port and processes.may_listen(http.address, http.https_port)
    return [f"{_bracketed(http.address)}:{http.https_port}"] if usable else []


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def replace_file(path: Path, text: str) -> None:
    """Write `path` so that it has the old text or the new one, whenever the power goes."""
    prepare_file(path, text)
    commit_file(path)


def prepare_file(path: Path, text: str) -> None:
    """Everything of replace_file that can fail for want of space."""
    with open(_temporary(path), "w", opener=_private) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def commit_file(path: Path) -> None:
    os.replace(_temporary(path), path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def discard_file(path: Path) -> None:
    _temporary(path).unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _is_app_name(text: str) -> bool:
    try:
        return bool(app_name(text))
    except InvalidInput:
        return False


class SiteFiles:
    """Renders sites and keeps their files. Blocking; nothing here talks to Nginx."""

    def __init__(self, directory: Path, templates: Path, http: HttpConfig) -> None:
        self.directory = directory / "sites"
        self.quarantine = directory / "quarantine"
        self.client_cas = directory / "tls" / "clients"
        self._listen, self._listen_tls = listen_addresses(http), tls_addresses(http)
        self._https_port = http.https_port
        environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
        self._template = environment.from_string((templates / "site.conf.j2").read_text())

    def create(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.quarantine.mkdir(exist_ok=True)
        self.client_cas.mkdir(parents=True, exist_ok=True)

    def render(self, site: Site, taken: Mapping[str, str]) -> str:
        """Text of the server block. `taken` says which other app has a host name. Raises InvalidSite."""
        try:
            app_name(site.app)
        except InvalidInput as error:
            raise InvalidSite(error.detail, hint=error.hint) from error
        domains = sorted({server_name(domain) for domain in site.domains})
        for domain in domains:
            if taken.get(domain, site.app) != site.app:
                raise InvalidSite(f"{domain} already belongs to the app {taken[domain]}")
        if not _BODY_SIZE.fullmatch(site.client_max_body_size):
            raise InvalidSite(
                f"invalid body size {shown(site.client_max_body_size)}", hint="Use a number with k, m or g, like 100m."
            )
        if not 1 <= site.read_timeout <= _MAX_READ_TIMEOUT:
            raise InvalidSite(f"read time-out of {site.read_timeout} s is not within 1 to {_MAX_READ_TIMEOUT} s")
        if not _HSTS.fullmatch(site.hsts):
            raise InvalidSite(f"invalid value of Strict-Transport-Security: {shown(site.hsts)}")
        return self._template.render(
            site=site,
            domains=domains,
            listen=self._listen,
            listen_tls=self._listen_tls,
            https_port=self._https_port,
            client_ca=self._client_ca(site) if site.client_ca else None,
        )

    def prepare(self, sites: Iterable[Site]) -> None:
        """Write what the texts of these sites will name."""
        for site in sites:
            if site.client_ca and _is_app_name(site.app) and read_text(self._client_ca(site)) != site.client_ca:
                replace_file(self._client_ca(site), site.client_ca)

    def _client_ca(self, site: Site) -> Path:
        """Its name tells its content, so that a site's text changes with it."""
        digest = hashlib.sha256(site.client_ca.encode()).hexdigest()[:16]
        return self.client_cas / f"{site.app}-{digest}.pem"

    def path(self, app: str) -> Path:
        return self.directory / f"{app_name(app)}.conf"

    def read(self, app: str) -> str | None:
        return read_text(self.path(app))

    def write(self, app: str, text: str) -> None:
        replace_file(self.path(app), text)
        self._quarantined(app).unlink(missing_ok=True)

    def remove(self, app: str) -> None:
        self._quarantined(app).unlink(missing_ok=True)
        self.path(app).unlink(missing_ok=True)

    def set_aside(self, app: str, text: str, reason: str) -> None:
        """Keep a text that Nginx refused, with the reason, where Nginx does not read it."""
        comment = "".join(f"# {line}\n" for line in reason.splitlines())
        replace_file(self._quarantined(app), comment + text)

    def apps(self) -> list[str]:
        """Apps whose site files there are."""
        return sorted(path.stem for path in self.directory.glob("*.conf") if _is_app_name(path.stem))

    def fingerprint(self, config: Path) -> str:
        """Of all that Nginx reads: the main configuration and the sites."""
        digest = hashlib.sha256()
        for path in [config, *sorted(self.directory.glob("*.conf"))]:
            digest.update(f"{path.name}\0{read_text(path)}\0".encode())
        return digest.hexdigest()

    def strays(self) -> Iterator[Path]:
        """Whatever else lies in the directories: half-written files of a killed daemon, files of strangers."""
        for directory in (self.directory, self.quarantine):
            yield from (path for path in directory.iterdir() if path.suffix != ".conf" or not _is_app_name(path.stem))
        if authorities := list(self.client_cas.iterdir()):
            sites = "".join(read_text(path) or "" for path in self.directory.glob("*.conf"))
            yield from (path for path in authorities if str(path) not in sites)

    def _quarantined(self, app: str) -> Path:
        return self.quarantine / f"{app}.conf"
