"""Part `traffic`: which paths of an app have their requests counted by themselves, besides the app's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from paasd.app_settings import Key
from paasd.gateway.parts import Part, Values

NAME, KEY = "traffic", "traffic.routes"
_MOST, _LONGEST = 20, 200
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,=:@-]+)+")
_WHAT = (
    f"up to {_MOST} paths between spaces, such as /api /checkout; each of letters, digits and ._~!$&'()*+,=:@-,"
    f" {_LONGEST} at most, without . or .. as a segment"
)


def _prefixes(value: str) -> str:
    found = [word.removesuffix("/") for word in value.split()]
    if not found or not all(map(_is_prefix, found)) or len(set(found)) > _MOST:
        raise ValueError(_WHAT)
    return " ".join(dict.fromkeys(found))


def _is_prefix(path: str) -> bool:
    return len(path) <= _LONGEST and bool(_PREFIX.fullmatch(path)) and not {".", ".."} & set(path.split("/"))


KEYS: Mapping[str, Key] = {
    KEY: Key(
        _prefixes,
        "Paths that traffic:report counts by themselves, such as /api /checkout, with all below; longest wins.",
    )
}


def counted(values: Values, routed: Iterable[str]) -> list[str]:
    """The paths named here and those `routed` to other apps."""
    return sorted({*values.get(KEY, "").split(), *routed})


def part(prefixes: Sequence[str]) -> dict[str, object] | None:
    return {"routes": list(prefixes)} if prefixes else None


def policy(values: Values) -> dict[str, object] | None:
    return part(counted(values, ()))


PART = Part(NAME, KEYS, policy)
