"""paramiko made fit to face strangers: a short list of algorithms, bounded packets, public keys only, and an identity
that comes from the key that signed. The only module that imports paramiko."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import paramiko  # type: ignore[import-untyped]
from paramiko.auth_handler import AuthHandler  # type: ignore[import-untyped]
from paramiko.channel import Channel  # type: ignore[import-untyped]
from paramiko.common import (  # type: ignore[import-untyped]
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    cMSG_CHANNEL_OPEN_FAILURE,
    cMSG_USERAUTH_PK_OK,
    cMSG_USERAUTH_REQUEST,
)
from paramiko.kex_curve25519 import KexCurve25519  # type: ignore[import-untyped]
from paramiko.packet import Packetizer  # type: ignore[import-untyped]

from paasd.push import host_keys

log = logging.getLogger(__name__)
# Its tracebacks about what strangers send are noise.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

BANNER = "SSH-2.0-paasd"
MAX_PACKET = 256 * 1024
MAX_ATTEMPTS = 6
KEEPALIVE = 30
MIN_RSA_BITS = 2048
OPEN_SUCCEEDED = paramiko.OPEN_SUCCEEDED
PROHIBITED = paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
UNREACHABLE = paramiko.OPEN_FAILED_CONNECT_FAILED
RESOURCE_SHORTAGE = paramiko.OPEN_FAILED_RESOURCE_SHORTAGE
ServerInterface: Any = paramiko.ServerInterface

_KEY_NAMES = {
    "ssh-ed25519": "ssh-ed25519",
    "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521",
    "rsa-sha2-512": "ssh-rsa",
    "rsa-sha2-256": "ssh-rsa",
}


class Front(Protocol):
    """What the transport tells and asks, all in its own thread."""

    def identify(self, key_type: str, blob: bytes) -> object | None:
        """Whose key this is. Asked for keys that prove nothing, too."""

    def proved(self, identity: object) -> bool:
        """The client signed with the key of `identity`; False shuts the door after all."""

    explanation: str
    """Why the channel that was asked for last was refused."""

    def opened(self, channel: Any) -> None:
        """A channel was opened, and the client was told."""

    def requested(self, channel: Any) -> None:
        """A channel request has been answered."""

    def stirred(self, channel: Any) -> None:
        """The channel's send window may have opened."""

    def ended(self) -> None:
        """The connection is over."""


def load_host_keys(paths: list[Path]) -> list[Any]:
    """Blocking."""
    return [_LOADERS[path.name](path) for path in paths]


_LOADERS: dict[str, Callable[[Path], Any]] = {
    "ssh_host_ed25519_key": lambda path: paramiko.Ed25519Key(filename=str(path)),
    "ssh_host_rsa_key": lambda path: paramiko.RSAKey(key=host_keys.read(path)),
}


class Wire:
    """The socket as paramiko sees it: reads are buffered, the version line that was already sent is not sent twice, and
    closing wakes the thread that reads."""

    def __init__(self, sock: socket.socket, received: bytes) -> None:
        self._sock = sock
        self._buffer = received
        self._unsent_banner = len(BANNER) + 2
        self._closed = False

    def recv(self, size: int) -> bytes:
        if not self._buffer:
            # Clients send some messages in two pieces, the second once the first is acknowledged: 40 ms later, unless
            # the kernel is told not to wait. It forgets that again and again (tcp(7)).
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if size >= 32 * 1024:
                return self._sock.recv(size)
            self._buffer = self._sock.recv(64 * 1024)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def send(self, data: bytes) -> int:
        if self._unsent_banner:
            skipped = min(self._unsent_banner, len(data))
            self._unsent_banner -= skipped
            return skipped
        return self._sock.send(data)

    def settimeout(self, seconds: float) -> None:
        self._sock.settimeout(seconds)

    def getpeername(self) -> Any:
        return self._sock.getpeername()

    def shut(self) -> None:
        """End the connection from another thread; the reading thread then closes the descriptor."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed = True
        self.shut()
        self._sock.close()


class BoundedPacketizer(Packetizer):  # type: ignore[misc]
    """paramiko believes any packet length a stranger writes; RFC 4253 asks for 35,000 bytes at most."""

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if not 0 <= n <= MAX_PACKET:
            raise paramiko.SSHException("packet too large")
        return bytes(super().read_all(n, check_rekey))

    def start_handshake(self, timeout: float) -> None:
        """Nothing: it would start a thread for a timer; the login grace covers the handshake."""


class Transport(paramiko.Transport):  # type: ignore[misc]
    _preferred_kex: tuple[str, ...] = (
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512",
    )
    _kex_info: ClassVar[dict[str, Any]] = {**paramiko.Transport._kex_info, "curve25519-sha256": KexCurve25519}
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
    )
    _preferred_macs = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
    _preferred_keys = ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")
    _preferred_pubkeys = tuple(_KEY_NAMES)
    _preferred_compression = ("none",)
    # How often an idle thread looks up; Wire.close() wakes it at once, so this only paces the keepalive.
    _active_check_timeout = 5.0

    auth_handler: Any

    def __init__(self, wire: Wire, host_keys: list[Any], front: Front) -> None:
        super().__init__(wire, packetizer_class=BoundedPacketizer)
        self._preferred_kex = tuple(name for name in self._preferred_kex if name in self._kex_info)
        self.local_version = BANNER
        self.front = front
        self.channels: dict[int, Any] = {}
        self._opening = False
        for key in host_keys:
            self.add_server_key(key)
        self._channel_handler_table = {
            **paramiko.Transport._channel_handler_table,
            MSG_CHANNEL_REQUEST: _request,
            MSG_CHANNEL_DATA: _data,
            MSG_CHANNEL_EXTENDED_DATA: _extended_data,
            MSG_CHANNEL_WINDOW_ADJUST: _window_adjust,
        }

    def _parse_newkeys(self, m: Any) -> None:
        if self.auth_handler is None:
            self.auth_handler = PublicKeyAuth(self)
        super()._parse_newkeys(m)

    def _queue_incoming_channel(self, channel: Any) -> None:
        # paramiko holds channels weakly; ours are served from their requests and never accept()ed.
        self.channels[channel.chanid] = channel
        self.front.opened(channel)

    def _parse_channel_open(self, m: Any) -> None:
        self._opening = True
        try:
            super()._parse_channel_open(m)
        finally:
            self._opening = False

    def _send_message(self, data: Any) -> None:
        if self._opening and threading.current_thread() is self:
            data = self._explained(data)
        super()._send_message(data)

    def _explained(self, data: Any) -> Any:
        """A refusal in words: paramiko gives none."""
        refusal = paramiko.Message(data.asbytes())
        if refusal.get_byte() != cMSG_CHANNEL_OPEN_FAILURE:
            return data
        explained = paramiko.Message()
        explained.add_byte(cMSG_CHANNEL_OPEN_FAILURE)
        explained.add_int(refusal.get_int())
        explained.add_int(refusal.get_int())
        explained.add_string(self.front.explanation)
        explained.add_string("en")
        return explained

    def _unlink_channel(self, chanid: int) -> None:
        super()._unlink_channel(chanid)
        self.channels.pop(chanid, None)

    def run(self) -> None:
        try:
            super().run()
        finally:
            self.channels.clear()
            self.front.ended()


class PublicKeyAuth(AuthHandler):  # type: ignore[misc]
    """Replaces paramiko's parser of authentication requests. That one disconnects on key types it does not know, so
    that the client's next key is never tried, allows ten attempts, and knows no difference between a key that is
    offered and a key that signed."""

    _attempts = 0
    auth_username: str | None

    def _parse_userauth_request(self, m: Any) -> None:
        if self.authenticated:
            return
        username, service, method = m.get_text(), m.get_text(), m.get_text()
        if service != "ssh-connection" or self.auth_username not in (None, username):
            self._disconnect_service_not_available()
            return
        first = self.auth_username is None
        self.auth_username = username
        if method == "publickey":
            self._public_key(username, m)
        else:
            # Clients ask with "none" first to learn the methods; that is no attempt.
            self._refuse(counts=not (first and method == "none"))

    def _parse_userauth_info_response(self, m: Any) -> None:
        self._refuse()

    def _public_key(self, username: str, m: Any) -> None:
        signed, algorithm, blob = m.get_boolean(), m.get_text(), m.get_binary()
        key = self._readable(algorithm, blob)
        identity = key and self.transport.front.identify(key.get_name(), blob)
        if not identity:
            self._refuse()
        elif not signed:
            self._would_accept(algorithm, blob)
        elif self._signed(key, algorithm, username, blob, m.get_binary()) and self.transport.front.proved(identity):
            self._send_auth_result(username, "publickey", AUTH_SUCCESSFUL)
        else:
            self._refuse()

    def _readable(self, algorithm: str, blob: bytes) -> Any:
        name = _KEY_NAMES.get(algorithm)
        if name is None:
            return None
        try:
            key = self.transport._key_info[algorithm](paramiko.Message(blob))
        except Exception as error:
            log.debug("unreadable %s key: %s", algorithm, error)
            return None
        weak = name == "ssh-rsa" and key.get_bits() < MIN_RSA_BITS
        return None if weak or key.get_name() != name else key

    def _would_accept(self, algorithm: str, blob: bytes) -> None:
        reply = paramiko.Message()
        reply.add_byte(cMSG_USERAUTH_PK_OK)
        reply.add_string(algorithm)
        reply.add_string(blob)
        self.transport._send_message(reply)

    def _signed(self, key: Any, algorithm: str, username: str, blob: bytes, signature: bytes) -> bool:
        claim = paramiko.Message()
        claim.add_string(self.transport.session_id)
        claim.add_byte(cMSG_USERAUTH_REQUEST)
        claim.add_string(username)
        claim.add_string("ssh-connection")
        claim.add_string("publickey")
        claim.add_boolean(True)
        claim.add_string(algorithm)
        claim.add_string(blob)
        try:
            same = paramiko.Message(signature).get_text() == algorithm
            return same and bool(key.verify_ssh_sig(claim.asbytes(), paramiko.Message(signature)))
        except Exception as error:
            log.debug("malformed %s signature: %s", algorithm, error)
            return False

    def _refuse(self, *, counts: bool = True) -> None:
        self._attempts += counts
        if self._attempts >= MAX_ATTEMPTS:
            self._disconnect_no_more_auth()
        else:
            self._send_auth_result("", "", AUTH_FAILED)


def _request(channel: Any, m: Any) -> None:
    Channel._handle_request(channel, m)
    channel.transport.front.requested(channel)


def _data(channel: Any, m: Any) -> None:
    # paramiko does not hold clients to the window it granted them.
    if len(channel.in_buffer) > 2 * channel.in_window_size:
        raise paramiko.SSHException("the client sent more than its window allows")
    if not channel.eof_received:
        Channel._feed(channel, m)


def _extended_data(channel: Any, m: Any) -> None:
    raise paramiko.SSHException("clients send no extended data")


def _window_adjust(channel: Any, m: Any) -> None:
    Channel._window_adjust(channel, m)
    channel.transport.front.stirred(channel)
