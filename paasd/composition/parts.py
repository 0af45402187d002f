"""The stages in order, each made of the ones before it."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.composition.base import Base, compose_base
from paasd.composition.build import BuildParts, compose_build
from paasd.composition.commands import CommandParts, compose_commands
from paasd.composition.deploy import DeployParts, compose_deploy
from paasd.composition.edge import EdgeParts, compose_edge
from paasd.composition.life import LifeParts, compose_life
from paasd.composition.run import RunParts, compose_run
from paasd.composition.stores import Stores, compose_stores
from paasd.config import Config


@dataclass(frozen=True)
class Parts:
    base: Base
    stores: Stores
    build: BuildParts
    edge: EdgeParts
    run: RunParts
    deploy: DeployParts
    life: LifeParts
    commands: CommandParts


def compose_parts(config: Config) -> Parts:
    base = compose_base(config)
    stores = compose_stores(base)
    build = compose_build(base, stores)
    edge = compose_edge(base, stores)
    run = compose_run(base, stores, edge)
    deploy = compose_deploy(base, stores, build, edge, run)
    return Parts(
        base=base,
        stores=stores,
        build=build,
        edge=edge,
        run=run,
        deploy=deploy,
        life=compose_life(base, stores, build, edge, deploy),
        commands=compose_commands(base, stores, run),
    )
