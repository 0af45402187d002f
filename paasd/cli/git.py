"""git:*: code that comes another way than git push"""

from __future__ import annotations

import os

import click

from paasd.cli.framework import Cli, app_argument, app_path
from paasd.cli.root import root
from paasd.errors import InvalidInput


@root.command("git:from-image", examples=("git:from-image blog nginx:1.27",))
@app_argument
@click.argument("image")
@click.pass_obj
def from_image(cli: Cli, app: str, image: str) -> None:
    """Deploy a ready image that the engine has or can pull."""
    cli.stream("POST", app_path(app, "from-image"), {"image": image})


@root.command("git:from-archive", examples=("git:from-archive blog < blog.tar.gz",))
@app_argument
@click.pass_obj
def from_archive(cli: Cli, app: str) -> None:
    """Deploy the files of a tar, tar.gz or zip that comes on standard input."""
    if os.isatty(cli.console.stdin):
        raise InvalidInput("no archive comes on standard input", hint="For example: git:from-archive APP < app.tar.gz")
    cli.client.upload(app_path(app, "from-archive"), cli.console.pieces(), cli.console.print)


@root.command("git:sync", examples=("git:sync blog https://git.example.org/blog.git", "git:sync blog URL release"))
@app_argument
@click.argument("url")
@click.argument("branch", default="")
@click.pass_obj
def sync(cli: Cli, app: str, url: str, branch: str) -> None:
    """Fetch a branch from another Git server over https and deploy it."""
    cli.stream("POST", app_path(app, "sync"), {"url": url, "branch": branch})
