"""The daemon's side of a push: checks what git's pre-receive hook reports and hands it to the deployer."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from paasd import failpoints
from paasd.admission import IGNORE_WINDOWS
from paasd.apps import Apps
from paasd.config import Config
from paasd.database import new_id
from paasd.deploy import Deployer
from paasd.errors import Conflict, InvalidInput, NotFound, PaasdError
from paasd.identity.policy import Action, authorize
from paasd.identity.sessions import Sessions
from paasd.lifecycle import Lifecycle
from paasd.models import Actor, App, Checkout, Push, RefUpdate, Release
from paasd.names import branch_name, shown
from paasd.previews import Previews
from paasd.progress import Progress
from paasd.push.landings import NOTHING, Landings
from paasd.push.session import GitService, Session
from paasd.sleeper import Sleeper
from paasd.source.checkout import open_checkout, quarantine_environment
from paasd.source.repositories import Repositories

_BRANCH, _TAG = "refs/heads/", "refs/tags/"
_PATIENCE = 5.0
"""Seconds that a push which is only stored waits for those before it."""
_OPTIONS = ("skip-deploy", IGNORE_WINDOWS)


class Receive:
    """Which pushes are taken, and what happens with them."""

    def __init__(
        self,
        config: Config,
        apps: Apps,
        lifecycle: Lifecycle,
        previews: Previews,
        repositories: Repositories,
        sessions: Sessions,
        deployer: Deployer,
        sleeper: Sleeper,
    ) -> None:
        self._config = config
        self._apps = apps
        self._lifecycle = lifecycle
        self._previews = previews
        self._repositories = repositories
        self._sessions = sessions
        self._deployer = deployer
        self._sleeper = sleeper
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
        await failpoints.begin()
        await failpoints.hit("push-received")
        for option in options:
            if option not in _OPTIONS:
                raise InvalidInput(f"unknown push option {shown(option)}", hint=f"Known: {', '.join(_OPTIONS)}")
        with_previews = bool((await self._previews.report(app))["enabled"])
        update = _deployed(app, updates, with_previews=with_previews)
        async with self._landings.turn(app, updates) as earlier:
            if update is None or "skip-deploy" in options:
                await _wait_for(earlier)
                progress.step(_stored(update, updates))
                for deleted in (u for u in updates if u.new == NOTHING):
                    await self._previews.branch_deleted(actor, app, _short(deleted.ref), progress)
                return None
            branch = update.ref.removeprefix(_BRANCH)
            env = quarantine_environment(self._repositories.path(app), Path(quarantine) if quarantine else None)

            async def checkout() -> Checkout:
                await asyncio.gather(*(landing.wait() for landing in earlier))
                await self._refuse_what_git_would(app, branch, updates, env)
                return await open_checkout(self._repositories.path(app), update.new, env)

            target = app
            if app.deploy_branch not in (None, branch):
                target = await self._previews.ensure(actor, app, branch, progress) or app
            if target.asleep:
                # Later it could not be woken: a deployment has the app to itself while its release task runs.
                progress.step(f"{target.name} is asleep; it is woken to serve meanwhile")
                self._sleeper.wake_soon(target, "a push")
            push = Push(new_id(), target.id, update.new, branch, actor.name)
            release = await self._deployer.push(
                actor, target, push, checkout, progress, gone, ignore_windows=IGNORE_WINDOWS in options
            )
            if app.deploy_branch is None and release is not None:
                await self._apps.set_deploy_branch(app, branch)
            return release

    async def _refuse_what_git_would(
        self, app: App, branch: str, updates: Sequence[RefUpdate], env: Mapping[str, str]
    ) -> None:
        """Git moves the refs only after the release is live, and must not refuse then. All earlier pushes have landed,
        and later ones wait for this one, so what holds now will hold."""
        refs = await self._repositories.refs(app)
        for update in updates:
            present = refs.get(update.ref, NOTHING)
            if present != update.old:
                raise Conflict(
                    f"another push moved {_short(update.ref)} to {present[:8]} while this one waited",
                    hint="Push again: git fetch and merge first, or git push --force.",
                )
            _refuse_beside(update, [*refs, *(other.ref for other in updates)])
        try:
            await self._repositories.rehearse(app, updates, env)
        except PaasdError as error:
            raise Conflict(
                f"Git would not store {shown(branch)}: {error.detail}",
                hint="Push again; if it stays so, look at: paasd doctor --state",
            ) from None


def _deployed(app: App, updates: Sequence[RefUpdate], *, with_previews: bool) -> RefUpdate | None:
    """The one branch of the push that is to be deployed; None when everything in it is only stored or removed."""
    for update in updates:
        if not update.ref.startswith((_BRANCH, _TAG)):
            raise InvalidInput(f"only branches and tags can be pushed, not {shown(update.ref)}")
    branches = [update for update in updates if update.ref.startswith(_BRANCH)]
    names = [branch_name(_short(update.ref)) for update in branches]
    if len(names) > 1:
        raise InvalidInput(
            f"{len(names)} branches in one push ({', '.join(names[:5])}), and an app deploys one",
            hint=f"Push one: git push <remote> {_refspec(app, names)}",
        )
    if not names:
        return None
    if branches[0].new == NOTHING:
        if names[0] == app.deploy_branch:
            raise Conflict(
                f"{app.name} deploys the branch {names[0]}; deleting it would not change what is live",
                hint=f"To stop the app: ps:stop {app.name}. To remove it: apps:destroy {app.name}",
            )
        return None
    if app.deploy_branch not in (None, names[0]) and not with_previews:
        raise InvalidInput(
            f"{app.name} deploys the branch {app.deploy_branch}, and {shown(names[0])} was pushed",
            hint=f"Deploy it with: git push <remote> {names[0]}:{app.deploy_branch}, or give such branches"
            f" apps of their own: previews:enable {app.name}",
        )
    return branches[0]


def _refspec(app: App, names: Sequence[str]) -> str:
    """What of these branches to push."""
    wanted = app.deploy_branch or "main"
    if wanted in names or app.deploy_branch is None:
        return wanted if wanted in names else names[0]
    return f"{names[0]}:{wanted}"


def _refuse_beside(update: RefUpdate, refs: Iterable[str]) -> None:
    """Git cannot keep `main` and `main/x`, since it stores them as a file and a folder."""
    if update.new == NOTHING:
        return
    for other in refs:
        if other.startswith(f"{update.ref}/") or update.ref.startswith(f"{other}/"):
            raise Conflict(
                f"Git cannot keep {shown(_short(update.ref))} beside {shown(_short(other))}, which the app has",
                hint=f"Delete that first: git push <remote> --delete {_short(other)}",
            )


def _stored(update: RefUpdate | None, updates: Sequence[RefUpdate]) -> str:
    if update is not None:
        return f"Storing {update.new[:8]} without deploying it (-o skip-deploy)"
    gone = [_short(u.ref) for u in updates if u.new == NOTHING]
    return f"Deleting {', '.join(gone)}; what is live stays" if gone else "Tags are stored and not deployed."


async def _wait_for(earlier: Sequence[asyncio.Event]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(*(landing.wait() for landing in earlier))
    except TimeoutError:
        raise Conflict("another push to this app is under way", hint="Push again when it has ended.") from None


def _short(ref: str) -> str:
    return ref.removeprefix(_BRANCH).removeprefix(_TAG)
