"""storage:*"""

from __future__ import annotations

import os
import re

import click

from paasd.cli.framework import AppName, Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput

_volume = click.argument("volume")
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


@root.command(
    "storage:create",
    examples=("storage:create photos --app blog", "storage:create photos --app blog --quota 10g"),
)
@_volume
@click.option("--app", type=AppName(), help="Create it in this app's project.")
@click.option("--project", help="Create it in this project.")
@click.option("--host-path", help="Use a directory of the host; for administrators.")
@click.option("--quota", help="Size that it should not go over, such as 10g.")
@click.pass_obj
def create(
    cli: Cli, volume: str, app: str | None, project: str | None, host_path: str | None, quota: str | None
) -> None:
    """Create a volume: data that outlives the releases and instances of an app."""
    body = {"name": volume, "app": app, "project": project, "host_path": host_path, "quota": _bytes(quota)}
    cli.client.request("POST", "/volumes", body)
    cli.console.print(f"-----> Created the volume {volume}")
    cli.console.print(f"       Mount it: storage:mount {app or '<app>'} {volume} /app/data")


@root.command("storage:list", examples=("storage:list",))
@json_option
@click.pass_obj
def list_volumes(cli: Cli, as_json: bool) -> None:
    """List volumes with their sizes."""
    found = cli.client.get("/volumes")["items"]
    if as_json:
        return cli.console.json(found)
    rows = [
        (
            v["name"],
            v["host_path"] or _size(v["size"]),
            (_size(v["quota"]) + (" EXCEEDED" if v["over_quota"] else "")) if v["quota"] else "-",
            ", ".join(v["apps"]) or "not mounted",
        )
        for v in found
    ]
    cli.console.table(("VOLUME", "SIZE", "QUOTA", "APPS"), rows)


@root.command("storage:info", examples=("storage:info photos",))
@_volume
@json_option
@click.pass_obj
def info(cli: Cli, volume: str, as_json: bool) -> None:
    """Show a volume and its snapshots."""
    found = cli.client.get(f"/volumes/{volume}")
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{volume} volume information")
    cli.console.facts(
        {
            "Size": found["host_path"] or _size(found["size"]),
            "Quota": _size(found["quota"]) if found["quota"] else "none",
            "Mounted by": ", ".join(found["apps"]) or "nothing",
        }
    )
    cli.console.table(("SNAPSHOT", "SIZE"), [(s["name"], _size(s["size"])) for s in found["snapshots"]])


@root.command("storage:set", examples=("storage:set photos --quota 20g",))
@_volume
@click.option("--quota", required=True, help="Size such as 10g, or none.")
@click.pass_obj
def set_quota(cli: Cli, volume: str, quota: str) -> None:
    """Set the size that a volume should not go over; storage:list and the events tell when it does."""
    cli.client.request("PATCH", f"/volumes/{volume}", {"quota": None if quota == "none" else _bytes(quota)})
    cli.console.print(f"-----> The quota of {volume} is {quota}")


@root.command(
    "storage:mount",
    examples=(
        "storage:mount blog photos /app/photos",
        "storage:mount blog photos /data --process-type worker --read-only",
    ),
)
@app_argument
@_volume
@click.argument("path")
@click.option("--process-type", help="Only for this process type.")
@click.option("--read-only", is_flag=True, help="The app may not write.")
@click.pass_obj
def mount(cli: Cli, app: str, volume: str, path: str, process_type: str | None, read_only: bool) -> None:
    """Mount a volume into an app's instances from the next deployment on."""
    body = {"volume": volume, "path": path, "process_type": process_type, "read_only": read_only}
    cli.client.request("POST", app_path(app, "mounts"), body)
    cli.console.print(f"-----> {volume} is mounted at {path} from the next deployment on")
    cli.console.print(f"       To have it now: ps:restart {app}")


@root.command("storage:unmount", examples=("storage:unmount blog /app/photos",))
@app_argument
@click.argument("path")
@click.pass_obj
def unmount(cli: Cli, app: str, path: str) -> None:
    """Unmount a volume from the next deployment on; its data stays."""
    volume = cli.client.request("DELETE", app_path(app, "mounts"), {"path": path})["volume"]
    cli.console.print(f"-----> {volume} is not mounted any more from the next deployment on; its data stays")


@root.command("storage:report", examples=("storage:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show what an app mounts."""
    found = cli.client.get(app_path(app, "mounts"))["items"]
    if as_json:
        return cli.console.json(found)
    rows = [
        (m["path"], m["volume"], m["process_type"] or "all", "read-only" if m["read_only"] else "read-write")
        for m in found
    ]
    cli.console.table(("PATH", "VOLUME", "PROCESS TYPE", "ACCESS"), rows)


@root.command("storage:snapshot", examples=("storage:snapshot photos",))
@_volume
@click.pass_obj
def snapshot(cli: Cli, volume: str) -> None:
    """Copy a volume as it is now; each file is copied when its turn comes."""
    taken = cli.stream("POST", f"/volumes/{volume}/snapshots")
    cli.console.print(f"-----> Go back to it with: storage:restore {volume} {taken['name']}")


@root.command("storage:snapshot-remove", examples=("storage:snapshot-remove photos 20261123-091500",))
@_volume
@click.argument("name")
@click.pass_obj
def remove_snapshot(cli: Cli, volume: str, name: str) -> None:
    """Remove a snapshot."""
    cli.client.request("DELETE", f"/volumes/{volume}/snapshots/{name}")
    cli.console.print(f"-----> Removed the snapshot {name} of {volume}")


@root.command("storage:restore", examples=("storage:restore photos", "storage:restore photos 20261123-091500"))
@_volume
@click.argument("name", required=False)
@click.option("--empty", is_flag=True, help="Begin with nothing, for example when the data was lost.")
@click.option("--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def restore(cli: Cli, volume: str, name: str | None, empty: bool, force: bool) -> None:
    """Put a snapshot (the newest by default) in the place of a volume's data, and restart the apps that mount it."""
    cli.client.get(f"/volumes/{volume}")
    cli.confirm(volume, force, f"WARNING: what is in {volume} now will be gone.")
    cli.stream("POST", f"/volumes/{volume}/restore", {"snapshot": name, "empty": empty})
    cli.console.print(f"-----> Restored {volume}")


@root.command(
    "storage:import",
    examples=("storage:import photos < photos.tar", "storage:import photos /albums/2026 < album.tar.gz"),
)
@_volume
@click.argument("path", default="/")
@click.pass_obj
def import_files(cli: Cli, volume: str, path: str) -> None:
    """Unpack a tar or tar.gz from standard input into a volume, below PATH; files of the same name are replaced.
    Nothing is written unless all of it is right."""
    if os.isatty(cli.console.stdin):
        raise InvalidInput("no archive comes on standard input", hint=f"For example: storage:import {volume} < a.tar")
    taken = cli.client.upload(f"/volumes/{volume}/files", cli.console.pieces(), cli.console.print, query={"path": path})
    cli.console.print(f"-----> {taken['files']} files are in {volume}, {_size(taken['size'])}")


@root.command(
    "storage:export",
    examples=("storage:export photos > photos.tar", "storage:export photos /albums/2026 | tar -x -C albums"),
)
@_volume
@click.argument("path", default="/")
@click.pass_obj
def export_files(cli: Cli, volume: str, path: str) -> None:
    """Write a file of a volume, or what is in a directory (all of it without PATH), to standard output as a tar."""
    if os.isatty(cli.console.stdout):
        raise InvalidInput("a tar is nothing for a terminal", hint=f"For example: storage:export {volume} > a.tar")
    for piece in cli.client.text(f"/volumes/{volume}/files", {"path": path}):
        cli.console.raw(piece)


@root.command("storage:destroy", examples=("storage:destroy photos", "storage:destroy photos --force"))
@_volume
@click.option("--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def destroy(cli: Cli, volume: str, force: bool) -> None:
    """Destroy a volume that nothing mounts, with its data and snapshots."""
    cli.client.get(f"/volumes/{volume}")
    cli.confirm(volume, force, f"WARNING: this destroys {volume}, its data and its snapshots.")
    cli.client.request("DELETE", f"/volumes/{volume}")
    cli.console.print(f"-----> Destroyed {volume}")


def _bytes(text: str | None) -> int | None:
    """`10g`, `512m`. Raises InvalidInput."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,12})([kmgt]?)b?", text.strip().lower())
    if found is None or not int(found[1]):
        raise InvalidInput(f"{text!r} is no size", hint="For example: 10g")
    return int(found[1]) * _UNITS[found[2]]


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
