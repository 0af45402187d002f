"""What the edge needs to ask servers elsewhere: name servers and roots, in forms that Nginx takes."""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
from pathlib import Path

from paasd.config import HttpConfig
from paasd.route.files import read_text

_log = logging.getLogger(__name__)

_ADDRESS_AND_PORT = re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:]+\]):[0-9]{1,5}")
_UNSAFE_IN_PATH = re.compile(r"[^\w./@+:,=-]")


def resolvers(http: HttpConfig) -> list[str]:
    """The name servers, in Nginx's form."""
    lines = [line.split() for line in (read_text(Path("/etc/resolv.conf")) or "").splitlines()]
    hosts = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return [found for text in http.resolvers.split() or hosts if (found := _resolver(text))]


def _resolver(text: str) -> str | None:
    """None for what Nginx would not take, such as an address with a zone."""
    if _ADDRESS_AND_PORT.fullmatch(text):
        return text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else f"[{address}]" if address.version == 6 else text


def ca_bundle(http: HttpConfig) -> str:
    """Empty when it cannot be used: no worker would start with it, and without it nobody is trusted. Workers read it as
    another user."""
    if not http.ca_bundle:
        return ""
    path = Path(http.ca_bundle)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        readable = path.stat().st_mode & 0o004 and all(each.stat().st_mode & 0o001 for each in path.resolve().parents)
    except OSError:
        readable = 0
    if not readable or not path.is_absolute() or _UNSAFE_IN_PATH.search(str(path)):
        _log.warning(
            "Nginx's workers cannot use the roots in %s (http.ca_bundle): auth.forward asks nobody outside", path
        )
        return ""
    return str(path)
