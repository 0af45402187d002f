from __future__ import annotations

import os
from pathlib import Path

import pytest

from paasd.errors import PaasdError
from paasd.models import Secret
from paasd.secrets import Vault

PLACE = "org|app|NAME"


def test_what_was_sealed_opens_at_its_own_place_only() -> None:
    vault = Vault(os.urandom(32))
    sealed = vault.seal(Secret("hünter2"), PLACE)
    assert vault.open(sealed, PLACE) == Secret("hünter2")
    for other in ("org|app|OTHER", "org|other|NAME", "other|app|NAME", ""):
        with pytest.raises(PaasdError, match="moved"):
            vault.open(sealed, other)


def test_the_same_value_twice_gives_different_bytes_without_the_text() -> None:
    vault = Vault(os.urandom(32))
    first, second = (vault.seal(Secret("canary-value"), PLACE) for _ in range(2))
    assert first != second
    assert b"canary-value" not in first


def test_any_flipped_byte_is_noticed() -> None:
    vault = Vault(os.urandom(32))
    sealed = vault.seal(Secret("value"), PLACE)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(PaasdError):
            vault.open(bytes(changed), PLACE)


def test_another_master_key_is_named_as_the_reason() -> None:
    sealed = Vault(os.urandom(32)).seal(Secret("value"), PLACE)
    with pytest.raises(PaasdError, match="another master key"):
        Vault(os.urandom(32)).open(sealed, PLACE)


def test_the_master_key_is_made_once_closed_to_others_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    sealed = Vault.load(path, may_create=True).seal(Secret("value"), PLACE)
    assert path.stat().st_mode & 0o077 == 0
    assert Vault.load(path, may_create=False).open(sealed, PLACE) == Secret("value")
    path.unlink()
    with pytest.raises(PaasdError, match="missing"):
        Vault.load(path, may_create=False)
    path.write_bytes(b"short")
    with pytest.raises(PaasdError, match="damaged"):
        Vault.load(path, may_create=True)


def test_a_whole_mapping_is_sealed_as_one() -> None:
    vault = Vault(os.urandom(32))
    config = {"A": Secret("1"), "B": Secret("two words")}
    assert vault.open_all(vault.seal_all(config, PLACE), PLACE) == config
