"""Speaks ACME (RFC 8555) with an authority, through the `acme` library in threads of its own: it blocks.

Everything that goes wrong is a CertificateError, with the authority's own words where it gave any."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import requests
from acme import challenges, client, errors, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from paasd import __version__
from paasd.config import AcmeConfig
from paasd.errors import CertificateError, InvalidInput
from paasd.models import Secret
from paasd.names import shown
from paasd.progress import Progress
from paasd.route import pem
from paasd.route.acme.challenges import DNS, HTTP, Challenges
from paasd.route.authority_keys import AuthorityKey, AuthorityKeys
from paasd.route.keys import new_key, request

T = TypeVar("T")

STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
_AUTHORIZATION_TIME, _FINALIZATION_TIME = 120.0, 120.0
_LONGEST_PAUSE = 10.0
_PIECE = 3.0
"""Seconds that one call into the library may wait, so that none outlives the daemon's stop for long."""
_FINISHED = (messages.STATUS_VALID, messages.STATUS_INVALID, messages.STATUS_DEACTIVATED, messages.STATUS_REVOKED)
_CHALLENGES = {HTTP: challenges.HTTP01, DNS: challenges.DNS01}
_threads = ThreadPoolExecutor(8, thread_name_prefix="acme")


class Authority:
    """One ACME authority with our account there. The account is made when it is first needed, and kept."""

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
        order = await session.call("newOrder", partial(session.acme.new_order, request(key, names)))
        async with AsyncExitStack() as stack:
            await self._authorize(session, order, challenge, stack, progress)
            order = await session.finalized(order)
        return await asyncio.to_thread(_received, pem.key_pem(key) + order.fullchain_pem, names, now)

    async def renewal_time(self, chain: str) -> tuple[float | None, float]:
        """When the authority wants this certificate to be renewed (RFC 9773), if it says so, and when it may be asked
        again."""
        session = await self._open()
        wanted, again = await session.call("renewalInfo", partial(session.acme.renewal_time, chain.encode()))
        return wanted.timestamp() if wanted else None, again.timestamp()

    async def revoke(self, chain: str) -> None:
        session = await self._open()
        leaf = pem.read_chain(chain)[0]
        await session.call("revokeCert", partial(session.acme.revoke, leaf, 0))

    async def _open(self) -> _Session:
        async with self._registering:
            known = await self._keys.get(self.directory)
            if known is None:
                key = Secret(pem.key_pem(ec.generate_private_key(ec.SECP256R1())))
                known = AuthorityKey(self.directory, key)
                await self._keys.put(known)
            session = await _Session.open(self._config, self.directory, known)
            if session.uri != known.uri:
                await self._keys.put(AuthorityKey(known.name, known.key, session.uri))
            return session

    async def _authorize(
        self, session: _Session, order: Any, wish: str, stack: AsyncExitStack, progress: Progress
    ) -> None:
        """Have all names of the order authorized. What it shows the authority stays until `stack` ends."""
        pending, problems, kinds = [], {}, set()
        for authorization in order.authorizations:
            if authorization.body.status == messages.STATUS_VALID:
                continue
            name = _name(authorization)
            try:
                kind, chosen = self._chosen(authorization, name, wish)
                response, answer = chosen.response_and_validation(session.acme.net.key)
                token = chosen.chall.encode("token")
                await stack.enter_async_context(self._answers.shown(kind, name, token, answer))
            except CertificateError as error:
                problems[name] = (
                    error.detail if error.hint == CertificateError.hint else f"{error.detail}. {error.hint}"
                )
                continue
            kinds.add(kind)
            pending.append((authorization, chosen, response))
        if not problems:
            await self._answers.settle(kinds)
            for _, chosen, response in pending:
                await session.call("challenge", partial(session.acme.answer_challenge, chosen, response))
            progress.detail(f"The authority looks for {', '.join(_name(each) for each, _, _ in pending) or 'nothing'}")
            problems = await session.outcomes([each for each, _, _ in pending])
        if problems:
            raise CertificateError("; ".join(f"{name}: {said}" for name, said in problems.items()), names=problems)

    def _chosen(self, authorization: Any, name: str, wish: str) -> tuple[str, Any]:
        offered = {kind: each for each in authorization.body.challenges for kind, t in _CHALLENGES.items()
                   if isinstance(each.chall, t)}  # fmt: skip
        kind = self._answers.kind(name, set(offered), wish)
        return kind, offered[kind]


class _Session:
    """The library's client, with its errors in our words."""

    def __init__(self, acme: client.ClientV2, uri: str, waits: _Waits) -> None:
        self.acme = acme
        self.uri = uri
        self._waits = waits

    @classmethod
    async def open(cls, config: AcmeConfig, directory: str, account: AuthorityKey) -> _Session:
        private = serialization.load_pem_private_key(account.key.reveal().encode(), None)
        net = client.ClientNetwork(
            JWKEC(key=private),
            alg=ES256,
            verify_ssl=config.ca_bundle or True,  # type: ignore[arg-type]  # handed on to requests, which takes a path
            user_agent=f"paasd/{__version__}",
            timeout=config.timeout,  # type: ignore[arg-type]
        )
        waits = _Waits(net.session)
        found = await _called(waits, "directory", partial(client.ClientV2.get_directory, directory, net))
        session = cls(client.ClientV2(found, net), account.uri, waits)
        await session._log_in(config)
        return session

    async def call(self, what: str, work: Callable[[], T]) -> T:
        return await _called(self._waits, what, work)

    async def outcomes(self, pending: list[Any]) -> dict[str, str]:
        """Wait until the authority has looked at all of them. What it found wrong, by name."""
        problems: dict[str, str] = {}
        deadline, pause = time.monotonic() + _AUTHORIZATION_TIME, 0.2
        while pending:
            if time.monotonic() > deadline:
                return problems | {_name(each): "the authority did not look in time" for each in pending}
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
            polled = [(await self.call("authorization", partial(self.acme.poll, each)))[0] for each in pending]
            done = [each for each in polled if each.body.status in _FINISHED]
            problems |= {_name(each): _why(each) for each in done if each.body.status != messages.STATUS_VALID}
            pending = [each for each in polled if each.body.status not in _FINISHED]
        return problems

    async def finalized(self, order: Any) -> Any:
        order = await self.call("finalize", partial(_begin, self.acme, order))
        deadline = time.monotonic() + _FINALIZATION_TIME
        while time.monotonic() < deadline:
            found = await self.call("order", partial(_polled, self.acme, order))
            if found is not None:
                return found
        raise CertificateError(f"the authority did not make the certificate within {_FINALIZATION_TIME:g} s")

    async def _log_in(self, config: AcmeConfig) -> None:
        """With the account that was kept; a new one where there is none, or the authority forgot it."""
        if self.uri:
            self.acme.net.account = messages.RegistrationResource(uri=self.uri, body=messages.Registration())
            try:
                found = await asyncio.get_running_loop().run_in_executor(
                    _threads, partial(self.acme.query_registration, self.acme.net.account)
                )
                self.uri = found.uri
                return
            except messages.Error as error:
                if error.code != "accountDoesNotExist":
                    raise _translated(error, "newAccount", self._waits) from error
            except Exception as error:
                raise _translated(error, "newAccount", self._waits) from error
        self.acme.net.account = None
        binding = await asyncio.to_thread(_binding, config, self.acme)
        self.uri = await self.call("newAccount", partial(_register, self.acme, config, binding))


def _register(acme: client.ClientV2, config: AcmeConfig, binding: Any) -> str:
    more = {"external_account_binding": binding} if binding else {}
    wanted = messages.NewRegistration.from_data(email=config.email or None, terms_of_service_agreed=True, **more)
    try:
        return str(acme.new_account(wanted).uri)
    except errors.ConflictError as known:
        acme.net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())
        return str(known.location)


def _binding(config: AcmeConfig, acme: client.ClientV2) -> Any:
    if not config.eab_kid:
        return None
    try:
        secret = Path(config.eab_key_file).read_text().strip()
        key = acme.net.key
        assert key is not None
        return messages.ExternalAccountBinding.from_data(key.public_key(), config.eab_kid, secret, acme.directory)
    except (OSError, ValueError) as error:
        raise CertificateError(f"acme.eab_key_file cannot be read: {error}") from error


def _begin(acme: client.ClientV2, order: Any) -> Any:
    try:
        return acme.begin_finalization(order)
    except messages.Error as error:
        if error.code != "orderNotReady":
            raise
        return order


def _polled(acme: client.ClientV2, order: Any) -> Any:
    try:
        return acme.poll_finalization(order, datetime.datetime.now() + datetime.timedelta(seconds=_PIECE))
    except errors.TimeoutError:
        return None


def _received(text: str, names: tuple[str, ...], now: float) -> pem.Bundle:
    """What the authority sent, if it is what was asked for."""
    try:
        bundle = pem.checked(pem.read(text), names, now, whole=False)
    except InvalidInput as error:
        raise CertificateError(f"the authority sent a certificate that cannot be used: {error.detail}") from error
    if missing := [name for name in names if name not in bundle.names]:
        raise CertificateError(f"the authority left {', '.join(missing)} out of the certificate")
    return bundle


class _Waits:
    """Remembers what the last answer's Retry-After said."""

    def __init__(self, session: requests.Session) -> None:
        self.seconds: float | None = None
        session.hooks["response"].append(self._look)

    def _look(self, response: requests.Response, *_: Any, **__: Any) -> None:
        self.seconds = _seconds(response.headers.get("Retry-After")) if response.status_code >= 400 else None


def _seconds(text: str | None) -> float | None:
    """A number of seconds, or a date."""
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 9:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


async def _called(waits: _Waits, what: str, work: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, work)
    except Exception as error:
        raise _translated(error, what, waits) from error


def _translated(error: Exception, what: str, waits: _Waits) -> CertificateError:
    """The library lets errors of many kinds through, also for answers that are not ACME at all."""
    if isinstance(error, CertificateError):
        return error
    if isinstance(error, messages.Error):
        return _refusal(error, waits)
    if isinstance(error, requests.exceptions.Timeout):
        return CertificateError(f"the authority does not answer in time ({what})", wait=waits.seconds)
    if isinstance(error, requests.exceptions.RequestException):
        return CertificateError(f"the authority cannot be reached: {_short(error)}", wait=waits.seconds)
    if isinstance(error, errors.IssuanceError):
        return _refusal(error.error, waits)
    return CertificateError(f"the authority's answer ({what}) makes no sense: {_short(error)}", wait=waits.seconds)


def _refusal(error: messages.Error, waits: _Waits) -> CertificateError:
    said = f"the authority says {error.code or error.typ}: {shown(str(error.detail or ''), 400)}"
    parts = {
        sub.identifier.value: f"{sub.code or sub.typ}: {shown(str(sub.detail or ''), 400)}"
        for sub in error.subproblems or ()
        if sub.identifier is not None
    }
    return CertificateError(said, names=parts, wait=waits.seconds)


def _short(error: Exception) -> str:
    return shown(str(error) or type(error).__name__, 300)


def _name(authorization: Any) -> str:
    wildcard = "*." if authorization.body.wildcard else ""
    return f"{wildcard}{authorization.body.identifier.value}"


def _why(authorization: Any) -> str:
    for challenge in authorization.body.challenges:
        if challenge.error is not None:
            return f"{challenge.error.code}: {shown(str(challenge.error.detail), 400)}"
    return f"the authorization is {authorization.body.status.name}"
