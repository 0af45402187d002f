"""The group that all commands hang on, and how one is run."""

from __future__ import annotations

from collections.abc import Sequence

import click

from paasd.cli.framework import Cli, Group
from paasd.errors import PaasdError


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="paasd: push a repository, get a running app.",
)
def root() -> None: ...


def run(cli: Cli, argv: Sequence[str], group: click.Group = root) -> int:
    """Run one command and return its exit status. Errors are printed, never raised."""
    words = list(argv) or ["help"]
    if words[0] in ("help", "--help", "-h"):
        words = [*words[1:], "--help"]
    try:
        result = group.main(args=words, prog_name="paasd", standalone_mode=False, obj=cli)
        return result if isinstance(result, int) else 0
    except PaasdError as error:
        cli.console.error(error.detail)
        if error.hint:
            cli.console.error(error.hint)
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.UsageError as error:
        cli.console.error(error.format_message())
        if error.ctx:
            cli.console.error(error.ctx.get_usage())
        return 2
    except click.ClickException as error:
        cli.console.error(error.format_message())
    except click.Abort:
        cli.console.error("Stopped.")
    except BrokenPipeError:
        return 141  # what a shell reports for SIGPIPE
    return 1
