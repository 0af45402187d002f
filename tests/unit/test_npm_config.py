"""What builds get of the host's npm settings."""

from __future__ import annotations

import json

from paasd.build.npm_config import npm_config

SYSTEM = "registry=https://old.invalid/npm/\nscript-shell=/bin/evil\ncafile=/etc/own.pem\n; a comment=x\n"
USER = """\
registry = "https://new.invalid/npm/"
@acme:registry=https://acme.invalid/
//acme.invalid/:_authToken=${ACME_TOKEN}
//other.invalid/:_authToken=${UNKNOWN}
@local:registry=file:///srv
https-proxy=http://proxy.invalid:3128
"""


def test_files_then_the_environment() -> None:
    found = npm_config(
        [SYSTEM, USER], {"ACME_TOKEN": "t0ken", "NPM_CONFIG_STRICT_SSL": "false", "npm_config_cache": "/x"}
    )
    assert found.npmrc() == (
        "cafile=/etc/ssl/certs/ca-certificates.crt\nfetch-timeout=60000\nregistry=https://new.invalid/npm/\n"
        "https-proxy=http://proxy.invalid:3128\nstrict-ssl=false\n@acme:registry=https://acme.invalid/\n"
        "//acme.invalid/:_authToken=t0ken\n//other.invalid/:_authToken=${UNKNOWN}\n"
    )


def test_later_versions_of_yarn_get_the_same_in_their_own_words() -> None:
    found = npm_config([SYSTEM, USER], {"ACME_TOKEN": "t0ken", "NPM_CONFIG_STRICT_SSL": "false"})
    assert json.loads(found.yarnrc()) == {
        "enableTelemetry": False,
        "npmRegistryServer": "https://new.invalid/npm",
        "httpsProxy": "http://proxy.invalid:3128",
        "enableStrictSsl": False,
        "npmScopes": {"acme": {"npmRegistryServer": "https://acme.invalid"}},
        "npmRegistries": {
            "//acme.invalid": {"npmAuthToken": "t0ken", "npmAlwaysAuth": True},
            "//other.invalid": {"npmAuthToken": "${UNKNOWN}", "npmAlwaysAuth": True},
        },
    }


def test_a_value_cannot_become_a_line_of_its_own() -> None:
    found = npm_config([], {"NPM_CONFIG_REGISTRY": "https://a.invalid/\nscript-shell=/bin/evil"})
    assert "evil" not in found.npmrc()
