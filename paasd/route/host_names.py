"""The grammar of host names: RFC 1123, IDNA 2008 with the mapping of UTS 46. Stored as A-labels, shown as both."""

from __future__ import annotations

import re

import idna
import idna.uts46data  # else read when the first international name comes, by the loop

from paasd.errors import InvalidInput
from paasd.names import shown

WILDCARD = "*."
_MOST = 253
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
"""Those of UTS 46."""
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""As the last label it makes an address of the name."""
_HINT = "Use a host name such as www.example.org, without dot at the end, port or path."


def host_name(value: str, least: int = 2) -> str:
    """Check and normalise a host name of at least so many labels. Raises InvalidInput."""
    if not 0 < len(value) <= _MOST:
        raise InvalidInput(f"invalid host name {shown(value)}: it has 1 to {_MOST} characters", hint=_HINT)
    try:
        host = _a_labels(value)
    except (UnicodeError, ValueError, IndexError) as error:
        reason = str(error).encode("ascii", "backslashreplace").decode()
        raise InvalidInput(f"invalid host name {shown(value)}: {reason}", hint=_HINT) from None
    labels = host.split(".")
    proper = len(host) <= _MOST and len(labels) >= least and all(_LABEL.fullmatch(label) for label in labels)
    if not proper or _NUMBER.fullmatch(labels[-1]):
        raise InvalidInput(f"invalid host name {shown(value)}", hint=_HINT)
    return host


def domain_name(value: str) -> str:
    """A host name, or one whose first label is `*`. Raises InvalidInput."""
    if "*" not in value:
        return host_name(value)
    rest = value.removeprefix(WILDCARD)
    if rest == value or "*" in rest or not _DOTS.search(rest):
        raise InvalidInput(
            f"invalid wildcard {shown(value)}",
            hint="A wildcard is the whole first label, with at least two labels behind it: *.blog.example.org",
        )
    host = WILDCARD + host_name(rest)
    if len(host) > _MOST:
        raise InvalidInput(f"invalid host name {shown(value)}", hint=_HINT)
    return host


def is_wildcard(name: str) -> bool:
    return name.startswith(WILDCARD)


def base_of(name: str) -> str:
    """What a wildcard is below; any other name is its own."""
    return name.removeprefix(WILDCARD)


def lies_in(name: str, domain: str) -> bool:
    """Whether a name is the domain or lies below it."""
    return name == domain or name.endswith(f".{domain}")


def international(name: str) -> str:
    """With U-labels, as people write it."""
    try:
        return name[: -len(base_of(name))] + idna.decode(base_of(name))
    except UnicodeError:
        return name


def both(name: str) -> str:
    """`bücher.example (xn--bcher-kva.example)`; names that look alike differ in the second."""
    written = international(name)
    return name if written == name else f"{written} ({name})"


def _a_labels(value: str) -> str:
    # Of ASCII, UTS 46 maps nothing but capitals.
    mapped = value.lower() if value.isascii() else idna.uts46_remap(value, std3_rules=True, transitional=False)
    host = idna.encode(mapped).decode("ascii")
    if idna.encode(idna.decode(host)).decode("ascii") != host:
        raise ValueError("its A-labels are not those of what they stand for")
    return host
