"""What the edge is told of apps, and tells of them: sites, routes, endpoints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """Where an instance listens."""

    address: str
    port: int
    weight: int = 1

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class InFlight:
    """What the edge has under way to an endpoint."""

    requests: int = 0
    streams: int = 0
    """WebSockets and event streams, which are no requests here."""


@dataclass(frozen=True)
class CanaryRoute:
    """A release that gets a share of an app's requests."""

    endpoints: tuple[Endpoint, ...]
    release: int
    percent: int
    """0 to 100."""
    variable: str | None = None
    """Nginx variable of a header or cookie that says `always` or `never`: `http_x_canary`, `cookie_canary`."""


@dataclass(frozen=True)
class Route:
    """What the edge does with an app's requests. No endpoints: a 503 page that retries."""

    app: str
    endpoints: tuple[Endpoint, ...] = ()
    release: int = 0
    canary: CanaryRoute | None = None
    hold: float | None = None
    """Seconds that requests wait for an app that is asleep, instead of endpoints; None: it is not."""


@dataclass(frozen=True)
class Redirect:
    """A host name whose visitors are sent elsewhere; path and query are kept."""

    host: str
    status: int
    target: str
    """URL prefix, such as `https://example.org`."""


@dataclass(frozen=True)
class Site:
    """What the edge knows of an app besides its route."""

    app: str
    domains: tuple[str, ...]
    redirects: tuple[Redirect, ...] = ()
    body_size: str = ""
    """Most that a request's body may have, in Nginx's form (`20m`); empty for what all apps have."""
    hsts: str = ""
    """Value of Strict-Transport-Security over HTTPS; nothing when empty."""
    client_ca: str = ""
    """PEM of the authorities that clients need a certificate of; empty lets everybody in."""
    policy: str = ""
    """JSON of what was set for the gateway, by part; empty when nothing was."""
    pages: str = ""
    """JSON of the pages that the app has in place of the edge's own; empty when there are none."""
    snippet: str = ""
    """An administrator's own directives for its server block."""
    apart: bool = False
    """Its names lie below a wildcard of another app's server block, which Nginx would choose for them."""

    @property
    def needs_block(self) -> bool:
        """What Nginx takes only from its configuration is in a server block of the app's own."""
        return bool(self.body_size or self.client_ca or self.snippet or self.apart)
