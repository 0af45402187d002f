"""Every object of the daemon, built once by its constructor: one module a stage, each giving the next what it made.

A new object is built in the module of its stage, a new resource of the API is listed in `api.py`, new jobs and
subscribers in `background.py`; what must be started and stopped, `paasd.daemon` starts.
"""

from __future__ import annotations

from dataclasses import dataclass

from paasd.api.operations import Resource
from paasd.composition.api import compose_resources
from paasd.composition.background import Background, compose_background
from paasd.composition.front import Front, compose_front
from paasd.composition.parts import Parts, compose_parts
from paasd.composition.watchers import Watchers, compose_watchers
from paasd.config import Config
from paasd.push.doors import RunCommand


@dataclass(frozen=True)
class Composition:
    parts: Parts
    watchers: Watchers
    background: Background
    front: Front
    resources: list[Resource]


def compose(config: Config, run_command: RunCommand) -> Composition:
    parts = compose_parts(config)
    watchers = compose_watchers(parts)
    front = compose_front(parts, watchers, run_command)
    return Composition(
        parts=parts,
        watchers=watchers,
        background=compose_background(parts),
        front=front,
        resources=compose_resources(parts, watchers, front),
    )
