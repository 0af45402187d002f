"""Part `grpc`: apps that speak gRPC, which needs HTTP/2 all the way."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, one_of
from paasd.gateway.parts import Part

KEYS: Mapping[str, Key] = {
    "protocol": Key(
        one_of("http", "grpc"), "What the app speaks: `grpc` sends it calls of gRPC over HTTP/2 without TLS (http)."
    )
}

PART = Part("grpc", KEYS, lambda values: values.get("protocol") == "grpc" or None)
