"""`soraka submit`, `cancel`, `add-time`, `show`: a client of a running deployment."""

import json
from datetime import UTC, datetime
from typing import Any

import click

from soraka.cli_shared import DELAYS, MS, Target, call, for_clients, patch
from soraka.limits import MAX_DELAY_MS

_I64 = click.IntRange(0, 2**63 - 1)


@click.command()
@for_clients
@click.argument("topic")
@click.argument("url")
@click.option("--delay", type=MS, metavar="MS", help="From now, up to 7 days.  [default: 0]")
@click.option("--at", type=_I64, metavar="MS", help="Due time since the epoch, not --delay.")
@click.option("--method", type=click.Choice(["GET", "POST"]), default="POST", show_default=True)
@click.option("--params", metavar="JSON", help="A JSON object.")
@click.option("--ttr", type=_I64, metavar="MS", help="Deadline of the call.  [default: 1000]")
@click.option("--retry", type=DELAYS, help="Delays between attempts; '' for one attempt.")
@click.option("--id", "msg_id", help="A UUIDv7 of your own, to make the submit repeatable.")
@click.option("--key", help="An idempotency key: any text, for the same.")
def submit(
    target: Target,
    topic: str,
    url: str,
    delay: int | None,
    at: int | None,
    method: str,
    params: str | None,
    ttr: int | None,
    retry: tuple[int, ...] | None,
    msg_id: str | None,
    key: str | None,
) -> None:
    """Submits a message to TOPIC that calls URL; prints its id."""
    patch()
    import idl

    submission = idl.soraka.Submission(
        topic_name=topic,
        delay_time=0 if delay is None and at is None else delay,
        deliver_at=at,
        ttr=ttr,
        callback=idl.soraka.Callback(
            request_type=idl.soraka.RequestType._NAMES_TO_VALUES[method], url=url, params=params
        ),
        retry_delays=None if retry is None else list(retry),
        msg_id=msg_id,
        idempotency_key=key,
    )
    click.echo(call(target, "submit", submission=submission))


@click.command()
@for_clients
@click.argument("topic")
@click.argument("msg_id")
def cancel(target: Target, topic: str, msg_id: str) -> None:
    """Cancels a message that was not called yet."""
    call(target, "cancel", topic_name=topic, msg_id=msg_id, command_id=None)
    click.echo("cancelled")


# without ignore_unknown_options -5 would be taken for an option
@click.command("add-time", context_settings={"ignore_unknown_options": True})
@for_clients
@click.argument("topic")
@click.argument("msg_id")
@click.argument("milliseconds", type=click.IntRange(1, MAX_DELAY_MS))
def add_time(target: Target, topic: str, msg_id: str, milliseconds: int) -> None:
    """Moves the due time of a message MILLISECONDS later."""
    call(
        target,
        "addTime",
        topic_name=topic,
        msg_id=msg_id,
        add_time=milliseconds,
        command_id=None,
    )
    click.echo("postponed")


@click.command()
@for_clients
@click.argument("msg_id")
def show(target: Target, msg_id: str) -> None:
    """Prints where a message is, as JSON."""
    info = call(target, "get", msg_id=msg_id)
    click.echo(json.dumps(_shown(info), indent=2, ensure_ascii=False))


def _shown(info: Any) -> dict[str, Any]:
    """A MessageInfo for people: names for numbers, moments as dates too, params as they are."""
    import idl

    shown: dict[str, Any] = {}
    for key, value in vars(info).items():
        if value is not None:
            shown[key] = value
        if value is not None and key in _MOMENTS:
            shown[f"{key}_utc"] = _utc(value)
    shown["state"] = idl.soraka.MessageState._VALUES_TO_NAMES[info.state].lower()
    shown["callback"] = {
        "request_type": idl.soraka.RequestType._VALUES_TO_NAMES[info.callback.request_type],
        "url": info.callback.url,
    }
    if info.callback.params is not None:
        shown["callback"]["params"] = json.loads(info.callback.params)
    return shown


_MOMENTS = ("created_at", "due_at", "lease_until", "finished_at")


def _utc(epoch_ms: int) -> str:
    moment = datetime.fromtimestamp(epoch_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03}Z"
