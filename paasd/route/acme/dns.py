"""TXT records for DNS-01: by dynamic update (RFC 2136, signed with TSIG), or by a program of the administrator's."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Protocol

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsigkeyring
import dns.update

from paasd.config import AcmeConfig
from paasd.errors import CertificateError
from paasd.names import shown

_TIMEOUT = 10.0
_TTL = 60
_VISIBLE_WITHIN = 30.0
_MOST_SAID = 300


class Records(Protocol):
    """Adding what is there and removing what is not do nothing. Raises CertificateError."""

    def add(self, name: str, value: str) -> Coroutine[object, object, None]: ...

    def remove(self, name: str, value: str) -> Coroutine[object, object, None]: ...


def records_of(config: AcmeConfig) -> Records | None:
    """None where DNS-01 is not set up. Raises CertificateError for settings that make no sense."""
    if config.dns == "rfc2136":
        return Updates(config)
    if config.dns == "hook":
        return Hook(config)
    if config.dns:
        raise CertificateError(f"acme.dns is rfc2136 or hook, not {shown(config.dns)}")
    return None


class Updates:
    def __init__(self, config: AcmeConfig) -> None:
        if not config.dns_server:
            raise CertificateError("acme.dns is rfc2136, but acme.dns_server names no server")
        host, _, port = config.dns_server.rpartition(":")
        plain = not host or (":" in host and not host.startswith("["))
        self._host, self._port = (config.dns_server, 53) if plain else (host.strip("[]"), int(port))
        self._config = config

    async def add(self, name: str, value: str) -> None:
        update = await self._update(name)
        update.add(dns.name.from_text(name), _TTL, "TXT", f'"{value}"')
        await self._send(update)
        await self._until_visible(name, value)

    async def remove(self, name: str, value: str) -> None:
        update = await self._update(name)
        update.delete(dns.name.from_text(name), "TXT", f'"{value}"')
        await self._send(update)

    async def _update(self, name: str) -> dns.update.UpdateMessage:
        zone = dns.name.from_text(self._config.dns_zone) if self._config.dns_zone else await self._zone_of(name)
        if not self._config.dns_key_name:
            return dns.update.UpdateMessage(zone)
        try:
            secret = (await asyncio.to_thread(Path(self._config.dns_key_file).read_text)).strip()
            keyring = dns.tsigkeyring.from_text({self._config.dns_key_name: secret})
        except (OSError, ValueError) as error:
            raise CertificateError(f"the TSIG key acme.dns_key_file cannot be read: {error}") from error
        algorithm = dns.name.from_text(self._config.dns_key_algorithm)
        return dns.update.UpdateMessage(zone, keyring=keyring, keyalgorithm=algorithm)

    async def _zone_of(self, name: str) -> dns.name.Name:
        """The closest name above that the server has a zone for."""
        candidate = dns.name.from_text(name)
        while len(candidate) > 2:
            answer = await self._ask(dns.message.make_query(candidate, dns.rdatatype.SOA))
            if any(rrset.name == candidate and rrset.rdtype == dns.rdatatype.SOA for rrset in answer.answer):
                return candidate
            candidate = candidate.parent()
        raise CertificateError(
            f"the name server {self._config.dns_server} has no zone for {name}", hint="Name it: acme.dns_zone"
        )

    async def _send(self, update: dns.update.UpdateMessage) -> None:
        answer = await self._ask(update)
        if answer.rcode() != dns.rcode.NOERROR:
            reason = dns.rcode.to_text(answer.rcode())
            raise CertificateError(f"the name server {self._config.dns_server} refuses the update: {reason}")

    async def _until_visible(self, name: str, value: str) -> None:
        query = dns.message.make_query(name, dns.rdatatype.TXT)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _VISIBLE_WITHIN
        while loop.time() < deadline:
            answer = await self._ask(query)
            if any(f'"{value}"' in rrset.to_text() for rrset in answer.answer):
                return
            await asyncio.sleep(0.2)
        raise CertificateError(f"the name server took the record {name}, but does not show it")

    async def _ask(self, message: dns.message.Message) -> dns.message.Message:
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await dns.asyncquery.tcp(message, await self._address(), _TIMEOUT, self._port)
        except (dns.exception.DNSException, OSError, EOFError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise CertificateError(f"the name server {self._config.dns_server} does not answer: {reason}") from error

    async def _address(self) -> str:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(self._host))
        found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return str(found[0][4][0])


class Hook:
    def __init__(self, config: AcmeConfig) -> None:
        self._program, self._timeout = config.dns_hook, config.dns_hook_timeout
        if not os.path.isabs(self._program):
            raise CertificateError("acme.dns is hook, but acme.dns_hook is not the full path of a program")

    async def add(self, name: str, value: str) -> None:
        await self._run("add", name, value)

    async def remove(self, name: str, value: str) -> None:
        await self._run("remove", name, value)

    async def _run(self, verb: str, name: str, value: str) -> None:
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        environment |= {"PAASD_DNS_ACTION": verb, "PAASD_DNS_NAME": name, "PAASD_DNS_VALUE": value}
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                verb,
                name,
                value,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise CertificateError(f"acme.dns_hook {self._program} cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(self._timeout):
                _, said = await process.communicate()
        except TimeoutError:
            raise CertificateError(f"acme.dns_hook {verb} took longer than {self._timeout:g} s") from None
        finally:
            await _end(process)
        if process.returncode:
            words = shown(said.decode(errors="replace").strip()[-_MOST_SAID:], _MOST_SAID)
            raise CertificateError(f"acme.dns_hook {verb} {name} ended with status {process.returncode}: {words}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """One that still runs, with all that it started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
