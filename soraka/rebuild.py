"""Reads the log once more into a store that has lost what it held.

The log knows what was submitted and which commands were confirmed, not what was called. So this
restores every message that may still be wanted and that the store does not know: one that was
finished before the loss, and falls due late enough to be asked for, is called again.

A message that was fired now fell due then: at the time of the command's id, when that is a UUIDv7;
else it counts as due when it was, and is due at once when it is restored. One that was redriven was
dead, and fell due anew at the time of that command, if it is known; a dead letter comes back as
pending in any case. A cancel wins over both, also where it came too late.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from soraka import wire
from soraka.errors import DecodeError
from soraka.message import NO_OWNER, Command, CommandKind, Message, id_time_ms
from soraka.ports import Batch, Entry, FullStore, LogReader, NewCommand, NewMessage

AT_ONCE = 500
OUT_OF_TURN = "rebuild"
"""Stands for a partition that is never read."""
Told = Callable[["Rebuilt"], object]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was found in the log. `restored` were put back; the others of `messages` were cancelled,
    fall due before they are asked for, or are known to the store."""

    messages: int = 0
    cancelled: int = 0
    past: int = 0
    known: int = 0
    restored: int = 0
    undecodable: int = 0


@dataclass(slots=True)
class _Commands:
    """Commands of the time read, by message id and topic: in memory, some 500 bytes each."""

    cancelled: set[tuple[str, str]] = field(default_factory=set)
    others: dict[tuple[str, str], dict[str, Command]] = field(default_factory=dict)

    def add(self, command: Command) -> None:
        key = (command.msg_id, command.topic)
        if command.kind is CommandKind.CANCEL:
            self.cancelled.add(key)
        else:
            self.others.setdefault(key, {}).setdefault(command.command_id, command)

    def cancel(self, message: Message) -> bool:
        return (message.msg_id, message.topic) in self.cancelled

    def of(self, message: Message) -> Iterable[Command]:
        """Those but cancels, each once, in their order."""
        return self.others.get((message.msg_id, message.topic), {}).values()

    def due_at(self, message: Message) -> int:
        due_at = message.due_at
        for command in self.of(message):
            due_at = _due_after(command, due_at)
        return due_at


def _due_after(command: Command, due_at: int) -> int:
    """When a message falls due that was due at `due_at` before the command."""
    given_at = id_time_ms(command.command_id)
    match command.kind:
        case CommandKind.ADD_TIME:
            return due_at + command.add_ms
        case CommandKind.FIRE_NOW if given_at is not None:
            return min(due_at, given_at)
        case CommandKind.REDRIVE if given_at is not None:
            return max(due_at, given_at)
    return due_at


def rebuild(
    log: LogReader,
    store: FullStore,
    *,
    group: str,
    since_ms: int,
    due_after_ms: int,
    dry_run: bool = False,
    told: Told = lambda _: None,
) -> Rebuilt:
    """Puts back what was appended since `since_ms`, falls due at or after `due_after_ms`, and is
    not known to the store. Leaves known messages as they are; safe to repeat, and while soraka
    runs. `told` gets the figures after each step. Raises LogUnavailable, StoreUnavailable.
    """
    if not dry_run:
        # or a center would take the store for one that must be read from the start of the log
        store.adopt(log.committed(group))
    commands = _Commands()
    undecodable = 0
    for record in _records(log.replay(since_ms)):
        if isinstance(record, Command):
            commands.add(record)
        undecodable += record is None
    done = Rebuilt(undecodable=undecodable)
    messages = (r for r in _records(log.replay(since_ms)) if isinstance(r, Message))
    while page := list(islice(messages, AT_ONCE)):
        done = _restore(page, commands, store, due_after_ms, done, dry_run=dry_run)
        told(done)
    return done


def _restore(
    page: Sequence[Message],
    commands: _Commands,
    store: FullStore,
    due_after_ms: int,
    done: Rebuilt,
    *,
    dry_run: bool,
) -> Rebuilt:
    held = [m for m in page if not commands.cancel(m)]
    wanted = [m for m in held if commands.due_at(m) >= due_after_ms]
    known = store.get([m.msg_id for m in wanted])
    missing = [m for m, stored in zip(wanted, known, strict=True) if stored is None]
    if missing and not dry_run:
        unread = (-1,) * len(store.positions(OUT_OF_TURN))
        store.schedule(OUT_OF_TURN, unread, -1, list(_entries(missing, commands)))
    return replace(
        done,
        messages=done.messages + len(page),
        cancelled=done.cancelled + len(page) - len(held),
        past=done.past + len(held) - len(wanted),
        known=done.known + len(wanted) - len(missing),
        restored=done.restored + len(missing),
    )


def _entries(missing: Sequence[Message], commands: _Commands) -> Iterator[Entry]:
    """A message with its commands in one step: it may be due without its added times. It is not
    dead, so a redrive has nothing to do."""
    for message in missing:
        yield NewMessage(0, message, NO_OWNER)
        for command in commands.of(message):
            if command.kind is not CommandKind.REDRIVE:
                yield NewCommand(0, command)


def _records(batches: Iterator[Batch]) -> Iterator[Message | Command | None]:
    """None for one that cannot be decoded."""
    for batch in batches:
        for logged in batch.records:
            try:
                yield wire.decode(logged.value)
            except DecodeError:
                yield None
