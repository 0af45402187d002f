"""certs:* and tls:*"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from paasd.cli.framework import AppName, Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput, NotFound

TRUST = """\
Save the root first:  ssh paasd@HOST certs:ca > paasd-ca.pem
Debian, Ubuntu        sudo cp paasd-ca.pem /usr/local/share/ca-certificates/paasd-ca.crt && sudo update-ca-certificates
Fedora, RHEL          sudo cp paasd-ca.pem /etc/pki/ca-trust/source/anchors/ && sudo update-ca-trust
macOS                 sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain paasd-ca.pem
Windows               certutil -addstore -f Root paasd-ca.pem    (as administrator)
Firefox               Settings, Privacy & Security, View Certificates, Authorities, Import: trust it for websites
Chrome on Linux       chrome://certificate-manager, Custom, Installed by you, Import
iOS                   open the file, install the profile, then Settings, General, About, Certificate Trust Settings
Android               Settings, Security, Encryption & credentials, Install a certificate, CA certificate"""


@root.command(
    "certs:import", examples=("certs:import blog < key-and-chain.pem", "certs:import blog server.crt server.key")
)
@app_argument
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.pass_obj
def import_(cli: Cli, app: str, files: tuple[Path, ...]) -> None:
    """Serve an app with a certificate of your own: key and chain in PEM, from standard input or, on the box, files."""
    found = cli.client.request("POST", app_path(app, "certificates"), {"pem": _text(cli, files)})
    cli.console.print(f"-----> {app} has the certificate {found['id']} for {', '.join(found['names'])}")
    cli.console.print(f"       It ends on {found['ends_at'][:10]}; import the next one before that.")
    if found["uncovered"]:
        cli.console.print(f" !     It is not for {', '.join(found['uncovered'])}")


@root.command("certs:add", examples=("certs:add blog < key-and-chain.pem", "certs:add blog server.crt server.key"))
@app_argument
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.pass_context
def add(context: click.Context, app: str, files: tuple[Path, ...]) -> None:
    """The same as certs:import."""
    context.invoke(import_, app=app, files=files)


def _text(cli: Cli, files: tuple[Path, ...]) -> str:
    if not files:
        if os.isatty(cli.console.stdin):
            raise InvalidInput("no certificate comes on standard input", hint="certs:import APP < key-and-chain.pem")
        return cli.console.read_all()
    if not cli.console.local:
        raise InvalidInput("files are read on the box only", hint="Send it: certs:import APP < key-and-chain.pem")
    try:
        return "\n".join(path.read_text() for path in files)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot be read: {error}") from error


@root.command("certs:enable", examples=("certs:enable blog",))
@app_argument
@click.pass_obj
def enable(cli: Cli, app: str) -> None:
    """Get certificates for an app's host names by itself from now on, new names and renewals included."""
    _print_names(cli, app, cli.stream("POST", app_path(app, "certificates", "order"), {"anew": False}))


@root.command("certs:disable", examples=("certs:disable blog",))
@app_argument
@click.pass_obj
def disable(cli: Cli, app: str) -> None:
    """Get no certificates by itself any more; those there are serve until they end."""
    cli.client.request("PATCH", app_path(app, "tls"), {"settings": {"automatic": "off"}})
    cli.console.print(f"-----> {app} gets no certificates by itself any more")


@root.command("certs:renew", examples=("certs:renew blog",))
@app_argument
@click.pass_obj
def renew(cli: Cli, app: str) -> None:
    """Get new certificates for all names of an app now; the old ones serve until the new ones do."""
    _print_names(cli, app, cli.stream("POST", app_path(app, "certificates", "order"), {"anew": True}))


def _print_names(cli: Cli, app: str, found: dict[str, Any]) -> None:
    for name in found["names"]:
        cli.console.print(f"       {name['name']}: {_state(name)}")
    cli.console.print(f"       Look at it again with: certs:report {app}")


@root.command("certs:revoke", examples=("certs:revoke blog 3f9a",))
@app_argument
@click.argument("id")
@click.pass_obj
def revoke(cli: Cli, app: str, id: str) -> None:
    """Have the authority declare a certificate void, because its key got into wrong hands, and get another one."""
    found = cli.client.request("POST", app_path(app, "certificates", id, "revoke"))
    cli.console.print(f"-----> Revoked the certificate {found['id']} of {app}")


@root.command("certs:ca", examples=("certs:ca > paasd-ca.pem", "certs:ca --help-trust"))
@click.option("--help-trust", is_flag=True, help="Say how browsers and systems are told to trust it.")
@click.pass_obj
def authority(cli: Cli, help_trust: bool) -> None:
    """Print the root (PEM) of the box's own authority, which gives certificates for local names such as blog.lan."""
    if help_trust:
        return cli.console.print(TRUST)
    for piece in cli.client.text("/certificate-authority"):
        cli.console.raw(piece)


@root.command("certs:list", examples=("certs:list blog", "certs:list"))
@click.argument("app", type=AppName(), required=False)
@json_option
@click.pass_obj
def listing(cli: Cli, app: str | None, as_json: bool) -> None:
    """List an app's certificates, newest first; without an app those of all apps."""
    items = _of(cli, app) if app else [{"app": name, **i} for name in _apps(cli) for i in _of(cli, name)]
    if as_json:
        return cli.console.json(items)
    rows: list[tuple[str, ...]] = [
        (i["id"], i["source"], "yes" if i["valid"] else "no", i["ends_at"][:16], " ".join(i["serves"]) or "-")
        for i in items
    ]
    heads: tuple[str, ...] = ("ID", "FROM", "VALID", "ENDS", "SERVES")
    if app is None:
        heads, rows = ("APP", *heads), [(i["app"], *row) for i, row in zip(items, rows, strict=True)]
    cli.console.table(heads, rows)


def _apps(cli: Cli) -> list[str]:
    return [app["name"] for app in cli.client.get("/apps")["items"]]


def _of(cli: Cli, app: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli.client.get(app_path(app, "certificates"))["items"]
    return found


def _chosen(cli: Cli, app: str, id: str | None) -> str:
    """Without an id the newest that is served."""
    if id:
        return id
    found = _of(cli, app)
    if not found:
        raise NotFound(f"{app} has no certificate", hint=f"See why with: certs:report {app}")
    return str(next((each for each in found if each["serves"]), found[0])["id"])


@root.command("certs:info", examples=("certs:info blog", "certs:info blog 3f9a"))
@app_argument
@click.argument("id", required=False)
@json_option
@click.pass_obj
def info(cli: Cli, app: str, id: str | None, as_json: bool) -> None:
    """Show one certificate; the beginning of its id is enough, without one the newest that is served."""
    found = cli.client.get(app_path(app, "certificates", _chosen(cli, app, id)))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} certificate {found['id']}")
    cli.console.facts({key.replace("_", " "): _cell(value) for key, value in found.items() if key != "id"})


@root.command("certs:chain", examples=("certs:chain blog > chain.pem", "certs:chain blog 3f9a > chain.pem"))
@app_argument
@click.argument("id", required=False)
@click.pass_obj
def chain(cli: Cli, app: str, id: str | None) -> None:
    """Print a certificate's chain in PEM, leaf first, without the key; without an id the newest that is served."""
    for piece in cli.client.text(app_path(app, "certificates", _chosen(cli, app, id), "chain")):
        cli.console.raw(piece)


@root.command("certs:remove", examples=("certs:remove blog 3f9a",))
@app_argument
@click.argument("id")
@click.pass_obj
def remove(cli: Cli, app: str, id: str) -> None:
    """Serve and keep a certificate no more; another one of the app for the same names takes over."""
    found = cli.client.request("DELETE", app_path(app, "certificates", id))
    cli.console.print(f"-----> Removed the certificate {found['id']} of {app}")


@root.command("certs:report", examples=("certs:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show which of an app's host names has which certificate, and what is in the way of those without."""
    found = cli.client.get(app_path(app, "tls"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} certificates")
    rows = [
        (n["name"], n["source"] or "-", (n["ends_at"] or "-")[:16], "yes" if n["redirect"] else "no", _state(n))
        for n in found["names"]
    ]
    cli.console.table(("NAME", "FROM", "ENDS", "REDIRECT", "STATE"), rows)


def _state(name: dict[str, Any]) -> str:
    if name.get("problem"):
        return str(name["problem"]) + (f" (tried again at {name['retry_at'][:16]})" if name["retry_at"] else "")
    if not name["certificate"]:
        return "HTTP only"
    return "ok" if name["valid"] else "not valid"


@root.command(
    "tls:set",
    examples=(
        "tls:set blog min-version 1.2",
        "tls:set blog hsts '31536000; includeSubDomains'",
        "tls:set blog redirect off",
        "tls:set blog client-ca < ca.pem",
        "tls:set blog client-ca ''",
    ),
)
@app_argument
@click.argument("key")
@click.argument("value", nargs=-1)
@click.pass_obj
def set_(cli: Cli, app: str, key: str, value: tuple[str, ...]) -> None:
    """Set how an app is served over TLS, at once; without a value the default holds again."""
    text = " ".join(value)
    if key == "client-ca" and not value and not os.isatty(cli.console.stdin):
        text = cli.console.read_all()
        if not text.strip():
            raise InvalidInput(
                "no certificate comes on standard input, and nothing was changed",
                hint=f"tls:set {app} client-ca < ca.pem, or let all clients in: tls:set {app} client-ca ''",
            )
    cli.client.request("PATCH", app_path(app, "tls"), {"settings": {key: text or None}})
    shown = "what was given" if key == "client-ca" else text
    cli.console.print(f"-----> Set {key} of {app} to {shown}" if text else f"-----> Unset {key} of {app}")


@root.command("tls:report", examples=("tls:report blog",))
@app_argument
@json_option
@click.pass_obj
def tls_report(cli: Cli, app: str, as_json: bool) -> None:
    """Show how an app is served over TLS, and what says so."""
    found = cli.client.get(app_path(app, "tls"))["settings"]
    if as_json:
        return cli.console.json(found)
    cli.console.settings(found)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value) or "-"
    return {True: "yes", False: "no", None: "-"}.get(value, str(value))
