"""Starts what `paasd.composition` builds, and stops it, in order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from paasd.api.server import Api
from paasd.build.limits import ensure_limits
from paasd.capabilities import lower_network_admin
from paasd.clock import ClockWatch, steady
from paasd.composition import compose
from paasd.config import Config
from paasd.config_file import flatten
from paasd.errors import AlreadyExists, Cancelled, EngineUnavailable, PaasdError
from paasd.models import Actor
from paasd.pid_file import PidFile
from paasd.push.doors import RunCommand
from paasd.service_manager import ServiceManager

_log = logging.getLogger(__name__)


class Daemon:
    """`start()` returns when everything serves; `stop()` leaves the data plane (Nginx, instances) running."""

    def __init__(self, config: Config, run_command: RunCommand) -> None:
        self._stack = AsyncExitStack()
        self._config = config
        lower_network_admin()
        prepare_directories(config)
        self._pid_file = PidFile(config.run_dir)
        self._made = compose(config, run_command)

    async def start(self) -> None:
        """Raises PaasdError when something it cannot do without is missing; what was started is stopped again."""
        async with AsyncExitStack() as stack:
            await self._open(stack)
            local_admin = await self._made.parts.stores.users.bootstrap()
            await self._put_in_order(stack)
            await self._watch(stack)
            await self._serve(stack, local_admin)
            self._stack = stack.pop_all()
        _log.info("paasd serves on ssh port %s, http port %s", self._made.front.ssh.port, self._config.http.port)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        """The data directory and the engine are this daemon's alone from here on."""
        base, jobs = self._made.parts.base, self._made.parts.stores.jobs
        await asyncio.to_thread(self._pid_file.acquire, flatten(self._settings()))
        stack.push_async_callback(asyncio.to_thread, self._pid_file.release)
        await base.database.open()
        stack.push_async_callback(base.database.close)
        stack.push_async_callback(base.engine.close)
        steady.not_before(await jobs.newest())
        await asyncio.to_thread(ensure_limits, self._config.build)

    async def _put_in_order(self, stack: AsyncExitStack) -> None:
        """What the last daemon left is finished, undone or gone on with."""
        parts, reconciler = self._made.parts, self._made.watchers.reconciler
        await parts.build.repositories.prepare()
        await self._made.front.intake.sweep()
        stores = parts.stores
        await parts.edge.edge.start([await stores.domains.site(app) for app in await stores.apps.all()])
        await reconciler.recover()
        with contextlib.suppress(EngineUnavailable):
            await parts.base.volumes.remove_carriers()
        await parts.commands.one_offs.resume()
        stack.push_async_callback(parts.commands.one_offs.close)
        await reconciler.start()
        stack.push_async_callback(reconciler.stop)

    async def _watch(self, stack: AsyncExitStack) -> None:
        watchers = self._made.watchers
        for watcher in (watchers.watch, watchers.health_watch, watchers.autoscaler, watchers.sleeper):
            watcher.start()
            stack.push_async_callback(watcher.stop)

    async def _serve(self, stack: AsyncExitStack, local_admin: Actor) -> None:
        made = self._made
        front, background, cron = made.front, made.background, made.parts.commands.cron
        await self._add_admin_key()
        api = Api(self._config.api_socket, made.parts.stores.apps, front.sessions, local_admin, made.resources)
        await api.start()
        stack.push_async_callback(api.stop)
        await front.ssh.start()
        stack.push_async_callback(front.ssh.stop, 10.0)
        # Ends first, so that whoever waits for a deployment is told why before the connections go.
        stack.push_async_callback(self._end_changes)
        await cron.resume()
        clock_watch = ClockWatch(cron.resume)
        clock_watch.start()
        stack.push_async_callback(clock_watch.stop)
        await background.subscriptions.start()
        stack.push_async_callback(background.subscriptions.stop)
        await background.workers.start()
        # Before the deployer, whose refusal a job would take for a failure.
        stack.push_async_callback(background.workers.stop)
        stack.callback(api.end_streams)
        service_manager = ServiceManager(api.probe)
        service_manager.ready()
        stack.push_async_callback(service_manager.stopping)

    async def _end_changes(self) -> None:
        deploy, reason = self._made.parts.deploy, Cancelled("paasd is stopping", hint="Push again once it is back.")
        await asyncio.gather(deploy.deployer.close(reason), deploy.changes.close(reason))

    def _settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self._config) | {"data_dir": str(self._config.data_dir)}

    async def _add_admin_key(self) -> None:
        """The first administrator's key, from a file; known already after the first start."""
        if not self._config.admin_key:
            return
        stores = self._made.parts.stores
        try:
            text = await asyncio.to_thread(Path(self._config.admin_key).read_text)
        except OSError as error:
            raise PaasdError(f"cannot read admin_key {self._config.admin_key}: {error.strerror}") from error
        admin = stores.users.local_admin
        user_id = await stores.users.first_user(admin.organization_id)
        for number, line in enumerate(filter(None, text.splitlines()), start=1):
            try:
                await stores.keys.add(admin, user_id, "admin" if number == 1 else f"admin-{number}", line)
            except AlreadyExists:
                continue


def prepare_directories(config: Config) -> None:
    """The data directory and what must exist in it, closed to others."""
    os.umask(0o077)
    for path in (config.data_dir, config.run_dir, config.keys_dir, config.build_logs):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
