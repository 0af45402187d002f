"""One ACME authority with our account there, as the rest of paasd sees it.

What speaks the protocol is loaded when it is first needed: most boxes would carry its ten megabytes for nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from paasd.config import AcmeConfig
from paasd.errors import CertificateError, InvalidInput
from paasd.models import Secret
from paasd.progress import Progress
from paasd.route import pem
from paasd.route.acme.challenges import Challenges
from paasd.route.authority_keys import AuthorityKey, AuthorityKeys
from paasd.route.keys import new_key, request

if TYPE_CHECKING:
    from paasd.route.acme.client import Order, Session

STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


class Authority:
    """The account is made when it is first needed, and kept."""

    def __init__(self, config: AcmeConfig, keys: AuthorityKeys, answers: Challenges) -> None:
        self._config = config
        self._keys = keys
        self._answers = answers
        self.directory = STAGING if config.staging else config.directory
        self._registering = asyncio.Lock()

    async def order(
        self, names: tuple[str, ...], *, key_type: str, challenge: str, now: float, progress: Progress
    ) -> pem.Bundle:
        """A certificate for these names. Raises CertificateError; its `names` say which of them are to blame."""
        session = await self._open()
        key = await asyncio.to_thread(new_key, key_type)
        order = await session.new_order(request(key, names))
        async with AsyncExitStack() as stack:
            await self._authorize(session, order, challenge, stack, progress)
            chain = await session.finalized(order)
        return await asyncio.to_thread(_received, pem.key_pem(key) + chain, names, now)

    async def renewal_time(self, chain: str) -> tuple[float | None, float]:
        """When the authority wants this certificate to be renewed (RFC 9773), if it says so, and when it may be asked
        again."""
        return await (await self._open()).renewal_time(chain)

    async def revoke(self, chain: str) -> None:
        await (await self._open()).revoke(chain)

    async def _open(self) -> Session:
        async with self._registering:
            known = await self._keys.get(self.directory)
            if known is None:
                key = Secret(pem.key_pem(ec.generate_private_key(ec.SECP256R1())))
                known = AuthorityKey(self.directory, key)
                await self._keys.put(known)
            session = await (await asyncio.to_thread(_session_class)).open(self._config, self.directory, known)
            if session.uri != known.uri:
                await self._keys.put(AuthorityKey(known.name, known.key, session.uri))
            return session

    async def _authorize(
        self, session: Session, order: Order, wish: str, stack: AsyncExitStack, progress: Progress
    ) -> None:
        """Have all names of the order authorized. What it shows the authority stays until `stack` ends."""
        problems: dict[str, str] = {}
        answers = []
        for each in session.unauthorized(order):
            try:
                kind = self._answers.kind(each.name, each.offered, wish)
                answer = session.answer(each, kind)
                await stack.enter_async_context(self._answers.shown(kind, each.name, answer.token, answer.text))
                answers.append(answer)
            except CertificateError as error:
                problems[each.name] = (
                    error.detail if error.hint == CertificateError.hint else f"{error.detail}. {error.hint}"
                )
        if not problems and answers:
            await self._answers.settle({answer.kind for answer in answers})
            progress.detail(f"The authority looks for {', '.join(answer.name for answer in answers)}")
            problems = await session.judged(answers)
        if problems:
            raise CertificateError("; ".join(f"{name}: {said}" for name, said in problems.items()), names=problems)


def _session_class() -> type[Session]:
    from paasd.route.acme.client import Session

    return Session


def _received(text: str, names: tuple[str, ...], now: float) -> pem.Bundle:
    """What the authority sent, if it is what was asked for."""
    try:
        bundle = pem.checked(pem.read(text), names, now, whole=False)
    except InvalidInput as error:
        raise CertificateError(f"the authority sent a certificate that cannot be used: {error.detail}") from error
    if missing := [name for name in names if name not in bundle.names]:
        raise CertificateError(f"the authority left {', '.join(missing)} out of the certificate")
    return bundle
