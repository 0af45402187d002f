"""What all commands share: the click classes, the context, confirmation, `--json`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from paasd.cli.client import Client, app_path
from paasd.cli.console import Console
from paasd.errors import InvalidInput, PaasdError

F = TypeVar("F", bound=Callable[..., Any])


class Cli:
    """The `obj` of every command: where to print and whom to ask."""

    def __init__(self, console: Console, client: Client) -> None:
        self.console = console
        self.client = client

    def stream(self, method: str, path: str, body: Any = None) -> Any:
        """Run a long operation and print its lines as they come."""
        return self.client.stream(method, path, body if body is not None else {}, self.console.print)

    def confirm(self, name: str, force: bool, warning: str) -> None:
        """Have the user type the name of what is about to go. Raises InvalidInput when they do not."""
        if force:
            return
        self.console.error(warning)
        self.console.error(f'To proceed, type "{name}"')
        if self.console.ask("> ") != name:
            raise InvalidInput("the confirmation does not match, so nothing was done", hint="Or use --force.")


class _Printed:
    """Prints help to the command's own console instead of the process's standard output."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        def show(context: click.Context, _: click.Parameter, value: bool) -> None:
            if value and not context.resilient_parsing:
                context.obj.console.print(context.get_help())
                context.exit()

        return click.Option(
            ["--help", "-h"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show this text."
        )


class Command(_Printed, click.Command):
    """A command with examples in its help."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write_text(example)


class Group(_Printed, click.Group):
    """All commands in one flat list, as on Dokku; `paasd apps` lists those that start with `apps:`."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None:
            near = [c for c in self.list_commands(ctx) if c.startswith(name) or name in c]
            hint = f"Similar: {', '.join(near[:8])}" if near else "List the commands with: help"
            raise InvalidInput(f"no such command: {name}", hint=hint)
        return super().resolve_command(ctx, args)


class AppName(click.ParamType[str]):
    """An app's name; completed from the apps that exist. The daemon checks the grammar."""

    name = "app"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        client: Client | None = getattr(ctx.find_root().obj, "client", None)
        if client is None:
            return []
        try:
            apps = client.get("/apps")["items"]
        except PaasdError:
            return []
        return [CompletionItem(app["name"]) for app in apps if app["name"].startswith(incomplete)]


app_argument = click.argument("app", type=AppName())
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def process_pairs(words: tuple[str, ...]) -> dict[str, int]:
    """`web=2 worker=1` as a mapping. Raises InvalidInput."""
    pairs = {}
    for word in words:
        name, separator, count = word.partition("=")
        if not separator or not count.isascii() or not count.isdigit():
            raise InvalidInput(f"{word!r} is not of the form type=count", hint="For example: ps:scale blog web=2")
        pairs[name] = int(count)
    return pairs


__all__ = ["AppName", "Cli", "Command", "Group", "app_argument", "app_path", "json_option", "process_pairs"]
