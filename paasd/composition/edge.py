"""The stage route: Nginx, the routes it gets, and the certificates it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paasd.composition.base import Base
from paasd.composition.stores import Stores
from paasd.route.acme.authority import Authority
from paasd.route.acme.challenges import Challenges
from paasd.route.edge import Edge
from paasd.route.issuing import Issuing
from paasd.route.local_ca import LocalAuthority
from paasd.route.serving import Serving
from paasd.route.stapling import Stapling
from paasd.routing import Routing
from paasd.run.readiness import Readiness

_TEMPLATES = Path(__file__).parent.parent.parent / "nginx"


@dataclass(frozen=True)
class EdgeParts:
    edge: Edge
    readiness: Readiness
    routing: Routing
    serving: Serving
    issuing: Issuing
    stapling: Stapling


def compose_edge(base: Base, stores: Stores) -> EdgeParts:
    config = base.config
    edge, readiness = Edge(config.edge_dir, _TEMPLATES, config.http), Readiness()
    serving = Serving(config.http, stores.apps, stores.domains, stores.certificates, stores.tls_settings, edge.tls)
    return EdgeParts(
        edge=edge,
        readiness=readiness,
        routing=Routing(config, stores.releases, stores.instances, readiness, stores.sleep_rules),
        serving=serving,
        issuing=_issuing(base, stores, edge, serving),
        stapling=Stapling(
            config.http,
            config.run.subnet_pool,
            base.database,
            stores.apps,
            stores.jobs,
            stores.certificates,
            serving,
            edge.tls,
        ),
    )


def _issuing(base: Base, stores: Stores, edge: Edge, serving: Serving) -> Issuing:
    acme = base.config.acme
    return Issuing(
        base.database,
        acme,
        stores.apps,
        stores.domains,
        stores.jobs,
        stores.certificates,
        stores.troubles,
        stores.tls_settings,
        serving,
        Authority(acme, stores.authority_keys, Challenges(acme, edge.tls)),
        LocalAuthority(stores.authority_keys),
    )
