"""Importing this registers every command that also works over SSH, and gives the entry point of SSH sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paasd.cli import (
    apps,
    autoscale,
    box,
    builds,
    cache,
    certs,
    checks,
    config,
    cron,
    deployments,
    domains,
    edge,
    edge_logs,
    events,
    git,
    jobs,
    keys,
    logs,
    maintenance,
    pipelines,
    previews,
    ps,
    quota,
    redirects,
    registry,
    releases,
    resource,
    routes,
    run,
    sign_ins,
    sleep,
    snippets,
    storage,
    traffic,
)
from paasd.cli.client import Client
from paasd.cli.console import Console
from paasd.cli.framework import Cli
from paasd.cli.root import run as run_command
from paasd.models import Secret
from paasd.push.session import Session

MODULES = (
    apps,
    autoscale,
    box,
    builds,
    cache,
    certs,
    checks,
    config,
    cron,
    deployments,
    domains,
    edge,
    edge_logs,
    events,
    git,
    jobs,
    keys,
    logs,
    maintenance,
    pipelines,
    previews,
    ps,
    quota,
    redirects,
    registry,
    releases,
    resource,
    routes,
    run,
    sign_ins,
    sleep,
    snippets,
    storage,
    traffic,
)


class SessionCommands:
    """Runs commands for SSH sessions; given to the daemon by who composes it."""

    def __init__(self, api_socket: Path) -> None:
        self._api_socket = api_socket

    def __call__(self, session: Session, argv: Sequence[str], token: Secret) -> int:
        terminal = session.terminal
        size = (lambda: (terminal.columns, terminal.rows)) if terminal else None
        console = Console(session.stdin, session.stdout, session.stderr, size=size)
        return run_command(Cli(console, Client(self._api_socket, token)), argv)
