"""The one door to the container engine: HTTP on its socket, a time-out on every call, errors of our own tree.

Nothing else imports aiodocker. What the calls mean is known by `drivers/docker.py` (instances, networks) and
`build/` (images)."""

from paasd.docker_engine.client import DockerEngine
from paasd.docker_engine.protocol import negotiated
from paasd.docker_engine.streams import EngineStream, Hijacked

__all__ = ["DockerEngine", "EngineStream", "Hijacked", "negotiated"]
