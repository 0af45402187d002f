"""Builds every object once, by constructor, and starts and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from paasd.admission import Admission
from paasd.api.operations import Resource
from paasd.api.server import Api
from paasd.api.v1.apps import AppsResource
from paasd.api.v1.autoscale import AutoscaleResource
from paasd.api.v1.box import BoxResource
from paasd.api.v1.build_settings import BuildSettingsResource
from paasd.api.v1.builds import BuildsResource
from paasd.api.v1.certificates import CertificatesResource
from paasd.api.v1.checks import ChecksResource
from paasd.api.v1.config import ConfigResource
from paasd.api.v1.cron import CronResource
from paasd.api.v1.deployments import DeploymentsResource
from paasd.api.v1.domains import DomainsResource
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
from paasd.api.v1.sleep import SleepResource
from paasd.api.v1.storage import StorageResource
from paasd.apps import Apps
from paasd.autoscale import Autoscaler
from paasd.autoscale_rules import AutoscaleRules
from paasd.build.app_images import AppImages
from paasd.build.base_images import BaseImages
from paasd.build.builder import Builder
from paasd.build.buildpacks import Buildpacks
from paasd.build.builds import Builds
from paasd.build.decision import Planner
from paasd.build.disk import Disk
from paasd.build.limits import ensure_limits
from paasd.build.making import Maker
from paasd.build.matrix import Matrix
from paasd.build.network import BuildNetwork
from paasd.build.queue import BuildQueue
from paasd.build.registry import Registries
from paasd.build_settings import BuildSettings
from paasd.canary import Canary
from paasd.capabilities import lower_network_admin
from paasd.changes import Changes
from paasd.clock import ClockWatch, steady
from paasd.config import Config, flatten
from paasd.config_vars import ConfigVars
from paasd.cron import Cron
from paasd.cron_entries import CronEntries
from paasd.database import Database
from paasd.deploy import Deployer
from paasd.deploy_settings import DeploymentSettings
from paasd.deployments import Deployments
from paasd.differences import Differences
from paasd.disk_use import DiskUse
from paasd.docker_engine import DockerEngine
from paasd.drivers.docker import DockerDriver
from paasd.drivers.docker_volumes import DockerVolumes
from paasd.enter import Enter
from paasd.errors import AlreadyExists, Cancelled, EngineUnavailable, PaasdError
from paasd.events import Events, Subscriptions
from paasd.forward import Forwards
from paasd.go_live import GoLive
from paasd.health_subjects import Subjects
from paasd.health_watch import HealthWatch
from paasd.housekeeping import Housekeeping
from paasd.identity.sessions import Sessions
from paasd.identity.ssh_keys import SshKeys
from paasd.identity.users import Users
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Workers
from paasd.lifecycle import Lifecycle
from paasd.liveness import Liveness
from paasd.one_off import OneOffs
from paasd.pid_file import PidFile
from paasd.pipelines import Pipelines
from paasd.previews import Previews
from paasd.projects import Projects
from paasd.push.doors import Doors, RunCommand
from paasd.push.intake import Intake
from paasd.push.openssh import OpenSsh
from paasd.push.receive import Receive
from paasd.push.ssh import EmbeddedSsh
from paasd.quotas import Quotas
from paasd.reconcile import Reconciler
from paasd.recreate import Recreate
from paasd.release import Releases
from paasd.resources import Resources
from paasd.revival import Revival
from paasd.route.acme.authority import Authority
from paasd.route.acme.challenges import Challenges
from paasd.route.authority_keys import AuthorityKeys
from paasd.route.certificates import Certificates
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.route.issuing import Issuing
from paasd.route.local_ca import LocalAuthority
from paasd.route.pointing import Pointings
from paasd.route.serving import Serving
from paasd.route.troubles import Troubles
from paasd.routing import Routing
from paasd.run.failure_hooks import FailureHooks
from paasd.run.firewall import Firewall
from paasd.run.health import Health
from paasd.run.instances import Instances
from paasd.run.logs import Logs
from paasd.run.networks import Networks
from paasd.run.probe import Probe
from paasd.run.readiness import Readiness
from paasd.run.retire import Retirement
from paasd.run.rollout import Rollout
from paasd.run.runs import Runs
from paasd.run.tasks import Tasks
from paasd.secrets import Vault
from paasd.service_manager import ServiceManager
from paasd.sleep import Sleep
from paasd.sleep_rules import SleepRules
from paasd.sleeper import Sleeper
from paasd.snapshots import Snapshots
from paasd.source.repositories import Repositories
from paasd.storage import Storage
from paasd.switch_locks import SwitchLocks
from paasd.tls_settings import TlsSettings
from paasd.volume_files import VolumeFiles
from paasd.watch import Watch

_log = logging.getLogger(__name__)

_ROOT = Path(__file__).parent.parent


class Daemon:
    """`start()` returns when everything serves; `stop()` leaves the data plane (Nginx, instances) running."""

    def __init__(self, config: Config, run_command: RunCommand) -> None:
        self._stack = AsyncExitStack()
        self._config = config
        lower_network_admin()
        prepare_directories(config)
        self._pid_file = PidFile(config.run_dir)
        database = self._database = Database(config.database)
        vault = Vault.load(config.keys_dir / "master.key", may_create=database.fresh)
        engine = self._engine = DockerEngine(config.docker_host)
        driver = DockerDriver(engine, config.label)
        events, jobs = Events(database), Jobs(database)
        self._jobs = jobs
        quotas = Quotas(database, config.run)
        apps, projects = Apps(database, quotas.gate), Projects(database)
        config_vars, releases = ConfigVars(database, vault), Releases(database, vault)
        self._users, self._keys, sessions = Users(database), SshKeys(database), Sessions()
        domains = Domains(database, config.http)
        edge = self._edge = Edge(config.edge_dir, _ROOT / "nginx", config.http)
        repositories = self._repositories = Repositories(config)
        builds = Builds(database, config.build_logs, config.build.log_limit, quotas.gate)
        buildpacks = Buildpacks(_ROOT / "buildpacks")
        bases = BaseImages(engine, config.build, buildpacks.recipes, config.data_dir / "cache")
        queue, disk = BuildQueue(config.build.concurrency), Disk(config, engine)
        build_settings = BuildSettings(database)
        planner = Planner(config, buildpacks, bases, build_settings)
        images = AppImages(config, database, engine)
        maker = Maker(config.build, engine, buildpacks, bases, images, build_settings, disk)
        builder = Builder(config, builds, queue, planner, maker, images, build_settings, disk)
        matrix = Matrix(queue, planner, maker)
        deployments, instances = Deployments(database, quotas.gate), Instances(database, config.label)
        resources = Resources(database, config.run, quotas.gate)
        retirement = Retirement(driver, instances, edge.in_flight, config.run)
        probe, readiness = Probe(driver), Readiness()
        hooks = FailureHooks(driver, config.run)
        health = Health(driver, probe, hooks)
        rollout = Rollout(driver, instances, health, config, resources)
        registries = Registries(database, vault, engine)
        firewall = Firewall(config, BuildNetwork(config.build, engine).subnets_and_services)
        networks, routing = (
            Networks(config, projects, driver, firewall),
            Routing(config, releases, instances, readiness, sleep_rules := SleepRules(database)),
        )
        settings, switches = DeploymentSettings(database, config.run), SwitchLocks()
        admission = Admission(settings)
        recreate = Recreate(driver, instances, retirement, rollout, routing, edge)
        volumes = self._volumes = DockerVolumes(engine, config.label)
        storage = Storage(config, database, jobs, volumes, quotas.gate)
        canary = Canary(driver, routing, edge)
        go_live = GoLive(
            database,
            apps,
            releases,
            routing,
            deployments,
            settings,
            instances,
            networks,
            storage,
            Tasks(driver, config, resources),
            rollout,
            recreate,
            canary,
            retirement,
            domains,
            edge,
            quotas,
        )
        deployer = self._deployer = Deployer(
            apps, config_vars, builder, releases, deployments, admission, go_live, registries, switches
        )
        changes = self._changes = Changes(
            apps,
            config_vars,
            builder,
            releases,
            deployments,
            admission,
            instances,
            retirement,
            go_live,
            switches,
        )
        lifecycle = Lifecycle(
            config,
            apps,
            projects,
            config_vars,
            repositories,
            builds,
            builder,
            releases,
            driver,
            instances,
            domains,
            edge,
            deployer,
            changes,
            routing,
            switches,
            database,
        )
        snapshots = Snapshots(config, storage, volumes, apps, releases, changes)
        previews = Previews(database, apps, config_vars, lifecycle, jobs, quotas.gate)
        revival = Revival(config, releases, driver, domains, networks, settings, storage, resources)
        liveness = Liveness(database, driver, instances, health, routing, retirement, revival, settings, switches)
        health_watch = self._health_watch = HealthWatch(
            database,
            Subjects(config.run, apps, releases, instances, domains),
            apps,
            instances,
            edge,
            routing,
            switches,
            probe,
            readiness,
            liveness,
            hooks,
        )
        sleep = Sleep(
            config.run,
            database,
            apps,
            releases,
            instances,
            driver,
            health,
            routing,
            edge,
            domains,
            settings,
            sleep_rules,
            revival,
            switches,
        )
        certificates, tls_settings = Certificates(database, vault), TlsSettings(database)
        serving = Serving(config.http, apps, domains, certificates, tls_settings, edge.tls)
        authority_keys = AuthorityKeys(database, vault)
        issuing = Issuing(
            database,
            config.acme,
            apps,
            domains,
            jobs,
            certificates,
            Troubles(database),
            tls_settings,
            serving,
            Authority(config.acme, authority_keys, Challenges(config.acme, edge.tls)),
            LocalAuthority(authority_keys),
        )
        self._reconciler = Reconciler(
            config,
            apps,
            projects,
            builds,
            deployments,
            instances,
            retirement,
            driver,
            edge,
            repositories,
            lifecycle,
            routing,
            switches,
            networks,
            settings,
            revival,
            sleep,
            serving,
        )
        self._watch = Watch(apps, releases, deployments, instances, driver, edge, changes)
        rules = AutoscaleRules(database)
        autoscaler = self._autoscaler = Autoscaler(
            database,
            rules,
            apps,
            releases,
            instances,
            driver,
            edge,
            changes,
            switches,
            config.run.autoscale_interval,
        )
        housekeeping = Housekeeping(config.keep, events, jobs, deployments, releases, builder)
        runs, enter = Runs(database, config.label), Enter(database, instances, driver)
        forwards = Forwards(database, config.run, apps, releases, instances)
        in_use = (deployer.is_pushed_to, enter.is_inside, forwards.are_open)
        sleeper = self._sleeper = Sleeper(database, sleep_rules, sleep, apps, instances, runs, edge, switches, in_use)
        one_offs = self._one_offs = OneOffs(
            database, config, releases, domains, driver, networks, storage, resources, runs
        )
        entries = CronEntries(database, jobs)
        cron = self._cron = Cron(database, config, apps, releases, entries, runs, one_offs)
        disk_use = DiskUse(config, database, jobs, quotas, projects, apps, storage, volumes, images)
        files = VolumeFiles(config, database, storage, volumes, projects, quotas, snapshots.image, disk_use.soon)
        handlers = [
            *housekeeping.handlers(),
            *disk_use.handlers(),
            *previews.handlers(),
            *storage.handlers(),
            *one_offs.handlers(),
            *cron.handlers(),
            *issuing.handlers(),
        ]
        self._workers = Workers(database, jobs, config.jobs, handlers)
        self._subscriptions = Subscriptions(database, [*cron.subscribers(), *issuing.subscribers()])
        differences = Differences(
            config,
            apps,
            projects,
            builds,
            deployments,
            instances,
            driver,
            edge,
            repositories,
            deployer,
            routing,
            switches,
            serving,
        )
        receive = Receive(config, apps, lifecycle, previews, repositories, sessions, deployer, sleeper)
        self._intake = Intake(config, repositories, sessions)
        doors = Doors(database, self._keys, self._users, sessions, receive, run_command, forwards)
        self._ssh = (
            OpenSsh(config.ssh, config.keys_dir, config.run_dir, doors)
            if config.ssh.transport == "openssh"
            else EmbeddedSsh(config.ssh, config.keys_dir, doors)
        )
        self._apps, self._sessions = apps, sessions
        self._resources: list[Resource] = [
            AppsResource(apps, lifecycle, previews, domains),
            PreviewsResource(previews, domains),
            ConfigResource(config_vars, admission, changes),
            PsResource(
                apps,
                releases,
                instances,
                driver,
                changes,
                enter,
                forwards,
                config.ssh.forward_idle,
            ),
            ResourcesResource(resources, releases),
            ReleasesResource(releases, changes),
            DeploymentsResource(releases, deployments, settings, deployer, changes, canary),
            BuildsResource(builds, deployer),
            BuildSettingsResource(build_settings, builder, planner, repositories),
            PipelinesResource(apps, Pipelines(database, apps), changes),
            MatrixResource(matrix, config_vars, repositories),
            DomainsResource(domains, lifecycle, Pointings(config.http), issuing),
            RedirectsResource(domains, lifecycle),
            RoutesResource(apps, domains, lifecycle),
            CertificatesResource(certificates, domains, tls_settings, serving, issuing, lifecycle),
            KeysResource(self._keys, self._users, self._ssh.disconnect_key),
            LogsResource(Logs(driver)),
            RunResource(one_offs, runs),
            CronResource(cron, entries, runs, one_offs),
            ChecksResource(apps, releases, health_watch),
            AutoscaleResource(rules, autoscaler),
            SleepResource(apps, sleep_rules, sleeper),
            PushesResource(receive.push),
            IntakeResource(apps, self._intake),
            RegistryResource(registries, releases),
            EventsResource(events),
            JobsResource(jobs),
            QuotasResource(quotas, disk_use),
            StorageResource(apps, storage, snapshots, volumes, files),
            BoxResource(edge, builder, differences),
        ]

    async def start(self) -> None:
        """Raises PaasdError when something it cannot do without is missing; what was started is stopped again."""
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(self._pid_file.acquire, flatten(self._settings()))
            stack.push_async_callback(asyncio.to_thread, self._pid_file.release)
            await self._database.open()
            stack.push_async_callback(self._database.close)
            stack.push_async_callback(self._engine.close)
            steady.not_before(await self._jobs.newest())
            await asyncio.to_thread(ensure_limits, self._config.build)
            local_admin = await self._users.bootstrap()
            await self._repositories.prepare()
            await self._intake.sweep()
            await self._edge.start()
            await self._reconciler.recover()
            with contextlib.suppress(EngineUnavailable):
                await self._volumes.remove_carriers()
            await self._one_offs.resume()
            stack.push_async_callback(self._one_offs.close)
            await self._reconciler.start()
            stack.push_async_callback(self._reconciler.stop)
            self._watch.start()
            stack.push_async_callback(self._watch.stop)
            self._health_watch.start()
            stack.push_async_callback(self._health_watch.stop)
            self._autoscaler.start()
            stack.push_async_callback(self._autoscaler.stop)
            self._sleeper.start()
            stack.push_async_callback(self._sleeper.stop)
            await self._add_admin_key()
            api = Api(self._config.api_socket, self._apps, self._sessions, local_admin, self._resources)
            await api.start()
            stack.push_async_callback(api.stop)
            await self._ssh.start()
            stack.push_async_callback(self._ssh.stop, 10.0)
            # Ends first, so that whoever waits for a deployment is told why before the connections go.
            stack.push_async_callback(self._end_changes)
            await self._cron.resume()
            clock_watch = ClockWatch(self._cron.resume)
            clock_watch.start()
            stack.push_async_callback(clock_watch.stop)
            await self._subscriptions.start()
            stack.push_async_callback(self._subscriptions.stop)
            await self._workers.start()
            # Before the deployer, whose refusal a job would take for a failure.
            stack.push_async_callback(self._workers.stop)
            stack.callback(api.end_streams)
            service_manager = ServiceManager(api.probe)
            service_manager.ready()
            stack.push_async_callback(service_manager.stopping)
            self._stack = stack.pop_all()
        _log.info("paasd serves on ssh port %s, http port %s", self._ssh.port, self._config.http.port)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def _end_changes(self) -> None:
        reason = Cancelled("paasd is stopping", hint="Push again once it is back.")
        await asyncio.gather(self._deployer.close(reason), self._changes.close(reason))

    def _settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self._config) | {"data_dir": str(self._config.data_dir)}

    async def _add_admin_key(self) -> None:
        """The first administrator's key, from a file; known already after the first start."""
        if not self._config.admin_key:
            return
        try:
            text = await asyncio.to_thread(Path(self._config.admin_key).read_text)
        except OSError as error:
            raise PaasdError(f"cannot read admin_key {self._config.admin_key}: {error.strerror}") from error
        admin = self._users.local_admin
        user_id = await self._users.first_user(admin.organization_id)
        for number, line in enumerate(filter(None, text.splitlines()), start=1):
            try:
                await self._keys.add(admin, user_id, "admin" if number == 1 else f"admin-{number}", line)
            except AlreadyExists:
                continue


def prepare_directories(config: Config) -> None:
    """The data directory and what must exist in it, closed to others."""
    os.umask(0o077)
    for path in (config.data_dir, config.run_dir, config.keys_dir, config.build_logs):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
