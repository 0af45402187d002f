"""The reference parts of docs/commands.md, docs/api.md and docs/config.md, taken from the code that they describe."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import paasd.api.v1
from paasd import config, config_file
from paasd.api.operations import Operation
from paasd.api.server import PREFIX
from paasd.cli.local import box_only, program

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- reference: written by scripts/docs -->", "<!-- end of reference -->"


def commands() -> str:
    """A section per command: usage, what it does, options, examples."""
    group = program()
    parts = []
    for name in sorted(group.commands):
        command = group.commands[name]
        context = click.Context(command, info_name=name)
        where = " (on the box only)" if name in box_only.commands else ""
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        options = [record for p in command.get_params(context) if (record := p.get_help_record(context)) and record[1]]
        lines = [f"### `{name}`{where}", "", (command.help or "").strip(), "", "```", usage, "```", ""]
        lines += [f"- `{flag}`: {text}" for flag, text in options if not flag.startswith(("-h", "--help"))]
        examples = getattr(command, "examples", ())
        if examples:
            lines += ["", "```", *examples, "```"]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join(parts)


def operations() -> list[Operation]:
    """Those of every resource, sorted by path."""
    found: list[Operation] = []
    for module in pkgutil.iter_modules(paasd.api.v1.__path__):
        loaded = importlib.import_module(f"paasd.api.v1.{module.name}")
        for _, value in inspect.getmembers(loaded, inspect.isclass):
            if value.__module__ == loaded.__name__ and hasattr(value, "operations"):
                found += object.__new__(value).operations()
    return sorted(found, key=lambda operation: (operation.path, operation.method))


def api() -> str:
    """A table of all operations, then the bodies."""
    rows = ["| Operation | Needs | What it does |", "|---|---|---|"]
    bodies = []
    for operation in operations():
        streams = " Streams progress." if operation.streams else ""
        title = f"`{operation.method} {PREFIX}{operation.path}`"
        rows.append(f"| {title} | `{operation.action}` | {operation.summary}.{streams} |")
        if operation.body:
            fields = [_field(name, field) for name, field in operation.body.model_fields.items()]
            bodies.append(f"- {title}: " + "; ".join(fields))
    return "\n".join([*rows, "", "Bodies (JSON objects; unknown members are refused):", "", *bodies])


def settings() -> str:
    """A table of all settings of paasd.toml with type, default and meaning."""
    meanings = dict(_meanings())
    rows = ["| Setting | Default | Meaning |", "|---|---|---|"]
    for name, default in config_file.settings().items():
        shown = f"`{_toml(default)}`"
        rows.append(f"| `{name}` | {shown} | {meanings.get(name, '')} |")
    return "\n".join(rows)


def _field(name: str, field: Any) -> str:
    kind = str(field.annotation).replace("typing.", "").replace("<class '", "").replace("'>", "")
    kind = kind.replace("paasd.api.v1.", "")
    return f"`{name}` ({kind}{', required' if field.is_required() else ''})"


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def _meanings() -> Iterator[tuple[str, str]]:
    """Dotted setting → the text under its field in config.py."""
    tree = ast.parse(inspect.getsource(config))
    sections = {"Config": ""}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config") and node.name != "Config":
            sections[node.name] = node.name.removesuffix("Config").lower() + "."
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name not in sections:
            continue
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                assert isinstance(text.value, ast.Constant)
                yield sections[node.name] + field.target.id, " ".join(str(text.value.value).split())


PAGES = {"commands.md": commands, "api.md": api, "config.md": settings}


def with_reference(page: str, reference: str) -> str:
    before, found, rest = page.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise SystemExit(f"a page has no place for its reference ({BEGIN} … {END})")
    return f"{before}{BEGIN}\n\n{reference}\n\n{END}{after}"


def main() -> int:
    stale = []
    for name, reference in PAGES.items():
        page = (DOCS / name).read_text()
        fresh = with_reference(page, reference())
        if fresh != page:
            stale.append(name)
            if "--check" not in sys.argv:
                (DOCS / name).write_text(fresh)
    if stale and "--check" in sys.argv:
        print(f"out of date: {', '.join(stale)}; run scripts/docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
