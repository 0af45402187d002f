"""The one permission layer: every front door asks `authorize()` before anything is read or changed."""

from __future__ import annotations

from enum import StrEnum

from paasd.errors import Forbidden, NotFound
from paasd.models import Actor


class Action(StrEnum):
    """What can be asked for. Reading is separate from changing; secrets and the box itself stand apart."""

    APP_READ = "app:read"
    APP_CREATE = "app:create"
    APP_DEPLOY = "app:deploy"
    APP_CONFIGURE = "app:configure"
    APP_DESTROY = "app:destroy"
    CONFIG_READ = "config:read"
    RUN = "app:run"
    KEY_READ = "key:read"
    KEY_WRITE = "key:write"
    VOLUME_CHANGE = "volume:change"
    HOST_PATH = "volume:host-path"
    QUOTA_CHANGE = "quota:change"
    GLOBAL_DOMAIN = "domain:global"
    NGINX_SNIPPET = "nginx:snippet"
    BOX_READ = "box:read"
    BOX_CLEAN = "box:clean"
    JOB_READ = "job:read"
    JOB_CHANGE = "job:change"


_VIEWER = {Action.APP_READ}
_DEVELOPER = _VIEWER | {
    Action.APP_CREATE,
    Action.APP_DEPLOY,
    Action.APP_CONFIGURE,
    Action.CONFIG_READ,
    Action.RUN,
    Action.VOLUME_CHANGE,
}
_ADMIN = set(Action)

_ALLOWED: dict[str, set[Action]] = {"viewer": _VIEWER, "developer": _DEVELOPER, "admin": _ADMIN, "owner": _ADMIN}


def allows(actor: Actor, action: Action) -> bool:
    """Whether the actor's role includes the action in the actor's own organization."""
    return action in _ALLOWED.get(actor.role, set())


def authorize(actor: Actor, action: Action, organization_id: str) -> None:
    """Raises NotFound for an object of another organization, as if it did not exist, and Forbidden when the
    actor's role does not include the action."""
    if actor.organization_id != organization_id:
        raise NotFound("no such object")
    if not allows(actor, action):
        raise Forbidden(
            f"{actor.name} has the role {actor.role}, which does not include {action}",
            hint="Ask an administrator of the organization for a role that does.",
        )
