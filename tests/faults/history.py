"""What clients, callbacks and faults did, each with its time, as JSON lines.

Moments are milliseconds since the epoch, reckoned on the monotonic clock of this process, so
they neither step nor differ from each other. A history is enough to judge a run: see `checker`.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

BASE_MS = (time.time() - time.monotonic()) * 1000

"""What `now_ms` counts beyond the monotonic clock, which all processes of a machine share."""


def now_ms() -> float:
    return BASE_MS + time.monotonic() * 1000


class Answer(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """No answer in time, 503, or a broken connection: it may hold or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """One sending of a message; the same one may be sent several times."""

    kind: ClassVar[str] = "submit"
    begin: float
    end: float
    msg_id: str
    answer: Answer
    ec: int
    delay_ms: int
    ttr_ms: int
    retry_ms: tuple[int, ...]
    via: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One sending of a cancel (`add_ms` 0) or an added time."""

    kind: ClassVar[str] = "command"
    begin: float
    end: float
    msg_id: str
    answer: Answer
    ec: int
    command_id: str
    add_ms: int
    via: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A callback as it came. `attempt` and `due_at` are what its headers said; `end` is just
    before the answer `status` was written. It may have been sent up to `lag_ms` before `begin`,
    and answered as much after `end`: so far behind was our own process."""

    kind: ClassVar[str] = "call"
    begin: float
    end: float
    msg_id: str
    attempt: int
    due_at: int
    status: int
    lag_ms: float = 0.0

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something broke at `begin` and was whole again at `end`; both may be written later, the
    line with the same number written last counts.

    What it excuses: with `may_repeat`, messages that were in flight between `begin` and
    `strikes_until` may be called again. With `lost_ms`, the store may have come back without
    what it had taken in that time before `begin`: messages in flight then may be called again,
    also while the first call runs.
    """

    kind: ClassVar[str] = "fault"
    number: int
    name: str
    begin: float
    end: float = math.inf
    strikes_until: float = math.inf
    may_repeat: bool = False
    lost_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """What the API said of a message when all was over; `state` may be 'absent'."""

    kind: ClassVar[str] = "final"
    at: float
    msg_id: str
    state: str
    due_at: int = 0
    reason: str = ""


Event = Submit | Command | Call | Fault | Final
_KINDS: dict[str, type[Event]] = {
    event.kind: event for event in (Submit, Command, Call, Fault, Final)
}


class History:
    """Writes events to a file as they come, and tells `heard` of each."""

    def __init__(self, path: Path, heard: Callable[[Event], object]) -> None:
        self.path = path
        self._heard = heard
        self._file = path.open("w")

    def add(self, event: Event) -> None:
        """After `close`, nothing."""
        if not self._file.closed:
            self._file.write(to_line(event))
            self._heard(event)

    def note(self, **facts: Any) -> None:
        """A line for people: the seed, what was run."""
        self._file.write(json.dumps({"kind": "note", **facts}) + "\n")

    def close(self) -> None:
        self._file.close()


def to_line(event: Event) -> str:
    fields = {k: v for k, v in asdict(event).items() if v != math.inf}
    return json.dumps({"kind": event.kind, **fields}) + "\n"


def read(path: Path) -> Iterator[Event]:
    """The events of a history, in the order in which they were written."""
    with path.open() as lines:
        for line in lines:
            fields = json.loads(line)
            kind = fields.pop("kind")
            if kind in _KINDS:
                yield _event(_KINDS[kind], fields)


def _event(kind: type[Event], fields: dict[str, Any]) -> Event:
    if "answer" in fields:
        fields["answer"] = Answer(fields["answer"])
    if "retry_ms" in fields:
        fields["retry_ms"] = tuple(fields["retry_ms"])
    return kind(**fields)
