"""The owners of tables: what needs little more than the database."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.apps import Apps
from paasd.autoscale_rules import AutoscaleRules
from paasd.build.builds import Builds
from paasd.build.registry import Registries
from paasd.build_settings import BuildSettings
from paasd.composition.base import Base
from paasd.config_vars import ConfigVars
from paasd.cron_entries import CronEntries
from paasd.deploy_settings import DeploymentSettings
from paasd.deployments import Deployments
from paasd.events import Events
from paasd.gateway.cache import Purges
from paasd.gateway.policy import Gateway
from paasd.identity.sign_ins import SignIns
from paasd.identity.ssh_keys import SshKeys
from paasd.identity.users import Users
from paasd.jobs.table import Jobs
from paasd.nginx_snippets import Snippets
from paasd.pipelines import Pipelines
from paasd.projects import Projects
from paasd.quotas import Quotas
from paasd.release import Releases
from paasd.resources import Resources
from paasd.route.authority_keys import AuthorityKeys
from paasd.route.certificates import Certificates
from paasd.route.domains import Domains
from paasd.route.troubles import Troubles
from paasd.run.instances import Instances
from paasd.run.runs import Runs
from paasd.sleep_rules import SleepRules
from paasd.storage import Storage
from paasd.tls_settings import TlsSettings


@dataclass(frozen=True)
class Stores:
    users: Users
    keys: SshKeys
    events: Events
    jobs: Jobs
    quotas: Quotas
    projects: Projects
    apps: Apps
    pipelines: Pipelines
    config_vars: ConfigVars
    builds: Builds
    registries: Registries
    releases: Releases
    deployments: Deployments
    instances: Instances
    runs: Runs
    entries: CronEntries
    storage: Storage
    domains: Domains
    sign_ins: SignIns
    gateway: Gateway
    purges: Purges
    snippets: Snippets
    certificates: Certificates
    authority_keys: AuthorityKeys
    troubles: Troubles
    build_settings: BuildSettings
    settings: DeploymentSettings
    resources: Resources
    autoscale_rules: AutoscaleRules
    sleep_rules: SleepRules
    tls_settings: TlsSettings


def compose_stores(base: Base) -> Stores:
    config, database, vault = base.config, base.database, base.vault
    jobs, quotas = Jobs(database), Quotas(database, config.run)
    apps = Apps(database, quotas.gate)
    sign_ins = SignIns(database, vault, config.http, config.ssh)
    return Stores(
        users=Users(database),
        keys=SshKeys(database),
        events=Events(database),
        jobs=jobs,
        quotas=quotas,
        projects=Projects(database),
        apps=apps,
        pipelines=Pipelines(database, apps),
        config_vars=ConfigVars(database, vault),
        builds=Builds(database, config.build_logs, config.build.log_limit, quotas.gate),
        registries=Registries(database, vault, base.engine),
        releases=Releases(database, vault),
        deployments=Deployments(database, quotas.gate),
        instances=Instances(database, config.label),
        runs=Runs(database, config.label),
        entries=CronEntries(database, jobs),
        storage=Storage(config, database, jobs, base.volumes, quotas.gate),
        domains=Domains(database, config.http, sign_ins),
        sign_ins=sign_ins,
        gateway=Gateway(database),
        purges=Purges(database),
        snippets=Snippets(database),
        certificates=Certificates(database, vault),
        authority_keys=AuthorityKeys(database, vault),
        troubles=Troubles(database),
        build_settings=BuildSettings(database),
        settings=DeploymentSettings(database, config.run),
        resources=Resources(database, config.run, quotas.gate),
        autoscale_rules=AutoscaleRules(database),
        sleep_rules=SleepRules(database),
        tls_settings=TlsSettings(database),
    )
