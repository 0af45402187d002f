from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from paasd import config_file
from paasd.config import Config, RunConfig
from paasd.errors import InvalidInput
from paasd.outbound import may_reach


def loaded(text: str, tmp_path: Path) -> Config:
    path = tmp_path / "paasd.toml"
    path.write_text(text)
    return config_file.load(path, tmp_path)


def test_defaults_without_a_file(tmp_path: Path) -> None:
    assert config_file.load(None, tmp_path).http.port == 80


def test_file_wins_over_defaults_and_options_over_the_file(tmp_path: Path) -> None:
    read = loaded('[http]\nport = 8080\ndomain = "example.org"\n', tmp_path)
    assert (read.http.port, read.http.domain) == (8080, "example.org")
    changed = config_file.changed(read, {"http.port": 9090, "ssh.port": None, "label": "x"})
    assert (changed.http.port, changed.ssh.port, changed.label) == (9090, 2222, "x")


def test_whole_numbers_are_fine_for_times(tmp_path: Path) -> None:
    assert loaded("[run]\ndrain = 5\n", tmp_path).run.drain == 5.0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[http]\nprot = 1\n", "http.prot"),
        ("[htp]\nport = 1\n", "[htp]"),
        ('[http]\nport = "80"\n', "http.port"),
        ("[run]\nfirewall = 1\n", "run.firewall"),
        ("[http]\nport = true\n", "http.port"),
        ("[http\n", "paasd.toml"),
    ],
)
def test_a_wrong_setting_is_named(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        loaded(text, tmp_path)
    assert named in caught.value.detail


@pytest.mark.parametrize("setting", ["http.ocsp_to", "run.hooks_to", "push.sync_from"])
@pytest.mark.parametrize(
    ("value", "seen", "typed"),
    [
        ("10.1.2.3/24", "'10.1.2.3/24' is none: 10.1.2.3/24 has host bits set", "10.1.2.0/24"),
        ("10.0.0.0/8, 192.168.0.0/16", "'10.0.0.0/8,' is none", "10.1.2.0/24 192.168.7.1"),
        ("ocsp.example.org", "'ocsp.example.org' is none", "10.1.2.0/24 192.168.7.1"),
    ],
)
def test_networks_are_checked_when_the_file_is_read(
    setting: str, value: str, seen: str, typed: str, tmp_path: Path
) -> None:
    section, _, key = setting.partition(".")
    with pytest.raises(InvalidInput) as caught:
        loaded(f'[{section}]\n{key} = "{value}"\n', tmp_path)
    detail = caught.value.detail
    assert str(tmp_path / "paasd.toml") in detail and setting in detail and seen in detail
    assert caught.value.hint == f"Write for example, under [{section}]: {key} = '{typed}'"
    good = loaded(f'[{section}]\n{key} = "{typed} ::1 fd00::/8"\n', tmp_path)
    assert may_reach(ipaddress.ip_address("fd00::1"), "10.201.0.0/16", getattr(getattr(good, section), key))
    assert loaded(f'[{section}]\n{key} = ""\n', tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no configuration file"):
        config_file.load(tmp_path / "nowhere.toml", tmp_path)


def test_the_pool_is_cut_into_networks() -> None:
    subnets = RunConfig(subnet_pool="10.9.0.0/22").subnets()
    assert subnets == ["10.9.0.0/24", "10.9.1.0/24", "10.9.2.0/24", "10.9.3.0/24"]
