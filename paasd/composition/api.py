"""The resources of the API, by what they tell of."""

from __future__ import annotations

from paasd.api.operations import Resource
from paasd.api.v1.apps import AppsResource
from paasd.api.v1.autoscale import AutoscaleResource
from paasd.api.v1.box import BoxResource
from paasd.api.v1.build_settings import BuildSettingsResource
from paasd.api.v1.builds import BuildsResource
from paasd.api.v1.cache import CacheResource
from paasd.api.v1.certificates import CertificatesResource
from paasd.api.v1.checks import ChecksResource
from paasd.api.v1.config import ConfigResource
from paasd.api.v1.cron import CronResource
from paasd.api.v1.deployments import DeploymentsResource
from paasd.api.v1.domains import DomainsResource
from paasd.api.v1.edge import EdgeResource
from paasd.api.v1.edge_logs import EdgeLogsResource
from paasd.api.v1.events import EventsResource
from paasd.api.v1.intake import IntakeResource
from paasd.api.v1.jobs import JobsResource
from paasd.api.v1.keys import KeysResource
from paasd.api.v1.logs import LogsResource
from paasd.api.v1.matrix import MatrixResource
from paasd.api.v1.pipelines import PipelinesResource
from paasd.api.v1.previews import PreviewsResource
from paasd.api.v1.ps import PsResource
from paasd.api.v1.pushes import PushesResource
from paasd.api.v1.quotas import QuotasResource
from paasd.api.v1.redirects import RedirectsResource
from paasd.api.v1.registry import RegistryResource
from paasd.api.v1.releases import ReleasesResource
from paasd.api.v1.resources import ResourcesResource
from paasd.api.v1.routes import RoutesResource
from paasd.api.v1.run import RunResource
from paasd.api.v1.sign_ins import SignInsResource
from paasd.api.v1.sleep import SleepResource
from paasd.api.v1.snippets import SnippetsResource
from paasd.api.v1.storage import StorageResource
from paasd.api.v1.traffic import TrafficResource
from paasd.composition.front import Front
from paasd.composition.parts import Parts
from paasd.composition.watchers import Watchers
from paasd.route.pointing import Pointings


def compose_resources(parts: Parts, watchers: Watchers, front: Front) -> list[Resource]:
    return [
        *_app(parts),
        *_instances(parts, watchers),
        *_release(parts),
        *_build(parts),
        *_edge(parts),
        *_commands(parts),
        *_push(parts, front),
        *_box(parts, watchers),
    ]


def _app(parts: Parts) -> list[Resource]:
    stores, life, deploy = parts.stores, parts.life, parts.deploy
    return [
        AppsResource(stores.apps, life.lifecycle, life.previews, stores.domains),
        PreviewsResource(life.previews, stores.domains),
        ConfigResource(stores.config_vars, deploy.admission, deploy.changes),
        StorageResource(stores.apps, stores.storage, life.snapshots, parts.base.volumes, life.files),
    ]


def _instances(parts: Parts, watchers: Watchers) -> list[Resource]:
    base, stores, commands = parts.base, parts.stores, parts.commands
    return [
        PsResource(
            stores.apps,
            stores.releases,
            stores.instances,
            base.driver,
            parts.deploy.changes,
            commands.enter,
            commands.forwards,
            base.config.ssh.forward_idle,
        ),
        ResourcesResource(stores.resources, stores.releases),
        LogsResource(parts.run.logs),
        ChecksResource(stores.apps, stores.releases, watchers.health_watch),
        AutoscaleResource(stores.autoscale_rules, watchers.autoscaler),
        SleepResource(stores.apps, stores.sleep_rules, watchers.sleeper),
    ]


def _release(parts: Parts) -> list[Resource]:
    stores, deploy = parts.stores, parts.deploy
    return [
        ReleasesResource(stores.releases, deploy.changes),
        DeploymentsResource(
            stores.releases, stores.deployments, stores.settings, deploy.deployer, deploy.changes, deploy.canary
        ),
        PipelinesResource(stores.apps, stores.pipelines, deploy.changes),
    ]


def _build(parts: Parts) -> list[Resource]:
    stores, build = parts.stores, parts.build
    return [
        BuildsResource(stores.builds, parts.deploy.deployer),
        BuildSettingsResource(
            stores.build_settings, build.builder, build.planner, build.repositories, stores.autoscale_rules
        ),
        MatrixResource(build.matrix, stores.config_vars, build.repositories),
        RegistryResource(stores.registries, stores.releases),
    ]


def _edge(parts: Parts) -> list[Resource]:
    stores, edge, sites = parts.stores, parts.edge, parts.life.sites
    return [
        DomainsResource(stores.domains, sites, Pointings(parts.base.config.http), edge.issuing),
        RedirectsResource(stores.domains, sites),
        RoutesResource(stores.apps, stores.domains, sites),
        CertificatesResource(
            stores.certificates,
            stores.domains,
            stores.tls_settings,
            edge.serving,
            edge.issuing,
            edge.stapling,
            sites,
        ),
        EdgeResource(stores.gateway, stores.sign_ins, sites),
        CacheResource(stores.gateway, stores.purges, sites, edge.edge),
        SignInsResource(stores.sign_ins, stores.gateway, stores.domains, sites),
        SnippetsResource(stores.snippets, sites),
        TrafficResource(edge.edge, stores.domains),
        EdgeLogsResource(stores.gateway, stores.domains, edge.edge.logs, stores.instances),
    ]


def _commands(parts: Parts) -> list[Resource]:
    stores, commands = parts.stores, parts.commands
    return [
        RunResource(commands.one_offs, stores.runs),
        CronResource(commands.cron, stores.entries, stores.runs, commands.one_offs),
    ]


def _push(parts: Parts, front: Front) -> list[Resource]:
    stores, sites = parts.stores, parts.life.sites

    async def ended(key_id: str) -> None:
        await front.ssh.disconnect_key(key_id)
        await sites.refresh_members()

    return [
        KeysResource(stores.keys, stores.users, ended),
        PushesResource(front.receive.push),
        IntakeResource(stores.apps, front.intake),
    ]


def _box(parts: Parts, watchers: Watchers) -> list[Resource]:
    stores = parts.stores
    return [
        EventsResource(stores.events),
        JobsResource(stores.jobs),
        QuotasResource(stores.quotas, parts.life.disk_use),
        BoxResource(parts.edge.edge, stores.snippets, parts.build.builder, watchers.differences),
    ]
