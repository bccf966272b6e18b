"""What claim, settle, command and assign do to one record; pure.

The SQLite store runs them on its rows. `lua/` says the same for Redis, and the contract tests
and the simulation hold the two together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from soraka.errors import DecodeError
from soraka.message import (
    ID_AHEAD_MS,
    PARKED,
    Command,
    CommandKind,
    Message,
    State,
    id_time_ms,
)
from soraka.ports import Claim, ClaimKind, Ended, Move, NewMessage, Outcome, Verdict
from soraka.wire import decode_message, encode

REMEMBERED = 128
"""Verdicts kept per message, and commands kept at the door of an unknown one."""
LAST_MOMENT = 1 << 53
REASON_CHARS = 1000


@dataclass(slots=True)
class Row:
    """A record. `lease_until` is 0 when there is no lease; one that ran out stays until it is
    given anew; `not_before` is 0 when it is not held back. `commands` is
    ' <command id>=<verdict>' for each, the oldest first.
    """

    msg_id: str
    topic: str
    owner: str
    ttr_ms: int
    due_at: int
    body: bytes
    state: State = State.PENDING
    lease_until: int = 0
    attempt: int = 0
    tries: int = 0
    finished_at: int = 0
    expires_at: int = 0
    commands: str = ""
    reason: str = ""
    not_before: int = 0
    releases: int = 0

    @property
    def look_at(self) -> int:
        return self.lease_until or max(self.due_at, self.not_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All durations in ms. `kept_ms` is how long what ended well is kept, for topics that have
    their own retention."""

    retention_ms: int
    dead_retention_ms: int
    lease_margin_ms: int
    early_ms: int
    kept_ms: dict[str, int] = field(default_factory=dict)

    def claim(self, row: Row | None, now: int, ahead_ms: int = 0) -> Claim:
        if row is None or row.state is not State.PENDING:
            return Claim(ClaimKind.GONE)
        if row.lease_until > now:
            return Claim(ClaimKind.BUSY, row.lease_until)
        at = max(row.due_at, row.not_before)
        if at > now + ahead_ms:
            return Claim(ClaimKind.LATER, at)
        row.not_before, row.lease_until = 0, max(at, now) + row.ttr_ms + self.lease_margin_ms
        row.attempt += 1
        row.tries += 1
        return Claim(
            ClaimKind.FIRE,
            row.lease_until,
            row.attempt,
            row.due_at,
            _message_of(row),
            row.tries,
            row.releases,
            early_ms=max(0, at - now),
        )

    def settle(self, row: Row | None, outcome: Outcome, now: int) -> bool:
        """A lease given up (0) is over, one that ran out is not until it is given anew."""
        if row is None or row.state is not State.PENDING:
            return False
        if row.lease_until == 0 or outcome.lease != (row.attempt, row.lease_until):
            return False
        row.reason = outcome.reason[:REASON_CHARS]
        match outcome.ended:
            case Ended.SUCCEEDED:
                _finish(row, State.SUCCEEDED, now, self._retention(row))
            case Ended.DEAD:
                _finish(row, State.DEAD, now, self.dead_retention_ms)
            case Ended.RETRY:
                row.due_at, row.lease_until = now + outcome.delay_ms, 0
            case Ended.RELEASED:
                row.tries -= 1  # but not `attempt`, which is never given twice
                row.releases += 1
                row.lease_until = 0
                if outcome.delay_ms:
                    row.not_before = now + outcome.delay_ms
        return True

    def command(self, row: Row, command: Command, now: int) -> Verdict:
        if command.topic != row.topic:
            return Verdict.NOT_FOUND
        known = _remembered(row, command.command_id)
        if known is not None:
            return known
        if _is_too_late(row, command.kind, now):
            # also when it is finished: it may be redriven
            return _remember(row, command.command_id, Verdict.TOO_LATE)
        match command.kind:
            case CommandKind.CANCEL:
                _finish(row, State.CANCELLED, now, self._retention(row))
            case CommandKind.ADD_TIME:
                row.due_at, row.not_before = min(row.due_at + command.add_ms, LAST_MOMENT), 0
                # A lease that ran out is given up: a late settle must not swallow the added time.
                row.lease_until = 0
            case CommandKind.FIRE_NOW:
                row.due_at, row.not_before, row.lease_until = min(row.due_at, now), 0, 0
            case CommandKind.REDRIVE:
                _revive(row, now)
        return _remember(row, command.command_id, Verdict.APPLIED)

    def early(self, waiting: Sequence[Command], command: Command, now: int) -> Verdict:
        """For an unknown message. EARLY: keep the command, unless it is among `waiting`."""
        if command.kind is CommandKind.REDRIVE:
            return Verdict.NOT_FOUND
        made = id_time_ms(command.msg_id)
        if made is None or not now - self.early_ms <= made <= now + ID_AHEAD_MS:
            return Verdict.NOT_FOUND
        if any(other.command_id == command.command_id for other in waiting):
            return Verdict.EARLY
        return Verdict.EARLY if _has_room(waiting, command) else Verdict.NOT_FOUND

    def assign(self, row: Row | None, move: Move) -> int | None:
        """The owner alone changes: a lease given up here would let two workers call at once.
        But what is parked is not held back as well."""
        if row is None or row.state is not State.PENDING or row.owner != move.source:
            return None
        row.owner = move.target
        if move.target.startswith(PARKED):
            row.not_before = 0
        return row.look_at

    def _retention(self, row: Row) -> int:
        return self.kept_ms.get(row.topic, self.retention_ms)


def new_row(new: NewMessage) -> Row:
    message = new.message
    return Row(
        msg_id=message.msg_id,
        topic=message.topic,
        owner=new.owner,
        ttr_ms=message.ttr_ms,
        due_at=message.due_at,
        body=encode(message),
    )


def _message_of(row: Row) -> Message | str:
    try:
        return decode_message(row.body)
    except DecodeError as exc:
        return str(exc)


def _finish(row: Row, state: State, now: int, retention_ms: int) -> None:
    row.state, row.lease_until, row.finished_at = state, 0, now
    row.not_before = 0
    row.expires_at = now + retention_ms


def _revive(row: Row, now: int) -> None:
    """`attempt` goes on: none is given twice."""
    row.state, row.due_at, row.tries, row.releases = State.PENDING, now, 0, 0
    row.finished_at = row.expires_at = 0


def _is_too_late(row: Row, kind: CommandKind, now: int) -> bool:
    if kind is CommandKind.REDRIVE:
        return row.state is not State.DEAD
    return row.state is not State.PENDING or row.lease_until > now


def _remembered(row: Row, command_id: str) -> Verdict | None:
    for pair in reversed(row.commands.split()):
        known, _, verdict = pair.partition("=")
        if known == command_id:
            return Verdict(verdict)
    return None


def _remember(row: Row, command_id: str, verdict: Verdict) -> Verdict:
    kept = row.commands.split()[1 - REMEMBERED :]
    row.commands = " ".join([*kept, f"{command_id}={verdict}"])
    return verdict


def _has_room(waiting: Sequence[Command], command: Command) -> bool:
    """Full, the door has room for one cancel still: it makes the rest needless."""
    if len(waiting) < REMEMBERED:
        return True
    cancels = CommandKind.CANCEL in (other.kind for other in waiting)
    return command.kind is CommandKind.CANCEL and not cancels
