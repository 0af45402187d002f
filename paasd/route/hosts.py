"""Host names as the edge's table `hosts` has them: the grammar, and the line of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from paasd.edge_values import Redirect, Site
from paasd.errors import InvalidInput, InvalidSite
from paasd.names import app_name, shown

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_HSTS = re.compile(r"(?:max-age=[0-9]{1,10}(?:; includeSubDomains)?(?:; preload)?)?")
_TARGET = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~!$&\'()*+,;=:@%/-]{0,1000})?")
STATUSES = (301, 302, 307, 308)


def server_name(value: str) -> str:
    """Check one host name, perhaps `*.` and at least two labels. Raises InvalidSite."""
    parent = value.removeprefix("*.")
    numeric = value.rpartition(".")[2].isdigit()
    shallow = parent != value and "." not in parent
    if len(value) > 253 or numeric or shallow or not _HOST_NAME.fullmatch(parent):
        raise InvalidSite(
            f"invalid host name {shown(value)}",
            hint="Use lowercase labels of letters, digits and inner hyphens joined by dots (IDNA names as xn--…), "
            "*. before them for all names below; no address or port.",
        )
    return value


def host_lines(site: Site) -> dict[str, str]:
    """`app <name>` or `redirect <app> <status> <URL prefix>` by host name. After the app `own` says that only its own
    server block serves it, `clients` that this takes a certificate, `hsts=` what browsers are told (`_` for spaces).
    Raises InvalidSite."""
    try:
        app_name(site.app)
    except InvalidInput as error:
        raise InvalidSite(error.detail, hint=error.hint) from error
    if not _HSTS.fullmatch(site.hsts):
        raise InvalidSite(f"invalid value of Strict-Transport-Security: {shown(site.hsts)}")
    words = ["app", site.app]
    words += ["own"] * site.needs_block + ["clients"] * bool(site.client_ca)
    words += [f"hsts={site.hsts.replace(' ', '_')}"] * bool(site.hsts)
    lines = {server_name(name): " ".join(words) for name in site.domains}
    for redirect in site.redirects:
        lines[server_name(redirect.host)] = _redirect_line(site.app, redirect)
    return lines


def _redirect_line(app: str, redirect: Redirect) -> str:
    if redirect.status not in STATUSES or not _TARGET.fullmatch(redirect.target):
        raise InvalidSite(f"{redirect.host} cannot be redirected with {redirect.status} to {shown(redirect.target)}")
    return f"redirect {app} {redirect.status} {redirect.target}"


def all_lines(sites: Sequence[Site]) -> tuple[dict[str, str], dict[str, str]]:
    """Lines of all sites by host name, and reasons by app whose site is not possible. Of two apps with one name the
    first has it."""
    lines: dict[str, str] = {}
    refused: dict[str, str] = {}
    for site in sites:
        try:
            own = host_lines(site)
            check_free(site.app, own, lines)
            lines |= own
        except InvalidSite as error:
            refused[site.app] = error.detail
    return lines, refused


def set_apart(sites: Sequence[Site]) -> list[Site]:
    """The sites, those apart whose names another one's server block would take by its wildcard."""
    wide = {name: site.app for site in sites if site.needs_block for name in site.domains if name.startswith("*.")}
    return [apart_from(site, wide) for site in sites]


def apart_from(site: Site, wide: Mapping[str, str]) -> Site:
    """`wide`: apps by the wildcards that they have in server blocks."""
    parents = tuple(name[1:] for name, app in wide.items() if app != site.app)
    return replace(site, apart=any(name.endswith(parents) for name in site.domains)) if parents else site


def check_free(app: str, names: Mapping[str, str], lines: Mapping[str, str]) -> None:
    """Raises InvalidSite when another app has one of the names."""
    for name in names:
        if name in lines and (other := app_of(lines[name])) != app:
            raise InvalidSite(f"{name} already belongs to the app {other}")


def app_of(line: str) -> str:
    return line.partition(" ")[2].partition(" ")[0]


def is_own(line: str) -> bool:
    """Whether only its app's own server block serves it."""
    return "own" in line.split()[2:3]
