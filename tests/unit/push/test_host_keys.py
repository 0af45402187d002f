import base64
import textwrap
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


def test_a_flipped_bit_of_the_rsa_key_is_seen_wherever_it_matters(tmp_path: Path) -> None:
    """Numbers of the private key lie behind the public half, which is there twice."""
    key = host_keys.ensure(tmp_path)[1]
    line = host_keys.public_line(key)
    whole = base64.b64decode("".join(key.read_text().splitlines()[1:-1]))
    refused = 0
    for at in range(len(whole) * 2 // 3, len(whole) - 40, 37):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        text = "\n".join(textwrap.wrap(base64.b64encode(damaged).decode(), 70))
        key.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n")
        try:
            assert host_keys.public_line(host_keys.ensure(tmp_path)[1]) == line
        except InvalidInput:
            refused += 1
    assert refused > 10
