"""A real authority (pebble) and a real name server (knot) for tests, and a proxy with faults before the authority."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.box import eventually
from tests.ports import free_port
from tests.tls import Authority

ZONE = "paasd.example"
"""All its names have the address 127.0.0.1."""
_TSIG_NAME = "paasd"


class NameServer:
    """knot with one zone that takes updates signed with `key_file`."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        secret = base64.b64encode(os.urandom(32)).decode()
        self.key_file = directory / "tsig"
        self.key_file.write_text(secret)
        (directory / "zone").write_text(
            f"$ORIGIN {ZONE}.\n$TTL 1\n@ SOA ns admin 1 60 60 60 1\n@ NS ns\nns A 127.0.0.1\n@ A 127.0.0.1\n"
            "* A 127.0.0.1\nelsewhere A 127.0.0.2\n*.sub A 127.0.0.1\n"
        )
        (directory / "db").mkdir()
        config = directory / "knot.conf"
        config.write_text(
            f"server:\n    rundir: {directory}\n    listen: 127.0.0.1@{self.port}\n"
            "    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n"
            f"key:\n  - id: {_TSIG_NAME}\n    algorithm: hmac-sha256\n    secret: {secret}\n"
            f"acl:\n  - id: update\n    key: {_TSIG_NAME}\n    action: update\n"
            f"database:\n    storage: {directory}/db\n"
            f"zone:\n  - domain: {ZONE}\n    storage: {directory}\n    file: zone\n    acl: update\n"
        )
        self._config = config
        self._log = (directory / "knot.log").open("wb")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["/usr/sbin/knotd", "-c", str(self._config)], stdout=self._log, stderr=self._log
        )
        eventually(lambda: b"127.0.0.1" in self.ask("www", "A"))

    def ask(self, name: str, kind: str) -> bytes:
        command = [
            "kdig",
            "+short",
            "+timeout=1",
            "+retry=0",
            "-p",
            str(self.port),
            "@127.0.0.1",
            f"{name}.{ZONE}",
            kind,
        ]
        return subprocess.run(command, capture_output=True, timeout=20, check=False).stdout

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


class Pebble:
    """An authority whose own certificate `ca_file` vouches for. It looks for HTTP-01 at `http_port`."""

    def __init__(self, directory: Path, http_port: int, dns_port: int, *, eab: bool = False, days: int = 90) -> None:
        self.port, self.management = free_port(), free_port()
        authority = Authority.new("Of the directory")
        key, chain = authority.leaf(["localhost"])
        (directory / "key.pem").write_text(key)
        (directory / "chain.pem").write_text(chain)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_text(authority.pem)
        self.chain_files = (directory / "chain.pem", directory / "key.pem")
        self.eab = ("kid-1", base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="))
        config: dict[str, Any] = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(directory / "chain.pem"),
            "privateKey": str(directory / "key.pem"),
            "httpPort": http_port,
            "tlsPort": free_port(),
            "externalAccountBindingRequired": eab,
            "certificateValidityPeriod": days * 86400 - 1,
        }
        if eab:
            config["externalAccountMACKeys"] = dict([self.eab])
        (directory / "pebble.json").write_text(json.dumps({"pebble": config}))
        environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        command = ["pebble", "-config", str(directory / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns_port}"]
        self._log = (directory / "pebble.log").open("wb")
        self.process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)
        eventually(self._answers)

    @property
    def directory(self) -> str:
        return f"https://localhost:{self.port}/dir"

    def root(self) -> str:
        return self._get(self.management, "/roots/0")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return "newOrder" in self._get(self.port, "/dir")
        return False

    def _get(self, port: int, path: str) -> str:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()


@dataclass
class Exchange:
    """One request that passed the proxy, for a fault to look at and answer itself or change the answer of."""

    method: str
    path: str
    kind: str
    """`dir`, `nonce-plz`, `sign-me-up`, `order-plz`, `authZ`, `chalZ`, `finalize-order`, `my-order`, `certZ`, …"""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Fault = Callable[[Exchange], None]
"""Called with what the authority answered; changes it. With `before`, called with status 0 and nothing asked yet."""


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A fault may be to hang up."""


class FaultyProxy:
    """Before an authority. `fault` changes its answers, `before` may answer for it; `seen` lists what was asked."""

    def __init__(self, pebble: Pebble) -> None:
        self.pebble = pebble
        self.fault: Fault | None = None
        self.before: Fault | None = None
        self.renewal_window: tuple[str, str] | None = None
        self.seen: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                proxy.answer(self, self.rfile.read(length))

            do_GET = do_POST = do_HEAD = _serve

            def log_message(self, *_: Any) -> None:
                return

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, pebble.chain_files))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def directory(self) -> str:
        return f"https://localhost:{self.port}/dir"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        self.fault = self.before = self.renewal_window = None
        self.seen.clear()

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        exchange = Exchange(handler.command, handler.path, handler.path.strip("/").split("/")[0])
        self.seen.append(exchange.kind)
        if self.before:
            self.before(exchange)
        if not exchange.status:
            self._ask(exchange, handler.headers, body)
            if self.fault:
                self.fault(exchange)
        with contextlib.suppress(OSError):
            handler.send_response(exchange.status)
            for name, value in exchange.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(exchange.body)))
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(exchange.body)

    def _ask(self, exchange: Exchange, headers: Mapping[str, str], body: bytes) -> None:
        if exchange.kind == "renewal-info" and self.renewal_window:
            start, end = self.renewal_window
            exchange.status, exchange.headers = 200, {"Content-Type": "application/json", "Retry-After": "21600"}
            exchange.body = json.dumps({"suggestedWindow": {"start": start, "end": end}}).encode()
            return
        context = ssl.create_default_context(cafile=str(self.pebble.ca_file))
        # Asked as if directly, so that the URLs that were signed and those in answers are the proxy's own.
        connection = http.client.HTTPSConnection("localhost", self.pebble.port, context=context, timeout=20)
        try:
            kept = {name: value for name, value in headers.items() if name in ("Content-Type", "Accept", "User-Agent")}
            connection.request(exchange.method, exchange.path, body or None, {**kept, "Host": f"localhost:{self.port}"})
            response = connection.getresponse()
            exchange.status, exchange.body = response.status, response.read()
            dropped = ("content-length", "connection", "transfer-encoding", "date")
            exchange.headers = {n: v for n, v in response.getheaders() if n.lower() not in dropped}
        finally:
            connection.close()
        if exchange.kind == "dir" and self.renewal_window:
            found = json.loads(exchange.body) | {"renewalInfo": f"https://localhost:{self.port}/renewal-info"}
            exchange.body = json.dumps(found).encode()


@contextlib.contextmanager
def authority(http_port: int, **options: Any) -> Iterator[tuple[NameServer, Pebble]]:
    directory = Path(tempfile.mkdtemp(prefix="pta", dir="/tmp"))
    names = NameServer(directory)
    try:
        pebble = Pebble(directory, http_port, names.port, **options)
        try:
            yield names, pebble
        finally:
            pebble.stop()
    finally:
        names.stop()
        shutil.rmtree(directory, ignore_errors=True)


def problem(status: int, code: str, detail: str = "made up", **headers: str) -> Fault:
    def answer(exchange: Exchange) -> None:
        exchange.status = status
        nonce = exchange.headers.get("Replay-Nonce")
        exchange.headers = {"Content-Type": "application/problem+json", **({"Replay-Nonce": nonce} if nonce else {})}
        exchange.headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        exchange.body = json.dumps({"type": f"urn:ietf:params:acme:error:{code}", "detail": detail}).encode()

    return answer


def at(kind: str, fault: Fault, times: int = 10**6) -> Fault:
    """The fault for requests of one kind, so many times."""
    left = [times]

    def apply(exchange: Exchange) -> None:
        if exchange.kind == kind and left[0] > 0:
            left[0] -= 1
            fault(exchange)

    return apply


def slow(seconds: float) -> Fault:
    return lambda exchange: time.sleep(seconds)
