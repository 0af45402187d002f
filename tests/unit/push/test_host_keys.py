from pathlib import Path

import pytest

from paasd.errors import InvalidInput
from paasd.push import host_keys


def test_keys_are_made_once_and_stay_private(tmp_path: Path) -> None:
    keys = host_keys.ensure(tmp_path / "keys")
    before = [key.read_bytes() for key in keys]
    keys[0].chmod(0o644)
    assert host_keys.ensure(tmp_path / "keys") == keys
    assert [key.read_bytes() for key in keys] == before
    assert [key.stat().st_mode & 0o777 for key in keys] == [0o600, 0o600]
    assert [host_keys.public_line(key).split()[0] for key in keys] == ["ssh-ed25519", "ssh-rsa"]
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["ssh_host_ed25519_key", "ssh_host_rsa_key"]


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    keys = host_keys.ensure(tmp_path)
    keys[0].write_text("damaged")
    with pytest.raises(InvalidInput, match="cannot be read"):
        host_keys.ensure(tmp_path)
    assert keys[0].read_text() == "damaged"
