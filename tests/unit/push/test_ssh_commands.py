import random
import string

import pytest

from paasd.errors import InvalidInput
from paasd.push.commands import MAX_COMMAND, CommandRequest, GitRequest, parse, protocol


@pytest.mark.parametrize(
    ("command", "service", "app"),
    [
        ("git-receive-pack 'app'", "git-receive-pack", "app"),
        ("git-receive-pack '/app'", "git-receive-pack", "app"),
        ("git-receive-pack 'app.git'", "git-receive-pack", "app"),
        ("git-upload-pack '/my-app.git'", "git-upload-pack", "my-app"),
    ],
)
def test_git_services(command: str, service: str, app: str) -> None:
    assert parse(command) == GitRequest(service, app)


@pytest.mark.parametrize(
    "command",
    [
        "git-upload-archive 'app'",
        "git receive-pack 'app'",
        "git",
        "git-receive-pack app",
        "git-receive-pack '--help'",
        "git-receive-pack '-c core.x=y'",
        "git-receive-pack 'app' ; id",
        "git-receive-pack 'app'; id",
        "git-receive-pack 'app' 'app'",
        "git-receive-pack  'app'",
        "git-receive-pack 'app'\n",
        "git-receive-pack '../other.git'",
        "git-receive-pack '/etc'x",
        "git-receive-pack '//app'",
        "git-receive-pack 'app.git.git'",
        "git-receive-pack 'app.git/../../x'",
        "git-receive-pack 'a'$(touch C)'",
        "git-receive-pack 'App'",
        "git-receive-pack ''",
        'git-receive-pack "app"',
        f"git-receive-pack '{'a' * 65536}'",
    ],
)
def test_anything_else_of_git_is_refused_in_one_line(command: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(command)
    assert "\n" not in refused.value.detail and not refused.value.hint
    assert len(refused.value.detail) < 300


def test_lfs_is_named() -> None:
    with pytest.raises(InvalidInput, match="LFS is not supported"):
        parse("git-lfs-authenticate app upload")


def test_paasd_commands_are_split_without_expansion() -> None:
    assert parse("config:set app 'A=one two' B=$(id) C=`id` ; id") == CommandRequest(
        ("config:set", "app", "A=one two", "B=$(id)", "C=`id`", ";", "id")
    )
    assert parse("") == parse("   ") == CommandRequest(())
    assert parse("config:set app 'KEY=line 1\nline 2'") == CommandRequest(("config:set", "app", "KEY=line 1\nline 2"))


@pytest.mark.parametrize(
    "command",
    [
        "/bin/sh",
        "APPS",
        "-c id",
        "apps:",
        "apps:a:b:c",
        "a" * (MAX_COMMAND + 1),
        "logs 'open",
        "x\0y",
        "x \x1b[2J",
        "\udcff",
    ],
)
def test_commands_outside_the_grammar_are_refused(command: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(command)
    assert len(refused.value.detail) < 300 and refused.value.detail.isprintable()


def test_no_text_reaches_git_but_a_name() -> None:
    dice = random.Random(7)
    alphabet = string.printable + "''''\0\x7fé\udc80"
    for _ in range(20_000):
        tail = "".join(dice.choices(alphabet, k=dice.randrange(12)))
        command = (
            dice.choice(["git-receive-pack '", "git-upload-pack '", "git-", "git ", ""]) + tail + dice.choice(["'", ""])
        )
        try:
            request = parse(command)
        except InvalidInput:
            continue
        if isinstance(request, GitRequest):
            assert request.app.replace("-", "").isalnum() and request.app[0].isalpha()


@pytest.mark.parametrize("value", ["version=0", "version=1", "version=2"])
def test_git_protocol(value: str) -> None:
    assert protocol(value) == value


@pytest.mark.parametrize("value", ["", "version=3", "version=2:x", "version=22", "2", "version=2\n", "version=٢"])
def test_other_git_protocols_do_not_pass(value: str) -> None:
    assert protocol(value) is None
