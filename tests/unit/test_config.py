from __future__ import annotations

from pathlib import Path

import pytest

from paasd import config_file
from paasd.config import Config, RunConfig
from paasd.errors import InvalidInput


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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no configuration file"):
        config_file.load(tmp_path / "nowhere.toml", tmp_path)


def test_the_pool_is_cut_into_networks() -> None:
    subnets = RunConfig(subnet_pool="10.9.0.0/22").subnets()
    assert subnets == ["10.9.0.0/24", "10.9.1.0/24", "10.9.2.0/24", "10.9.3.0/24"]
