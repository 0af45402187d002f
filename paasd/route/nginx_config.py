"""The text of Nginx's configuration, out of the templates in `nginx/`."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from paasd.config import HttpConfig
from paasd.route import asking, nginx_program
from paasd.route.files import read_text, replace_file
from paasd.route.sites import listen_addresses, tls_addresses

_MAX_OPEN_FILES = 65536
_BODY_SIZE = "100m"


@dataclass(frozen=True)
class Layout:
    """Where everything is in the edge's directory."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "nginx.conf"

    @property
    def locations(self) -> Path:
        return self.directory / "locations.conf"

    @property
    def test(self) -> Path:
        return self.directory / "test"

    @property
    def control(self) -> Path:
        return self.directory / "control" / "control.sock"

    @property
    def tls(self) -> Path:
        return self.directory / "tls"

    @property
    def error_log(self) -> Path:
        return self.directory / "logs" / "error.log"

    @property
    def pid_file(self) -> Path:
        return self.directory / "nginx.pid"


class NginxConfig:
    """Renders it. `user` is whose the workers are, None for ours."""

    def __init__(self, layout: Layout, templates: Path, http: HttpConfig, user: str | None) -> None:
        self._layout = layout
        self._templates = templates
        self._http = http
        self._user = user

    async def write(self, include: Sequence[str]) -> None:
        """The main configuration, which reads the files `include`, and what it shares with them."""
        await _write(self._locations_of(False), await self._locations())
        await _write(self._layout.config, await self._main(include, test=False))

    async def write_test(self, include: Sequence[str]) -> Path:
        """A main configuration to be tested; returns where it is."""
        path = self._layout.test / "nginx.conf"
        await asyncio.to_thread(self._locations_of(True).write_text, await self._locations())
        await asyncio.to_thread(path.write_text, await self._main(include, test=True))
        return path

    def _locations_of(self, test: bool) -> Path:
        return self._layout.test / "locations.conf" if test else self._layout.locations

    async def _locations(self) -> str:
        text = await asyncio.to_thread((self._templates / "locations.conf.j2").read_text)
        return _compile(text).render(
            brotli=await nginx_program.brotli(), ca_bundle=await asyncio.to_thread(asking.ca_bundle, self._http)
        )

    async def _main(self, include: Sequence[str], *, test: bool) -> str:
        brotli = await nginx_program.brotli()
        template, fingerprint = await asyncio.to_thread(_load_template, self._templates)
        return template.render(
            fingerprint=fingerprint,
            modules=[*await nginx_program.modules(), *([brotli] if brotli else [])],
            brotli=brotli,
            user=self._user,
            open_files=open_files(),
            pid=self._layout.test / "nginx.pid" if test else self._layout.pid_file,
            error_log="stderr" if test else f'"{self._layout.error_log}"',
            directory=self._layout.directory,
            locations=self._locations_of(test),
            templates=self._templates,
            listen=listen_addresses(self._http),
            listen_tls=tls_addresses(self._http),
            tls=self._layout.tls,
            https_port=self._http.https_port,
            control=None if test else self._layout.control,
            include=include,
            body_size=_BODY_SIZE,
            cache_size=self._http.cache_size,
            resolvers=await asyncio.to_thread(asking.resolvers, self._http),
            client_rate=self._http.client_rate,
            client_connections=self._http.client_connections,
        )


def open_files() -> int:
    """What a worker may open: at most the hard limit we have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)


def _load_template(templates: Path) -> tuple[jinja2.Template, str]:
    """The main template, and a fingerprint of what Nginx reads besides it, so that an upgrade is noticed."""
    digest = hashlib.sha256()
    for path in _static_files(templates):
        digest.update(path.read_bytes())
    return _compile((templates / "nginx.conf.j2").read_text()), digest.hexdigest()[:16]


@functools.lru_cache(maxsize=4)
def _compile(text: str) -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(text)


def _static_files(templates: Path) -> Iterable[Path]:
    found = [*(templates / "lua").rglob("*.lua"), *(templates / "pages").glob("*.html"), *templates.glob("*.conf")]
    return sorted([*found, templates / "locations.conf.j2"])


async def _write(path: Path, text: str) -> None:
    if await asyncio.to_thread(read_text, path) != text:
        await asyncio.to_thread(replace_file, path, text)
