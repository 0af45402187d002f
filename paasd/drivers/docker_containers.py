"""Instances in the engine's words: what a container is created with, and what an inspected one means."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from paasd.models import Instance, InstanceSpec, InstanceState, Mount

INSTANCE = "paasd.instance"
APP = "paasd.app"
ROLE = "paasd.role"
ONE_OFF = "one-off"
DETACHED = "paasd.detached"
"""Marks one-off commands that nobody is attached to, and that outlive the daemon."""
MASK = "****"


def container_options(
    spec: InstanceSpec,
    label: str,
    *,
    one_off: bool = False,
    detached: bool = False,
    tty: bool = False,
    stdin: bool = False,
) -> dict[str, Any]:
    """The body of `POST /containers/create`."""
    endpoint = {"IPAMConfig": {"IPv4Address": spec.address}} if spec.address else {}
    options: dict[str, Any] = {
        "Image": spec.image,
        "Env": _environment(spec),
        "Labels": _labels(spec, label, ONE_OFF if one_off else "instance"),
        "StopTimeout": spec.stop_timeout,
        # paasd checks instances itself; the image's own check would run beside it for nobody.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, one_off),
        "NetworkingConfig": {"EndpointsConfig": {spec.network: endpoint}},
    }
    if spec.command is not None:
        options["Entrypoint"] = list(spec.command)
    if spec.user is not None:
        options["User"] = spec.user
    if detached:
        options["Labels"][DETACHED] = "yes"
    elif one_off:
        options |= {"Tty": tty, "OpenStdin": stdin, "StdinOnce": stdin}
        options |= {"AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True}
    return options


def instance_of(found: dict[str, Any]) -> Instance:
    """An inspected container as an instance."""
    labels, state = found["Config"]["Labels"], found["State"]
    return Instance(
        name=found["Name"].removeprefix("/"),
        app_id=labels.get(APP, ""),
        release=int(labels.get("paasd.release", "0")),
        process_type=labels.get("paasd.type", ""),
        index=int(labels.get("paasd.index", "0")),
        state=state_of(state["Status"]),
        address=address_of(found),
        image=found["Config"]["Image"],
        restarts=found["RestartCount"],
        exit_code=None if state["Status"] in ("created", "running", "paused") else state["ExitCode"],
        oom_killed=state["OOMKilled"],
        pid=state["Pid"] or None,
        started_at=epoch(state["StartedAt"])[0] or None,
        ended_at=epoch(state["FinishedAt"])[0] or None if state["Status"] in ("exited", "dead") else None,
    )


def masked(found: dict[str, Any]) -> dict[str, Any]:
    """An inspected container without the values of its environment, which are secrets."""
    environment = [f"{variable.partition('=')[0]}={MASK}" for variable in found["Config"].get("Env") or ()]
    return {**found, "Config": {**found["Config"], "Env": environment}}


def epoch(timestamp: str) -> tuple[float, str]:
    """An RFC 3339 time of the engine (nanoseconds, UTC) as seconds since the epoch, and as `seconds.nanoseconds`."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    if whole.startswith("0001-"):
        return 0.0, "0"
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return float(f"{seconds}.{fraction or 0}"), f"{seconds}.{fraction:0<9}"


def _environment(spec: InstanceSpec) -> list[str]:
    # tini then signals the whole process group: a `sh -c` that waits for its child must not swallow SIGTERM.
    values = {"TINI_KILL_PROCESS_GROUP": "1"} | {key: secret.reveal() for key, secret in spec.env.items()}
    return [f"{key}={value}" for key, value in sorted(values.items())]


def _labels(spec: InstanceSpec, label: str, role: str) -> dict[str, str]:
    return {
        **spec.labels,
        INSTANCE: label,
        APP: spec.app_id,
        "paasd.app-name": spec.app,
        "paasd.release": str(spec.release),
        "paasd.type": spec.process_type,
        "paasd.index": str(spec.index),
        ROLE: role,
    }


def _host_config(spec: InstanceSpec, one_off: bool) -> dict[str, Any]:
    limits = spec.limits
    return {
        "NetworkMode": spec.network,
        "RestartPolicy": {"Name": "no" if one_off else "unless-stopped"},
        "Init": True,
        "Privileged": False,
        "PublishAllPorts": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": limits.pids,
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "MemoryReservation": limits.memory_reservation,
        "NanoCpus": round(limits.cpus * 1_000_000_000),
        "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 4096}],
        "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}},
        **({"Mounts": [mount_options(mount) for mount in spec.mounts]} if spec.mounts else {}),
    }


def mount_options(mount: Mount) -> dict[str, Any]:
    """A volume that is missing is made by the engine; a directory of the host must be there."""
    kind = {"Type": "volume", "Source": mount.volume} if mount.volume else {"Type": "bind", "Source": mount.host_path}
    return {**kind, "Target": mount.path, "ReadOnly": mount.read_only}


def state_of(status: str) -> InstanceState:
    match status:
        case "created":
            return InstanceState.STARTING
        case "running" | "paused":
            return InstanceState.RUNNING
        case "restarting":
            return InstanceState.CRASHING
        case _:
            return InstanceState.EXITED


def address_of(found: dict[str, Any]) -> str | None:
    for endpoint in found["NetworkSettings"]["Networks"].values():
        fixed = (endpoint.get("IPAMConfig") or {}).get("IPv4Address")
        return endpoint.get("IPAddress") or fixed or None
    return None
