"""Signing in to apps that only their members see, with a link for the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.app_sites import AppSites
from paasd.errors import Conflict
from paasd.gateway import members
from paasd.gateway.policy import Gateway
from paasd.identity.policy import Action
from paasd.identity.sign_ins import SignIns
from paasd.route.domains import Domains


class NewSignIn(Body):
    host: str | None = None
    """Which of the app's host names; its main one if not said."""


class SignInsResource:
    def __init__(self, sign_ins: SignIns, gateway: Gateway, domains: Domains, sites: AppSites) -> None:
        self._sign_ins = sign_ins
        self._gateway = gateway
        self._domains = domains
        self._sites = sites

    def operations(self) -> Sequence[Operation]:
        path = "/apps/{app}/sign-ins"
        return [
            Operation("POST", path, Action.APP_READ, self.add, "A link that signs a browser in once", NewSignIn),
            Operation("DELETE", path, Action.APP_CONFIGURE, self.end_all, "Sign everybody out, void open links"),
        ]

    async def add(self, call: Call) -> dict[str, Any]:
        host, session = call.body.host or await self._domains.main(call.app), call.request.get("session")
        url = await self._domains.url_of(call.app, host)
        if not members.is_on(await self._gateway.values(call.app)):
            raise Conflict(
                f"auth.members is not on for {call.app.name}: nobody needs to sign in to {url}",
                hint=f"To let in only its members: edge:set {call.app.name} auth.members on",
            )
        await self._sites.set(call.app)  # it may not know a new key yet
        scheme, _, authority = url.partition("://")
        token = await self._sign_ins.token(
            call.actor, session.key_id if session else None, call.app, scheme, authority.partition(":")[0]
        )
        return {"url": f"{url}/.paasd/sign-in?token={token}", "seconds": members.LINK}

    async def end_all(self, call: Call) -> dict[str, Any]:
        await self._sign_ins.end_all(call.actor, call.app)
        await self._sites.set(call.app)
        return {}
