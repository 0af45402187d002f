"""Secrets at rest: AES-256-GCM with a fresh 96-bit nonce (NIST SP 800-38D), the key's id in the header and the place of
the value as additional data, so that a ciphertext moved to another row, app or organization does not decrypt.

Sealed layout: 1 byte format (1) · 4 bytes key id · 12 bytes nonce · ciphertext and tag.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paasd.errors import PaasdError
from paasd.models import Secret

_FORMAT = b"\x01"


class Vault:
    """Seals and opens secrets with the master key, which lives outside the database."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._key_id = hashlib.sha256(b"paasd key id" + key).digest()[:4]
        self._key = key

    @classmethod
    def load(cls, path: Path, *, may_create: bool) -> Vault:
        """Read the master key. A missing one is created only when nothing can have been sealed yet."""
        if not path.exists():
            if not may_create:
                raise PaasdError(
                    f"the master key {path} is missing, so config vars cannot be read",
                    hint="Put the key back from your backup. The apps keep serving meanwhile.",
                )
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(32))
                file.flush()
                os.fsync(file.fileno())
        key = path.read_bytes()
        if len(key) != 32:
            raise PaasdError(f"the master key {path} is damaged", hint="Put the key back from your backup.")
        return cls(key)

    def seal(self, secret: Secret, place: str) -> bytes:
        """Encrypt for `place`, an `organization|app|name` path that must be given again to open it."""
        nonce = os.urandom(12)
        sealed = self._cipher.encrypt(nonce, secret.reveal().encode(), place.encode())
        return _FORMAT + self._key_id + nonce + sealed

    def open(self, blob: bytes, place: str) -> Secret:
        """Decrypt. Raises PaasdError when key or place differ or a bit was changed."""
        if blob[:1] != _FORMAT or blob[1:5] != self._key_id:
            raise PaasdError("a secret was sealed with another master key", hint="Put the matching master key back.")
        try:
            return Secret(self._cipher.decrypt(blob[5:17], blob[17:], place.encode()).decode())
        except InvalidTag as error:
            raise PaasdError("a stored secret was changed or moved; it does not decrypt") from error

    def derive(self, purpose: str) -> bytes:
        """A key of its own for something else than sealing, the same ever after; it tells nothing of the master key."""
        return hmac.digest(self._key, f"paasd {purpose}".encode(), hashlib.sha256)

    def seal_all(self, secrets: Mapping[str, Secret], place: str) -> bytes:
        """Seal a whole mapping as one value."""
        return self.seal(Secret(json.dumps({k: v.reveal() for k, v in secrets.items()})), place)

    def open_all(self, blob: bytes, place: str) -> dict[str, Secret]:
        return {k: Secret(v) for k, v in json.loads(self.open(blob, place).reveal()).items()}
