"""`soraka admin`: the role for people, and its accounts and tokens."""

import getpass
import secrets
import sys
from pathlib import Path
from typing import Any

import click

from soraka.cli_shared import CONFIG, errors, load, shared
from soraka.errors import ConfigError

ROLES = ("viewer", "operator")
_DATA_DIR = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="That of a standalone."
)


@click.group(invoke_without_command=True)
@CONFIG
@click.pass_context
def admin(context: click.Context, file: Path | None) -> None:
    """Serves topics, instances, messages and monitoring to people, as pages and as an API.

    The first start makes the account `admin` and prints its password. The commands change the
    file of accounts, `admin.accounts`, which running processes read again.
    """
    context.obj = file
    if context.invoked_subcommand is None:
        loaded = shared(load(file))
        from admin_app.wsgi import AdminServer  # gunicorn patches its workers by itself

        with errors():
            AdminServer(loaded).run()


@admin.command("set-password")
@CONFIG
@_DATA_DIR
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), help="Needed for a new account.")
@click.option("--generate", is_flag=True, help="Make one, and print it.")
@click.pass_context
def set_password(
    context: click.Context,
    file: Path | None,
    data_dir: Path | None,
    name: str,
    role: str | None,
    generate: bool,
) -> None:
    """Sets the password of the account NAME, or makes it. Its sessions end.

    The password is asked for, or read from standard input when that is no terminal.
    """
    password = secrets.token_urlsafe(15) if generate else _asked()
    with errors():
        files = _Files(context, file, data_dir)
        files.accounts.set_password(name, password, role)
        files.note("set-password", name=name, role=role)
    click.echo(f"password of {name}: {password}" if generate else f"password of {name} is set")


@admin.command("add-token")
@CONFIG
@_DATA_DIR
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="viewer", show_default=True)
@click.pass_context
def add_token(
    context: click.Context, file: Path | None, data_dir: Path | None, name: str, role: str
) -> None:
    """Makes an API token and prints it, this once: for Authorization: Bearer."""
    with errors():
        files = _Files(context, file, data_dir)
        made = files.accounts.add_token(name, role, "soraka admin")
        files.note("add-token", name=name, role=role)
    click.echo(made)


@admin.command("list")
@CONFIG
@_DATA_DIR
@click.pass_context
def list_(context: click.Context, file: Path | None, data_dir: Path | None) -> None:
    """Prints accounts and tokens with their roles."""
    with errors():
        accounts = _Files(context, file, data_dir).accounts
    for kind, entries in (("account", accounts.all()), ("token", accounts.tokens())):
        for entry in entries:
            click.echo(f"{kind:<8} {entry.role:<9} {entry.name}")


def _asked() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")


class _Files:
    """Accounts and audit, of the data directory of a standalone or of a configuration."""

    def __init__(self, context: click.Context, file: Path | None, data_dir: Path | None) -> None:
        from admin_app.accounts import Accounts
        from admin_app.audit import Audit

        if data_dir is not None:
            accounts, audit = data_dir / "admin.json", data_dir / "audit.jsonl"
            if not data_dir.is_dir():  # misspelt: one made now would be of no process
                raise ConfigError(f"--data-dir: there is no folder {str(data_dir)!r}")
        else:
            settings = load(file or context.obj).admin
            accounts, audit = Path(settings.accounts), Path(settings.audit)
        self._path = accounts
        self.accounts = Accounts(accounts)
        self._audit = Audit(audit)

    def note(self, action: str, **details: Any) -> None:
        """Changes by this command are in the audit too, and it says which file they are in: not
        on standard output, where a token or password may be read from."""
        click.echo(f"changed {self._path.resolve()}", err=True)
        self._audit.add(
            who=f"command:{getpass.getuser()}",
            action=action,
            source="this host",
            details=details,
        )
