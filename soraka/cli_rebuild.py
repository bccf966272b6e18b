"""`soraka rebuild`: reads the log once more into a store that has lost what it held."""

import re
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from soraka.cli_shared import CONFIG, errors, load, patch

TELL_EVERY_S = 1.0
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")


class Moment(click.ParamType[int]):
    """A moment in ms since the epoch: that number, ISO 8601 (UTC without a zone), or 90m, 36h, 7d:
    so long ago."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        if text.isascii() and text.isdigit():
            return int(text)
        if ago := _AGO.fullmatch(text):
            return int(time.time() * 1000) - int(ago[1]) * _UNITS_MS[ago[2]]
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is none of: epoch ms, ISO 8601, 90m, 36h, 7d", param, ctx)
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


@click.command()
@CONFIG
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="That of a standalone, which is stopped."
)
@click.option("--since", type=Moment(), required=True, help="Read what was accepted from then on.")
@click.option(
    "--due-after",
    type=Moment(),
    help="Restore what falls due from then on: the moment the store was lost. Without it, all; "
    "what had been called before the loss is called again.",
)
@click.option("--dry-run", is_flag=True, help="Only count.")
def rebuild(
    file: Path | None, data_dir: Path | None, since: int, due_after: int | None, dry_run: bool
) -> None:
    """Restores pending messages from the log after the store has lost everything.

    A moment is an ISO 8601 time (UTC), epoch ms, or 90m, 36h, 7d ago. Messages that the store
    knows are left as they are, cancelled ones stay cancelled, added times count. The log does not
    know what was called: see docs/operations.md. It may be repeated, and run while soraka runs
    (with SQLite: while it is stopped).
    """
    paths = {name: {"path": data_dir and str(data_dir / f"{name}.db")} for name in ("log", "store")}
    loaded = load(file, paths)
    patch()
    from soraka import logs
    from soraka import rebuild as restoring
    from soraka.wiring import open_log, open_store

    logs.silence()
    told = time.monotonic()

    def tell(done: restoring.Rebuilt) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            click.echo(f"read {done.messages} messages, restored {done.restored}", err=True)

    with errors(), closing(open_log(loaded)) as log, closing(open_store(loaded)) as store:
        done = restoring.rebuild(
            log,
            store,
            group=loaded.log.group,
            since_ms=since,
            due_after_ms=since if due_after is None else due_after,
            dry_run=dry_run,
            told=tell,
        )
    click.echo(_summary(done, dry_run=dry_run))


def _summary(done: Any, *, dry_run: bool) -> str:
    lines = [
        f"{'would restore' if dry_run else 'restored'} {done.restored} of {done.messages} messages",
        f"  {done.known} are known to the store and left as they are",
        f"  {done.cancelled} were cancelled",
        f"  {done.past} fall due before --due-after",
    ]
    if done.undecodable:
        lines.append(f"  {done.undecodable} records cannot be decoded")
    return "\n".join(lines)
