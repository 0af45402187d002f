"""The host's own package sources, cut down to the distribution's: what base images are made from. Pure text work.

Third-party sources are left out, credentials never reach an image, and the suite can be exchanged for another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

from paasd.errors import InvalidInput

_COMPONENTS = {
    "main",
    "contrib",
    "non-free",
    "non-free-firmware",
    "universe",
    "multiverse",
    "restricted",
}
_DISTRIBUTION_KEYRING = re.compile(r"/(?:debian|ubuntu)-archive-[\w-]*\.(?:gpg|pgp|asc)$")
_POCKETS = ("", "-updates", "-security")
_DEBIAN_SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid")
_ROLLING = {"sid", "unstable"}
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")
# Paths on the host and commands of the host mean nothing inside an image; the rest of what apt keeps is its tables.
_FOREIGN_OPTIONS = re.compile(
    r"acquire::(?:indextargets|cdrom|changelogs|snapshots|compressiontypes|languages)\b"
    r"|.*(?:cainfo|capath|crlfile|sslcert|sslkey|issuercert|proxy-?auto-?detect|socks-?path)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class AptSource:
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def paragraph(self) -> str:
        """As deb822 text."""
        fields = {
            "Types": "deb",
            "URIs": " ".join(self.uris),
            "Suites": " ".join(self.suites),
            "Components": " ".join(self.components),
            "Signed-By": self.signed_by,
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def suite_for(wanted: str, os_release: Mapping[str, str]) -> str:
    """The suite to use on this host: `wanted`, except that an Ubuntu host cannot make Debian's suites."""
    codename = os_release.get("VERSION_CODENAME", "")
    return codename if os_release.get("ID") == "ubuntu" and codename and wanted in _DEBIAN_SUITES else wanted


def suites_on(suite: str, os_release: Mapping[str, str]) -> tuple[str, ...]:
    """Suites that base images can be made of on this host, whose own is `suite`: on Debian all of Debian's."""
    return _DEBIAN_SUITES if suite in _DEBIAN_SUITES and os_release.get("ID") != "ubuntu" else (suite,)


def parse(files: Mapping[str, str]) -> list[AptSource]:
    """Sources in the texts of `*.list` and `*.sources` files, by file name, binary packages only."""
    found: list[AptSource] = []
    for name, text in sorted(files.items()):
        found += _deb822(text) if name.endswith(".sources") else _one_line(text)
    return found


def distribution_sources(sources: Iterable[AptSource], host_suite: str, suite: str) -> list[AptSource]:
    """Those of the host's distribution, with `host_suite` exchanged for `suite`. Raises InvalidInput when none."""
    kept = []
    for source in sources:
        suites = [name for name in source.suites if name in {host_suite + pocket for pocket in _POCKETS}]
        if suites and _is_distribution(source):
            exchanged = tuple(suite + name.removeprefix(host_suite) for name in suites)
            kept.append(replace(source, suites=exchanged))
    if suite in _ROLLING:
        kept = [replace(source, suites=(suite,)) for source in kept if suite in source.suites]
    if not kept:
        raise InvalidInput(
            f"no package sources of the distribution for {host_suite} were found in /etc/apt",
            hint="Add the distribution's own entries to /etc/apt/sources.list.d, then try again.",
        )
    return kept


def without_credentials(sources: Iterable[AptSource]) -> list[AptSource]:
    return [replace(source, uris=tuple(_bare(uri) for uri in source.uris)) for source in sources]


def for_images(sources: Iterable[AptSource]) -> list[AptSource]:
    """With the keyring under the name that every suite has: `.pgp`, as Debian 13 has it, is unknown to older ones."""
    return [replace(source, signed_by=re.sub(r"\.pgp$", ".gpg", source.signed_by)) for source in sources]


def text_of(sources: Iterable[AptSource]) -> str:
    return "\n".join(source.paragraph() for source in sources)


def acquire_options(dump: str) -> str:
    """The lines of `apt-config dump` that say how to fetch: proxies, time-outs, checks."""
    lines = []
    for line in dump.splitlines():
        name, _, value = line.partition(" ")
        if name.lower().startswith("acquire::") and value != '"";' and not _FOREIGN_OPTIONS.match(name):
            lines.append(f"{line}\n")
    return "".join(lines)


def _is_distribution(source: AptSource) -> bool:
    if source.signed_by and not _DISTRIBUTION_KEYRING.search(source.signed_by):
        return False
    if any("launchpad" in (urlsplit(uri).hostname or "") for uri in source.uris):
        return False
    return set(source.components) <= _COMPONENTS


def _deb822(text: str) -> Iterator[AptSource]:
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        fields = _fields(paragraph)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        signed_by = fields.get("signed-by", "")
        yield AptSource(
            uris=tuple(fields.get("uris", "").split()),
            suites=tuple(fields.get("suites", "").split()),
            components=tuple(fields.get("components", "").split()),
            signed_by=signed_by if len(signed_by.split()) < 2 else "embedded key",
        )


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        fields[name] = value.strip()
    return fields


def _one_line(text: str) -> Iterator[AptSource]:
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        options = dict(option.partition("=")[::2] for option in (match["options"] or "").split())
        yield AptSource(
            (match["uri"],), (match["suite"],), tuple(match["components"].split()), options.get("signed-by", "")
        )


def _bare(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
