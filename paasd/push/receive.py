"""The daemon's side of a push: checks what git's pre-receive hook reports and hands it to the deployer."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from pathlib import Path

from paasd import failpoints
from paasd.apps import Apps
from paasd.config import Config
from paasd.database import new_id
from paasd.deploy import Deployer
from paasd.errors import Conflict, InvalidInput, NotFound
from paasd.identity.policy import Action, authorize
from paasd.identity.sessions import Sessions
from paasd.lifecycle import Lifecycle
from paasd.models import Actor, App, Checkout, Push, RefUpdate, Release, branch_name, shown
from paasd.progress import Progress
from paasd.push.landings import Landings
from paasd.push.session import GitService, Session
from paasd.source.checkout import open_checkout
from paasd.source.repositories import Repositories

_ZERO = "0" * 40
_BRANCH = "refs/heads/"
_OPTIONS = ("skip-deploy",)


class Receive:
    """Which pushes are taken, and what happens with them."""

    def __init__(
        self,
        config: Config,
        apps: Apps,
        lifecycle: Lifecycle,
        repositories: Repositories,
        sessions: Sessions,
        deployer: Deployer,
    ) -> None:
        self._config = config
        self._apps = apps
        self._lifecycle = lifecycle
        self._repositories = repositories
        self._sessions = sessions
        self._deployer = deployer
        self._landings = Landings(repositories)

    async def git_service(self, session: Session, service: str, name: str) -> GitService:
        """Authorize a git command of an SSH session; an unknown app is created on its first push, if that is on."""
        writes = service == "git-receive-pack"
        app = await self._app(session.actor, name, create=writes)
        authorize(session.actor, Action.APP_DEPLOY if writes else Action.APP_READ, app.organization_id)
        environment = {} if session.git_protocol is None else {"GIT_PROTOCOL": session.git_protocol}
        if writes:
            token = self._sessions.open(session.actor, session.gone)
            weakref.finalize(session, self._sessions.close, token)
            environment |= {
                "PAASD_API": str(self._config.api_socket),
                "PAASD_APP": app.name,
                "PAASD_TOKEN": token.reveal(),
            }
        return GitService(await self._repositories.ensure(app), environment)

    async def _app(self, actor: Actor, name: str, *, create: bool) -> App:
        try:
            return await self._apps.get(actor.organization_id, name)
        except NotFound:
            if not create:
                raise
            if not self._config.push.create_apps:
                raise NotFound(
                    f"no app named {shown(name)}", hint=f"Create it first: ssh … apps:create {name}"
                ) from None
            authorize(actor, Action.APP_CREATE, actor.organization_id)
            return await self._lifecycle.create(actor, name)

    async def push(
        self,
        actor: Actor,
        app: App,
        updates: Sequence[RefUpdate],
        options: Sequence[str],
        quarantine: str,
        progress: Progress,
        gone: asyncio.Event,
    ) -> Release | None:
        """Deploy a push, or raise why not; None when it was only stored. A pusher who leaves (`gone`) before the
        switch cancels it."""
        await failpoints.hit("push-received")
        for option in options:
            if option not in _OPTIONS:
                raise InvalidInput(f"unknown push option {shown(option)}", hint=f"Known: {', '.join(_OPTIONS)}")
        update = self._single(app, updates)
        if update is None:
            progress.detail("Tags are stored and not deployed.")
            return None
        branch = update.ref.removeprefix(_BRANCH)
        self._refuse_other_branch(app, branch)
        repository = self._repositories.path(app)
        async with self._landings.turn(app, branch, update.new) as earlier:
            if "skip-deploy" in options:
                if earlier:
                    raise Conflict("another push to this app is under way", hint="Push again when it has ended.")
                progress.step(f"Storing {update.new[:8]} without deploying it (-o skip-deploy)")
                return None

            async def checkout() -> Checkout:
                await asyncio.gather(*(landing.wait() for landing in earlier))
                await self._refuse_stale(app, branch, update)
                return await open_checkout(repository, update.new, Path(quarantine) if quarantine else None)

            push = Push(new_id(), app.id, update.new, branch, actor.name)
            release = await self._deployer.push(actor, app, push, checkout, progress, gone)
            if app.deploy_branch is None:
                await self._apps.set_deploy_branch(app, branch)
            return release

    def _single(self, app: App, updates: Sequence[RefUpdate]) -> RefUpdate | None:
        """The one branch of the push; None when it carries tags only."""
        branches = [u for u in updates if u.ref.startswith(_BRANCH)]
        others = [u for u in updates if not u.ref.startswith((_BRANCH, "refs/tags/"))]
        if others:
            raise InvalidInput(f"only branches and tags can be pushed, not {shown(others[0].ref)}")
        if any(u.new == _ZERO for u in branches):
            raise Conflict(
                f"deleting a branch of {app.name} would not change what is live",
                hint=f"To remove the app: apps:destroy {app.name}",
            )
        for update in branches:
            branch_name(update.ref.removeprefix(_BRANCH))
        deployed = [u for u in branches if u.ref == f"{_BRANCH}{app.deploy_branch}"] or branches
        if len(deployed) > 1:
            raise InvalidInput("several branches in one push", hint="Push one: git push paasd main")
        return deployed[0] if deployed else None

    def _refuse_other_branch(self, app: App, branch: str) -> None:
        if app.deploy_branch not in (None, branch):
            raise InvalidInput(
                f"{app.name} deploys the branch {app.deploy_branch}, and {shown(branch)} was pushed",
                hint=f"Deploy it with: git push <remote> {branch}:{app.deploy_branch}",
            )

    async def _refuse_stale(self, app: App, branch: str, update: RefUpdate) -> None:
        """While this push waited another one may have moved the branch, so that git would refuse it at the end. All
        earlier ones have landed, and later ones wait for this one."""
        present = (await self._repositories.branches(app)).get(branch, _ZERO)
        if present != update.old:
            raise Conflict(
                f"another push moved {branch} to {present[:8]} while this one waited",
                hint="Push again: git fetch and merge first, or git push --force.",
            )
