"""Package sources of the host, and what is made of them."""

from __future__ import annotations

import pytest

from paasd.build.apt_sources import (
    AptSource,
    acquire_options,
    distribution_sources,
    for_images,
    parse,
    suite_for,
    suites_on,
    text_of,
    without_credentials,
)
from paasd.build.pip_config import pip_config, uv_config
from paasd.errors import InvalidInput

DEBIAN = """\
# The distribution
Types: deb deb-src
URIs: http://user:secret@mirror.invalid/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
  contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.invalid/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://mirror.invalid/off
Suites: bookworm
Components: main
"""
VENDORS = """\
deb [arch=amd64 signed-by=/etc/apt/keyrings/vendor.asc] https://vendor.invalid/linux bookworm main
deb https://vendor.invalid/linux bookworm stable
deb https://ppa.launchpadcontent.net/x/ppa/ubuntu bookworm main
deb https://vendor.invalid/apt vendor-bookworm main
deb-src http://mirror.invalid/debian bookworm main
#deb http://mirror.invalid/commented bookworm main
nonsense
"""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MAIN = AptSource(
    ("http://user:secret@mirror.invalid/debian",), ("bookworm", "bookworm-updates"), ("main", "contrib"), KEYRING
)
SECURITY = AptSource(("http://mirror.invalid/debian-security",), ("bookworm-security",), ("main",))


def sources(suite: str = "bookworm") -> list[AptSource]:
    return distribution_sources(parse({"debian.sources": DEBIAN, "vendors.list": VENDORS}), "bookworm", suite)


def test_only_the_distributions_sources_are_kept() -> None:
    assert sources() == [MAIN, SECURITY]


def test_one_line_sources_are_understood() -> None:
    options = "[ signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg arch=amd64 ]"
    text = f"deb {options} http://m.invalid/ubuntu noble main universe # x"
    assert distribution_sources(parse({"sources.list": text}), "noble", "noble") == [
        AptSource(
            ("http://m.invalid/ubuntu",),
            ("noble",),
            ("main", "universe"),
            "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        )
    ]


def test_another_suite_takes_the_place_of_the_hosts() -> None:
    assert [source.suites for source in sources("trixie")] == [("trixie", "trixie-updates"), ("trixie-security",)]
    assert [source.suites for source in sources("sid")] == [("sid",)]


def test_an_embedded_key_is_not_the_distributions() -> None:
    text = "Types: deb\nURIs: http://m.invalid\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n x\n"
    with pytest.raises(InvalidInput, match="no package sources"):
        distribution_sources(parse({"a.sources": text}), "bookworm", "bookworm")


def test_what_stays_in_the_image_holds_no_credentials() -> None:
    assert text_of(without_credentials(sources())) == (
        "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm bookworm-updates\n"
        f"Components: main contrib\nSigned-By: {KEYRING}\n\n"
        "Types: deb\nURIs: http://mirror.invalid/debian-security\nSuites: bookworm-security\nComponents: main\n"
    )


def test_the_keyring_has_the_name_that_every_suite_knows() -> None:
    newer = [AptSource((), (), (), KEYRING.replace(".gpg", ".pgp")), AptSource((), (), (), ""), MAIN]
    assert [source.signed_by for source in for_images(newer)] == [KEYRING, "", KEYRING]


@pytest.mark.parametrize(
    ("wanted", "host", "suite"),
    [
        ("bookworm", {"ID": "debian", "VERSION_CODENAME": "bookworm"}, "bookworm"),
        ("trixie", {"ID": "debian", "VERSION_CODENAME": "bookworm"}, "trixie"),
        ("bookworm", {"ID": "ubuntu", "VERSION_CODENAME": "noble"}, "noble"),
        ("jammy", {"ID": "ubuntu", "VERSION_CODENAME": "noble"}, "jammy"),
        ("sid", {"ID": "debian"}, "sid"),
    ],
)
def test_the_suite_fits_the_host(wanted: str, host: dict[str, str], suite: str) -> None:
    assert suite_for(wanted, host) == suite


def test_a_debian_host_has_all_suites_of_debian() -> None:
    assert {"bookworm", "trixie", "sid"} <= set(suites_on("trixie", {"ID": "debian"}))
    assert suites_on("noble", {"ID": "ubuntu"}) == ("noble",)


def test_only_options_that_say_how_to_fetch_are_taken() -> None:
    dump = """\
APT::Architecture "amd64";
Acquire "";
Acquire::IndexTargets::deb::Packages::MetaKey "x";
Acquire::http::Proxy "http://proxy.invalid:3128";
Acquire::https::CAInfo "/etc/company.pem";
Acquire::https::repo.invalid::SslKey "/etc/key.pem";
Acquire::http::Proxy-Auto-Detect "/usr/bin/detect";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
"""
    assert acquire_options(dump) == (
        'Acquire::http::Proxy "http://proxy.invalid:3128";\nAcquire::Check-Valid-Until "false";\n'
    )


def test_pip_settings_come_from_files_then_the_environment() -> None:
    system = "[global]\nindex-url = https://old.invalid/simple\nextra-index-url = file:///x https://b.invalid/simple\n"
    user = "[install]\nindex-url = https://user:pw@a.invalid/simple\n[broken\n"
    user_ok = "[install]\nindex-url = https://user:pw@a.invalid/100%/simple\n"
    text = pip_config([system, user, user_ok], {"PIP_TRUSTED_HOST": "a.invalid", "PIP_FIND_LINKS": "/opt/wheels"})
    assert text == (
        "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ndisable-pip-version-check = true\nno-input = true\n"
        "root-user-action = ignore\nindex-url = https://user:pw@a.invalid/100%/simple\n"
        "extra-index-url = https://b.invalid/simple\ntrusted-host = a.invalid\n"
    )


def test_uv_gets_the_indexes_of_pip() -> None:
    files = [
        "[global]\nindex-url = https://user:word@mirror.invalid/simple\nextra-index-url = file:///opt https://b.invalid"
    ]
    assert uv_config(files, {"PIP_TRUSTED_HOST": "a.invalid"}) == (
        'allow-insecure-host = ["a.invalid"]\n'
        '[[index]]\nurl = "https://user:word@mirror.invalid/simple"\ndefault = true\n'
        '[[index]]\nurl = "https://b.invalid"\n'
    )
    assert uv_config([], {}) == ""
    assert uv_config([], {"PIP_INDEX_URL": "https://a.invalid/simple/"}).startswith(
        '[[index]]\nurl = "https://a.invalid/simple"\n'
    )
