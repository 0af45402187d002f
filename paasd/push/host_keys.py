"""The SSH host keys in the keys directory: made once, never replaced. This module alone writes `ssh_host_*_key`."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InternalError, InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from paasd.errors import InvalidInput

RSA_BITS = 3072


def ensure(directory: Path) -> list[Path]:
    """Paths of the host keys (Ed25519 first), made if missing. Blocking."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return [_ensure(directory / "ssh_host_ed25519_key", "ed25519"), _ensure(directory / "ssh_host_rsa_key", "rsa")]


def public_line(path: Path) -> str:
    """`ssh-ed25519 AAAA…` of a host key, as known_hosts has it."""
    return read(path).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def read(path: Path) -> Ed25519PrivateKey | RSAPrivateKey:
    """Raises ValueError or InvalidSignature for one that is no good. Blocking."""
    key = load_ssh_private_key(path.read_bytes(), None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, RSAPrivateKey):
        # What it is for, instead of a tenth of a second spent on whether its factors are prime.
        try:
            signature = key.sign(b"paasd", PKCS1v15(), SHA256())
        except InternalError as error:
            raise InvalidSignature from error
        key.public_key().verify(signature, b"paasd", PKCS1v15(), SHA256())
    elif not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is neither an Ed25519 nor an RSA key")
    return key


def _ensure(path: Path, kind: str) -> Path:
    if not path.exists():
        _write(path, _generate(kind).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    try:
        read(path)
    except (ValueError, InvalidSignature) as error:
        raise InvalidInput(
            f"the SSH host key {path} cannot be read: {error or 'it is damaged'}",
            hint="Restore it from a backup; without one, remove the file and a new key is made (clients will notice).",
        ) from error
    return path


def _generate(kind: str) -> Ed25519PrivateKey | RSAPrivateKey:
    return Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(65537, RSA_BITS)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and never over a key another process made meanwhile."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
