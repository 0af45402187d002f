"""What everything stands on: the box's config, its database and keys, the engine."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.config import Config
from paasd.database import Database
from paasd.docker_engine import DockerEngine
from paasd.drivers.base import Driver
from paasd.drivers.docker import DockerDriver
from paasd.drivers.docker_volumes import DockerVolumes
from paasd.secrets import Vault


@dataclass(frozen=True)
class Base:
    config: Config
    database: Database
    vault: Vault
    engine: DockerEngine
    driver: Driver
    volumes: DockerVolumes


def compose_base(config: Config) -> Base:
    """The master key is made only for a box that never had a database."""
    database = Database(config.database)
    engine = DockerEngine(config.docker_host)
    return Base(
        config=config,
        database=database,
        vault=Vault.load(config.keys_dir / "master.key", may_create=database.fresh),
        engine=engine,
        driver=DockerDriver(engine, config.label),
        volumes=DockerVolumes(engine, config.label),
    )
