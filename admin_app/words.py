"""How the pages word values, and read what people write. Pure."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from soraka.errors import InvalidParams
from soraka.limits import DAY_MS
from soraka.message import NO_OWNER, PARKED, Stored, Topic

_UNITS = (("d", DAY_MS), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1))
_WRITTEN = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": DAY_MS}
_DURATION = re.compile(r"\s*(\d{1,12})\s*(ms|s|min|m|h|d)?\s*")
_BYTES = ("B", "KB", "MB", "GB", "TB")
NOTHING = "–"  # noqa: RUF001 (a dash in an empty cell)


def number(value: float | None) -> str:
    """With separators; None is a dash."""
    return NOTHING if value is None else f"{value:,}"


def duration(ms: float | None) -> str:
    """In its two greatest units.

    >>> duration(7_530_000), duration(90_061), duration(0)
    ('2 h 5 min', '1 min 30 s', '0 ms')
    """
    if ms is None:
        return NOTHING
    left = round(ms)
    parts: list[str] = []
    for unit, size in _UNITS:
        if left >= size and (unit != "ms" or not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts[:2]) or "0 ms"


def at_most(ms: int | None) -> str:
    """The upper end of a bucket."""
    return NOTHING if ms is None else f"≤ {duration(ms)}"


def size(value: float) -> str:
    """Of memory or a body.

    >>> size(512), size(1_500_000)
    ('512 B', '1.5 MB')
    """
    for unit in _BYTES:
        if value < 1000 or unit == _BYTES[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def iso(ms: int) -> str:
    """For <time datetime>."""
    return f"{_at(ms):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"


def utc(ms: int) -> str:
    """For readers whose browser does not turn it into their own zone."""
    return f"{_at(ms):%Y-%m-%d %H:%M:%S} UTC"


def exact(ms: int) -> str:
    """Everything there is to know of a moment."""
    return f"{_at(ms):%Y-%m-%d %H:%M:%S}.{ms % 1000:03} UTC = {ms} ms"


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(min(ms, 253_402_300_799_000) // 1000, UTC)


def read_duration(field: str, text: str) -> int:
    """Milliseconds of such as "500ms", "10s", "5m"; without a unit: ms. Raises InvalidParams."""
    got = _DURATION.fullmatch(text)
    if got is None:
        raise InvalidParams(field, "must be a number and a unit, such as 500ms, 10s, 5m, 2h or 3d")
    return int(got[1]) * _WRITTEN[got[2] or "ms"]


def read_durations(field: str, text: str) -> tuple[int, ...]:
    """Separated by commas or spaces. Raises InvalidParams, field `<field>.<index>`."""
    parts = filter(None, re.split(r"[,\s]+", text.strip()))
    return tuple(read_duration(f"{field}.{i}", part) for i, part in enumerate(parts))


def write_duration(ms: int) -> str:
    """As `read_duration` reads it back.

    >>> write_duration(300_000), write_duration(1500)
    ('5m', '1500ms')
    """
    for unit, length in (("d", DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms and ms % length == 0:
            return f"{ms // length}{unit}"
    return f"{ms}ms"


def read_int(field: str, text: str) -> int:
    """Empty: 0. Raises InvalidParams."""
    if not re.fullmatch(r"-?\d{0,12}", text.strip()):
        raise InvalidParams(field, "must be a whole number")
    return int(text.strip() or 0)


def read_moment(field: str, text: str) -> int | None:
    """Of ISO 8601, in UTC when it names no zone; ms since the epoch, not before. Empty: None.
    Raises InvalidParams."""
    if not text.strip():
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        ms = int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        ms = -1
    if ms < 0:
        raise InvalidParams(field, "must be a date and a time, such as 2031-04-05T06:07")
    return ms


def limits(topic: Topic) -> str:
    """In the list of topics; empty when there are none."""
    parts = []
    if topic.max_dispatches_per_second:
        parts.append(f"{topic.max_dispatches_per_second:,}/s")
    if topic.max_concurrent_dispatches:
        parts.append(f"{topic.max_concurrent_dispatches:,} at once")
    return ", ".join(parts)


def settings(topic: Topic) -> Iterator[tuple[str, str]]:
    """For those who may not change them: label and value."""
    yield "Workers", ", ".join(topic.workers) or "every live one"
    yield "Balance", f"{topic.balance}, weights by {topic.weigh_by}"
    yield "Retries after", ", ".join(map(write_duration, topic.retry_ms)) or "no retry"
    yield "Limits", limits(topic) or "those of the workers alone"
    yield "Finished messages are kept", duration(topic.retention_ms or None)
    yield "Callbacks", signed_by(topic)


def signed_by(topic: Topic) -> str:
    """How its callbacks are signed."""
    count = len(topic.secrets)
    if not count:
        return "not signed"
    return "signed with a secret" if count == 1 else f"signed with {count} secrets"


def count_label(name: str) -> str:
    """Of what is counted by minute. `dead` is part of `failed`."""
    return {"failed": "Failed calls", "dead": "Died"}.get(name, name.capitalize())


def whereabouts(stored: Stored, now: int) -> str:
    """Of a pending message, in a few words."""
    if stored.lease_until > now:
        return "being called"
    if stored.due_at <= now:
        return f"overdue by {duration(now - stored.due_at)}"
    return f"in {duration(stored.due_at - now)}"


def owner_words(owner: str) -> str:
    """Who has a pending message."""
    if owner == NO_OWNER:
        return "no worker was live when it came; a center gives it to one"
    if owner.startswith(PARKED):
        return "nobody while its topic is paused"
    return owner


def tone(state: str) -> str:
    """Of a badge: for how an attempt ended, and for the states of bulk work."""
    if state.lower() in ("succeeded", "done"):
        return "good"
    if state.lower() in ("dead", "failed"):
        return "bad"
    return "pending" if state in ("running",) else "warn"


def refusal(error: str) -> str:
    """Why a message was left as it is, by the name of the error."""
    known = {
        "TooLate": "Too late",
        "MessageNotFound": "Not found",
        "TopicNotFound": "No such topic",
    }
    return known.get(error, error)


def moment_input(text: str) -> str:
    """For <input type=datetime-local>, in UTC; what cannot be read is shown as nothing."""
    try:
        ms = read_moment("", text)
    except InvalidParams:
        return ""
    return "" if ms is None else iso(ms)[:16]


FILTERS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        number,
        duration,
        at_most,
        size,
        iso,
        utc,
        exact,
        limits,
        settings,
        signed_by,
        write_duration,
        count_label,
        whereabouts,
        owner_words,
        tone,
        refusal,
        moment_input,
    )
}
