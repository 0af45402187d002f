"""The stage push: SSH, Git's hook, and pushes without Git."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.composition.base import Base
from paasd.composition.parts import Parts
from paasd.composition.watchers import Watchers
from paasd.identity.sessions import Sessions
from paasd.push.doors import Doors, RunCommand
from paasd.push.intake import Intake
from paasd.push.openssh import OpenSsh
from paasd.push.receive import Receive
from paasd.push.ssh import EmbeddedSsh


@dataclass(frozen=True)
class Front:
    sessions: Sessions
    receive: Receive
    intake: Intake
    ssh: OpenSsh | EmbeddedSsh


def compose_front(parts: Parts, watchers: Watchers, run_command: RunCommand) -> Front:
    base, stores, life, repositories = parts.base, parts.stores, parts.life, parts.build.repositories
    sessions = Sessions()
    receive = Receive(
        base.config,
        stores.apps,
        life.lifecycle,
        life.previews,
        repositories,
        sessions,
        parts.deploy.deployer,
        watchers.sleeper,
    )
    doors = Doors(base.database, stores.keys, stores.users, sessions, receive, run_command, parts.commands.forwards)
    return Front(
        sessions=sessions,
        receive=receive,
        intake=Intake(base.config, repositories, sessions),
        ssh=_ssh(base, doors),
    )


def _ssh(base: Base, doors: Doors) -> OpenSsh | EmbeddedSsh:
    config = base.config
    if config.ssh.transport == "openssh":
        return OpenSsh(config.ssh, config.keys_dir, config.run_dir, doors)
    return EmbeddedSsh(config.ssh, config.keys_dir, doors)
