"""Server blocks of apps that need one of their own: its text, and the directories `sites/` and `quarantine/`, which
only this module writes. All other apps are served by the common one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import jinja2

from paasd.config import HttpConfig
from paasd.edge_values import Site
from paasd.errors import InvalidInput, InvalidSite
from paasd.names import app_name, shown
from paasd.route import processes
from paasd.route.files import read_text, replace_file
from paasd.route.hosts import host_lines

_BODY_SIZE = re.compile(r"[0-9]{1,20}[kKmMgG]?")


def listen_addresses(http: HttpConfig) -> list[str]:
    """What server blocks listen on for plain HTTP."""
    return [f"{_bracketed(http.address)}:{http.port}"]


def tls_addresses(http: HttpConfig) -> list[str]:
    """The same for HTTPS; none when it is switched off, or when its port is not ours to open."""
    usable = http.https_port and processes.may_listen(http.address, http.https_port)
    return [f"{_bracketed(http.address)}:{http.https_port}"] if usable else []


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


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
        self._locations = directory / "locations.conf"
        self.client_cas = directory / "tls" / "clients"
        self._templates = templates
        self._listen, self._listen_tls = listen_addresses(http), tls_addresses(http)
        environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
        self._template = environment.from_string((templates / "site.conf.j2").read_text())

    def create(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.quarantine.mkdir(exist_ok=True)
        self.client_cas.mkdir(parents=True, exist_ok=True)

    def render(self, site: Site) -> str | None:
        """Text of its server block; None when it needs none. Raises InvalidSite."""
        names = sorted(host for host, line in host_lines(site).items() if line.startswith("app "))
        if site.body_size and not _BODY_SIZE.fullmatch(site.body_size):
            raise InvalidSite(
                f"invalid body size {shown(site.body_size)}", hint="Use a number with k, m or g, like 100m."
            )
        if not site.needs_block or not names:
            return None
        return self._template.render(
            site=site,
            names=names,
            blocks=[(self._listen, "plain", "")]
            + ([(self._listen_tls, "tls", " ssl http2")] if self._listen_tls else []),
            templates=self._templates,
            locations=self._locations,
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
        if self.read(app) != text:
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

    def quarantined(self) -> list[str]:
        return sorted(path.stem for path in self.quarantine.glob("*.conf"))

    def fingerprint(self, *shared: Path) -> str:
        """Of all that Nginx reads: what all sites share, and the sites."""
        digest = hashlib.sha256()
        for path in [*shared, *sorted(self.directory.glob("*.conf"))]:
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
