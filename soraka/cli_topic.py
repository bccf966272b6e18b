"""`soraka topic`: the topics of a deployment."""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from soraka import topic_lines
from soraka.cli_shared import ADDRESSES, CONFIG, DELAYS, errors, load, patch
from soraka.limits import BALANCES, WEIGHTS
from soraka.topics import (
    MAX_DISPATCHES,
    MAX_RATE,
    MAX_RETENTION_MS,
    WHICH,
    check_name,
    check_settings,
)


@click.group()
def topic() -> None:
    """Topics of a deployment, in its ZooKeeper. (standalone creates topics by itself.)"""


_WORKERS = click.option("--workers", type=ADDRESSES, help="Those that may hold it; '' for all.")
_WEIGH_BY = click.option(
    "--weigh-by", type=click.Choice(WEIGHTS), help="Weights set by hand, or by their load."
)
_DISPATCHES = click.option(
    "--max-concurrent-dispatches",
    type=click.IntRange(0, MAX_DISPATCHES),
    help="Its callbacks under way at one worker; 0 for no limit.",
)
_RATE = click.option(
    "--max-dispatches-per-second",
    type=click.IntRange(0, MAX_RATE),
    help="Its callbacks begun per second by all workers together; 0 for no limit.",
)
_RETENTION = click.option(
    "--retention-ms",
    type=click.IntRange(0, MAX_RETENTION_MS),
    help="How long its finished messages are kept; 0 as configured.",
)
_PAUSED = click.option(
    "--paused/--resumed", default=None, help="Whether its messages wait, or are called."
)
_RETRY = click.option(
    "--retry",
    "retry_ms",
    type=DELAYS,
    help="Delays between attempts, '' for one. A message keeps what it was at its submit.",
)


@topic.command("add")
@CONFIG
@click.argument("name")
@click.option("--business", default="", help="Whose it is.")
@click.option("--balance", type=click.Choice(BALANCES), help="Choice of workers.")
@_WEIGH_BY
@_WORKERS
@_DISPATCHES
@_RATE
@_RETENTION
@_PAUSED
@_RETRY
def topic_add(file: Path | None, name: str, **given: Any) -> None:
    """Creates the topic NAME and its log."""
    with errors(), open_topics_of(file) as topics:
        if not topics.add(_changed(topics.new(name), given)):
            raise click.ClickException(f"topic {name!r} exists already")
    click.echo(f"created {name}")


@topic.command("update")
@CONFIG
@click.argument("name")
@click.option("--business", help="Whose it is.")
@click.option("--balance", type=click.Choice(BALANCES), help="Choice of workers.")
@_WEIGH_BY
@_WORKERS
@_DISPATCHES
@_RATE
@_RETENTION
@_PAUSED
@_RETRY
def topic_update(file: Path | None, name: str, **given: Any) -> None:
    """Changes settings of the topic NAME."""
    with errors(), open_topics_of(file) as topics:
        topics.update(name, lambda found: _changed(found, given))
    click.echo(f"updated {name}")


@topic.command("get")
@CONFIG
@click.argument("name")
def topic_get(file: Path | None, name: str) -> None:
    """Prints the settings of the topic NAME, as JSON."""
    with errors(), open_topics_of(file) as topics:
        click.echo(json.dumps(topic_lines.shown(topics.find(name)), indent=2, ensure_ascii=False))


@topic.command("list")
@CONFIG
@click.option("--secrets", is_flag=True, help="Their secrets, too: keep such a copy safe.")
def topic_list(file: Path | None, secrets: bool) -> None:
    """Prints the topics, a JSON object per line: a copy of them that `import` reads."""
    with errors(), open_topics_of(file) as topics:
        for _, found in sorted(topics.registry.topics().items()):
            click.echo(topic_lines.encode(found, secrets=secrets))


@topic.command("add-secret")
@CONFIG
@click.argument("name")
@click.option("--given", is_flag=True, help="Take one of your own, from standard input.")
def topic_add_secret(file: Path | None, name: str, given: bool) -> None:
    """Signs the callbacks of the topic NAME with a new secret, printed this once.

    With a second one they carry both signatures: those who are called can go over to it at any
    time, and then the older one is removed.
    """
    secret = _asked() if given else None
    with errors(), open_topics_of(file) as topics:
        made = topics.add_secret(name, secret)
    click.echo(f"added to {name}" if given else made)


@topic.command("remove-secret")
@CONFIG
@click.argument("name")
@click.argument("which", type=click.Choice(WHICH))
def topic_remove_secret(file: Path | None, name: str, which: str) -> None:
    """Forgets the older or the newer of two secrets of the topic NAME, or all: then its callbacks
    are not signed."""
    with errors(), open_topics_of(file) as topics:
        topics.remove_secret(name, which)
    click.echo(f"removed from {name}")


@topic.command("import")
@CONFIG
@click.argument("lines", metavar="FILE", type=click.File(encoding="utf-8"))
@click.option("--replace", is_flag=True, help="Also change those that are there and differ.")
def topic_import(file: Path | None, lines: TextIO, replace: bool) -> None:
    """Creates the topics of FILE (- for standard input), as `list` has printed them.

    Nothing is changed unless every line can be used. Topics that are not in FILE stay. It may be
    repeated.
    """
    with errors():
        wanted = topic_lines.decode_all(lines)
        for each in wanted:
            check_name(each.name)
            check_settings(each)
        with open_topics_of(file) as topics:
            done = Counter(_import(topics, each, replace) for each in wanted)
    click.echo(", ".join(f"{done[what]} {what}" for what in ("created", "replaced", "left")))


@contextmanager
def open_topics_of(file: Path | None) -> Iterator[Any]:
    """The topics of the configured deployment."""
    loaded = load(file)
    if loaded.registry.adapter == "local":
        raise click.ClickException(
            "registry.adapter = 'local': its topics belong to the running standalone, which "
            "creates them by itself; give the --config of a deployment"
        )
    patch()
    from soraka import logs
    from soraka.wiring import open_topics

    logs.silence()
    with open_topics(loaded) as topics:
        yield topics


def _asked() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Secret", hide_input=True))
    return sys.stdin.readline().strip()


def _import(topics: Any, wanted: Any, replace: bool) -> str:
    """What became of it. Its log comes first in any case: it may be the log that was lost."""
    if topics.add(wanted):
        return "created"
    found = topics.find(wanted.name)
    secrets = wanted.secrets or found.secrets
    wanted = dataclasses.replace(wanted, created_at=found.created_at, secrets=secrets)
    if found == wanted:
        return "left"
    if not replace:
        click.echo(f"{wanted.name} is there with other settings (--replace)", err=True)
        return "left"
    topics.update(wanted.name, lambda _: wanted)
    return "replaced"


def _changed(topic: Any, given: Mapping[str, Any]) -> Any:
    """`topic` with the options that were given, an empty one too."""
    return dataclasses.replace(topic, **{k: v for k, v in given.items() if v is not None})
