"""`soraka token`: the API tokens that callers of receive need, where `receive.tokens` is set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from soraka import tokens
from soraka.cli_shared import CONFIG, errors, load
from soraka.tokens import Right

_FILE = click.option(
    "--tokens",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file.  [default: receive.tokens]",
)


@click.group()
def token() -> None:
    """API tokens for submits, commands and questions, each for the topics it is made for.

    They are needed where `receive.tokens` names their file; running processes read it again
    within a second. Give each host of receive the same file.
    """


def _patterns(right: Right, about: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{right}",
        multiple=True,
        metavar="TOPIC",
        help=f"{about}: a name in which * is any text. May be repeated.",
    )


@token.command("add")
@CONFIG
@_FILE
@click.argument("name")
@_patterns(Right.SUBMIT, "Topics it may submit to")
@_patterns(Right.COMMAND, "Topics whose messages it may cancel and postpone")
@_patterns(Right.READ, "Topics whose messages it may look at")
def add(file: Path | None, path: Path | None, name: str, **given: tuple[str, ...]) -> None:
    """Makes the token NAME and prints it, this once: for Authorization: Bearer.

    \b
    A service of its own:  soraka token add shop --submit 'shop.*' --command 'shop.*'
    For everything:        soraka token add ops --submit '*' --command '*' --read '*'
    """
    with errors():
        where = _file(file, path)
        made = tokens.add(where, name, {right: given[right] for right in Right})
        _tell(where)
    click.echo(made)


@token.command("remove")
@CONFIG
@_FILE
@click.argument("name")
def remove(file: Path | None, path: Path | None, name: str) -> None:
    """Removes the token NAME: who has it is refused from then on."""
    with errors():
        where = _file(file, path)
        tokens.remove(where, name)
        _tell(where)
    click.echo(f"removed {name}")


@token.command("list")
@CONFIG
@_FILE
def list_(file: Path | None, path: Path | None) -> None:
    """Prints the tokens by name, with what each may do."""
    with errors():
        found = tokens.listed(_file(file, path))
    for one in found:
        rights = (f"{right} {','.join(getattr(one, right))}" for right in Right)
        click.echo("  ".join([one.name, *(text for text in rights if not text.endswith(" "))]))


def _file(file: Path | None, path: Path | None) -> Path:
    named = path or load(file).receive.tokens
    if not named:
        raise click.ClickException(
            "receive.tokens = '': no file of tokens is set; set it in --config, or give --tokens"
        )
    return Path(named)


def _tell(path: Path) -> None:
    """Not on standard output, where a token may be read from."""
    click.echo(f"changed {path.resolve()}", err=True)
