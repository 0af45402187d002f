"""Speaks ACME (RFC 8555) with an authority, through the `acme` library in threads of its own: it blocks.

Everything that goes wrong is a CertificateError, with the authority's own words where it gave any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import requests
from acme import challenges, client, errors, messages
from cryptography.hazmat.primitives import serialization
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from paasd import __version__
from paasd.config import AcmeConfig
from paasd.errors import CertificateError
from paasd.names import shown
from paasd.route import pem
from paasd.route.acme.challenges import DNS, HTTP
from paasd.route.authority_keys import AuthorityKey

T = TypeVar("T")
Order = messages.OrderResource

_AUTHORIZATION_TIME, _FINALIZATION_TIME = 120.0, 120.0
_LONGEST_PAUSE = 10.0
_CALLS = 4
"""Requests of one call at most: a new nonce or two, and the same again."""
_FINISHED = (messages.STATUS_VALID, messages.STATUS_INVALID, messages.STATUS_DEACTIVATED, messages.STATUS_REVOKED)
_CHALLENGES = {HTTP: challenges.HTTP01, DNS: challenges.DNS01}
_threads = ThreadPoolExecutor(8, thread_name_prefix="acme")


@dataclass(frozen=True)
class Authorization:
    """A name that the authority wants to be shown something for."""

    name: str
    offered: dict[str, Any]
    """Challenges by kind."""
    resource: Any


@dataclass(frozen=True)
class Answer:
    """What the authority is to find: `text`, at a path that ends in `token` or in a TXT record."""

    kind: str
    name: str
    token: str
    text: str
    authorization: Authorization
    response: Any


class Session:
    """The library's client, with its errors in our words."""

    def __init__(self, acme: client.ClientV2, uri: str, waits: _Waits) -> None:
        self.uri = uri
        """Of the account."""
        self._acme = acme
        self._waits = waits

    @classmethod
    async def open(cls, config: AcmeConfig, directory: str, account: AuthorityKey) -> Session:
        private = serialization.load_pem_private_key(account.key.reveal().encode(), None)
        net = client.ClientNetwork(
            JWKEC(key=private),
            alg=ES256,
            verify_ssl=config.ca_bundle or True,  # type: ignore[arg-type]  # handed on to requests, which takes a path
            user_agent=f"paasd/{__version__}",
            timeout=config.timeout,  # type: ignore[arg-type]
        )
        waits = _Waits(net.session, config.timeout)
        found = await _called(waits, "directory", partial(client.ClientV2.get_directory, directory, net))
        session = cls(client.ClientV2(found, net), account.uri, waits)
        await session._log_in(config)
        return session

    async def new_order(self, csr: bytes) -> Order:
        return await self._call("newOrder", partial(self._acme.new_order, csr))

    def unauthorized(self, order: Order) -> list[Authorization]:
        """What is left to be shown; the authority may remember the rest."""
        return [
            Authorization(_name(each), _offered(each), each)
            for each in order.authorizations
            if each.body.status != messages.STATUS_VALID
        ]

    def answer(self, authorization: Authorization, kind: str) -> Answer:
        challenge = authorization.offered[kind]
        response, text = challenge.response_and_validation(self._acme.net.key)
        token = challenge.chall.encode("token")
        return Answer(kind, authorization.name, token, text, authorization, response)

    async def judged(self, answers: Sequence[Answer]) -> dict[str, str]:
        """Have the authority look at all of them. What it found wrong, by name."""
        for answer in answers:
            challenge = answer.authorization.offered[answer.kind]
            await self._call("challenge", partial(self._acme.answer_challenge, challenge, answer.response))
        pending = [answer.authorization.resource for answer in answers]
        problems: dict[str, str] = {}
        deadline, pause = time.monotonic() + _AUTHORIZATION_TIME, 0.2
        while pending:
            if time.monotonic() > deadline:
                return problems | {_name(each): "the authority did not look in time" for each in pending}
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
            polled = [(await self._call("authorization", partial(self._acme.poll, each)))[0] for each in pending]
            done = [each for each in polled if each.body.status in _FINISHED]
            problems |= {_name(each): _why(each) for each in done if each.body.status != messages.STATUS_VALID}
            pending = [each for each in polled if each.body.status not in _FINISHED]
        return problems

    async def finalized(self, order: Order) -> str:
        """The chain in PEM."""
        await self._call("finalize", partial(_begin, self._acme, order))
        deadline, pause = time.monotonic() + _FINALIZATION_TIME, 0.1
        while time.monotonic() < deadline:
            found = await self._call("order", lambda: messages.Order.from_json(self._fetch(order.uri).json()))
            if found.status == messages.STATUS_VALID and found.certificate:
                return (await self._call("certificate", partial(self._fetch, found.certificate))).text
            if found.status == messages.STATUS_INVALID:
                raise _refusal(found.error, self._waits) if found.error else CertificateError("the order is invalid")
            if found.status == messages.STATUS_READY:
                await self._call("finalize", partial(_begin, self._acme, order))
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
        raise CertificateError(f"the authority did not make the certificate within {_FINALIZATION_TIME:g} s")

    def _fetch(self, url: str) -> requests.Response:
        """POST-as-GET. The library's own wait for an order sleeps for a second at least."""
        return self._acme.net.post(url, None, new_nonce_url=self._acme.directory["newNonce"])

    async def renewal_time(self, chain: str) -> tuple[float | None, float]:
        wanted, again = await self._call("renewalInfo", partial(self._acme.renewal_time, chain.encode()))
        return wanted.timestamp() if wanted else None, again.timestamp()

    async def revoke(self, chain: str) -> None:
        await self._call("revokeCert", partial(self._acme.revoke, pem.read_chain(chain)[0], 0))

    async def _call(self, what: str, work: Callable[[], T]) -> T:
        return await _called(self._waits, what, work)

    async def _log_in(self, config: AcmeConfig) -> None:
        """With the account that was kept; a new one where there is none, or the authority forgot it."""
        if self.uri:
            self._acme.net.account = messages.RegistrationResource(uri=self.uri, body=messages.Registration())
            try:
                found = await self._call("account", partial(self._acme.query_registration, self._acme.net.account))
                self.uri = found.uri
                return
            except CertificateError as error:
                known = error.__cause__
                if not (isinstance(known, messages.Error) and known.code == "accountDoesNotExist"):
                    raise
        self._acme.net.account = None
        binding = await asyncio.to_thread(_binding, config, self._acme)
        self.uri = await self._call("newAccount", partial(_register, self._acme, config, binding))


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


class _Waits:
    """How long to wait for answers; remembers what the last one's Retry-After said."""

    def __init__(self, session: requests.Session, timeout: float) -> None:
        self.timeout = timeout
        """Of one answer."""
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
    """The library's time-out is for each piece that arrives; who sends one byte after the other would hold a call for
    ever. Its thread ends with the connection, some time."""
    try:
        async with asyncio.timeout(_CALLS * waits.timeout):
            return await asyncio.get_running_loop().run_in_executor(_threads, work)
    except TimeoutError as error:
        raise CertificateError(f"the authority does not answer in time ({what})", wait=waits.seconds) from error
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


def _offered(authorization: Any) -> dict[str, Any]:
    return {
        kind: each
        for each in authorization.body.challenges
        for kind, type_ in _CHALLENGES.items()
        if isinstance(each.chall, type_)
    }
