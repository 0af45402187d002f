"""What a client may ask for in an SSH `exec` request: one of two git services, or a paasd command. Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from paasd.errors import InvalidInput
from paasd.names import app_name, shown

MAX_COMMAND = 64 * 1024
GIT_PROTOCOL = re.compile(r"version=[012]")
_GIT_SERVICE = re.compile(r"(git-receive-pack|git-upload-pack) '/?([^']*)'")
_COMMAND_NAME = re.compile(r"[a-z][a-z-]*(?::[a-z][a-z-]*){0,2}")
# Tab and newline stay allowed: values of config vars have them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class GitRequest:
    service: str
    """`git-receive-pack` or `git-upload-pack`"""
    app: str


@dataclass(frozen=True)
class CommandRequest:
    argv: tuple[str, ...]
    """Empty when the client asked for a shell."""


def parse(command: str) -> GitRequest | CommandRequest:
    """Read the exec string. Raises InvalidInput with one line that names the rule."""
    if len(command) > MAX_COMMAND:
        raise InvalidInput(f"the command has {len(command)} characters; at most {MAX_COMMAND} are allowed")
    if _CONTROL.search(command) or (not command.isascii() and not _encodable(command)):
        raise InvalidInput("the command has control characters or is not UTF-8; only plain text is allowed")
    words = command.split(maxsplit=1)
    if words and (words[0] == "git" or words[0].startswith("git-")):
        return _git(words[0], command)
    return CommandRequest(_words(command))


def protocol(value: str) -> str | None:
    """GIT_PROTOCOL if it is one that may reach git, else None."""
    return value if GIT_PROTOCOL.fullmatch(value) else None


def _git(name: str, command: str) -> GitRequest:
    if name.startswith("git-lfs-"):
        raise InvalidInput(
            "Git LFS is not supported: pointer files would be deployed instead of the files; commit them"
        )
    match = _GIT_SERVICE.fullmatch(command)
    if not match:
        raise InvalidInput(
            f"{shown(name)} is refused: only git-receive-pack 'app' and git-upload-pack 'app' are allowed"
        )
    try:
        return GitRequest(match[1], app_name(match[2].removesuffix(".git")))
    except InvalidInput as error:
        raise InvalidInput(f"{error.detail}: {error.hint}") from None


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError:
        raise InvalidInput("the command has a quotation that is not closed") from None
    if words and not _COMMAND_NAME.fullmatch(words[0]):
        raise InvalidInput(f"{shown(words[0])} is not a command: commands look like apps:create; try: help")
    return words


def _encodable(text: str) -> bool:
    # Bytes that were not UTF-8 arrive as lone surrogates.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
