"""Commands on messages: appended to the log, then applied to the store. Ports only.

Whatever returns has been acknowledged by the log. `Unavailable` means that it is not known: send
it again with the same command id.

MessageNotFound is certain while center is less than `early_ms` behind the log. Further behind, a
command on a message that old and still unread gets it too: nothing here tells such an id from a
bogus one.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

from soraka.errors import (
    DelayTooLong,
    InvalidParams,
    MessageNotFound,
    SorakaError,
    TooLate,
)
from soraka.limits import MAX_DELAY_MS
from soraka.message import ID_AHEAD_MS, Command, CommandKind, Message, Topic, id_time_ms
from soraka.ports import Clock, Log, Record, Store, StoreReader, Verdict
from soraka.stats import Counted

_COUNTED = {CommandKind.CANCEL: "cancelled", CommandKind.ADD_TIME: "postponed"}
LATELY = 10_000
"""Commands that were counted and are not counted again."""
_COMMAND_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_command_id(command_id: str) -> None:
    """Raises InvalidParams, field `command_id`."""
    if not _COMMAND_ID.fullmatch(command_id):
        raise InvalidParams("command_id", "must be 1 to 64 of the characters A-Z a-z 0-9 _ -")


def check_delay(field: str, ms: int, *, least: int) -> None:
    """Raises InvalidParams, DelayTooLong."""
    if ms < least:
        raise InvalidParams(field, f"must be at least {least} ms")
    if ms > MAX_DELAY_MS:
        raise DelayTooLong(field, f"must be at most {MAX_DELAY_MS} ms (7 days)")


class Commands:
    """`known_topics` gives the settings of a topic or raises TopicNotFound; `encode` is
    `soraka.wire.encode`; `new_id` makes ids of commands; `early_ms` is that of the store."""

    def __init__(
        self,
        *,
        log: Log,
        store: Store,
        reader: StoreReader,
        known_topics: Callable[[str], Topic],
        clock: Clock,
        encode: Callable[[Message | Command], bytes],
        new_id: Callable[[], str],
        early_ms: int,
        counted: Counted = lambda _topic, _name, _count: None,
    ) -> None:
        self._counted = counted
        self._lately: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._log = log
        self._store = store
        self._reader = reader
        self._known_topics = known_topics
        self._clock = clock
        self._encode = encode
        self._new_id = new_id
        self._early_ms = early_ms

    def cancel(self, topic: str, msg_id: str, command_id: str | None = None) -> None:
        """On return the message is called no more. Raises InvalidParams, TopicNotFound,
        MessageNotFound, TooLate, Unavailable."""
        self._one(CommandKind.CANCEL, topic, msg_id, command_id)

    def add_time(self, topic: str, msg_id: str, add_ms: int, command_id: str | None = None) -> None:
        """Moves the due time later. Raises as `cancel`."""
        check_delay("add_time", add_ms, least=1)
        self._one(CommandKind.ADD_TIME, topic, msg_id, command_id, add_ms)

    def fire_now(self, topic: str, msg_id: str, command_id: str | None = None) -> None:
        """Moves the due time to now. Raises as `cancel`."""
        self._one(CommandKind.FIRE_NOW, topic, msg_id, command_id)

    def redrive(self, topic: str, msg_id: str, command_id: str | None = None) -> None:
        """Has a dead letter called again, with all its retries. Raises as `cancel`; TooLate when
        it is not dead."""
        self._one(CommandKind.REDRIVE, topic, msg_id, command_id)

    def send(self, commands: Sequence[Command]) -> list[SorakaError | None]:
        """One answer each, in order: None when it holds, else why not. The messages were seen in
        the store just before, so nothing is looked up. Raises Unavailable: some may hold."""
        answers: list[SorakaError | None] = [None] * len(commands)
        by_topic: dict[str, list[int]] = {}
        for index, command in enumerate(commands):
            by_topic.setdefault(command.topic, []).append(index)
        logged: list[int] = []
        for topic, indexes in by_topic.items():
            error = self._append([commands[index] for index in indexes], topic)
            if error is None:
                logged += indexes
            for index in indexes:
                answers[index] = error
        logged.sort()
        verdicts = self._store.command([commands[index] for index in logged])
        for index, verdict in zip(logged, verdicts, strict=True):
            answers[index] = _refusal(commands[index].kind, verdict)
            if answers[index] is None:
                self._count(commands[index])
        return answers

    def _count(self, command: Command) -> None:
        """Once, however often it is sent to this process; its verdict tells nothing of that."""
        name, key = _COUNTED.get(command.kind), (command.msg_id, command.command_id)
        if name is None or key in self._lately:
            return
        self._lately[key] = None
        if len(self._lately) > LATELY:
            self._lately.popitem(last=False)
        self._counted(command.topic, name, 1)

    def _append(self, commands: Sequence[Command], topic: str) -> SorakaError | None:
        try:
            self._known_topics(topic)
        except SorakaError as exc:
            return exc
        self._log.append(topic, [Record(c.msg_id, self._encode(c)) for c in commands])
        return None

    def _one(
        self, kind: CommandKind, topic: str, msg_id: str, command_id: str | None, add_ms: int = 0
    ) -> None:
        if command_id is None:
            command_id = self._new_id()
        check_command_id(command_id)
        self._known_topics(topic)
        self._refuse_impossible(msg_id)
        command = Command(
            command_id=command_id, msg_id=msg_id, topic=topic, kind=kind, add_ms=add_ms
        )
        self._log.append(topic, [Record(msg_id, self._encode(command))])
        refusal = _refusal(kind, self._store.command([command])[0])
        if refusal is not None:
            raise refusal
        self._count(command)

    def _refuse_impossible(self, msg_id: str) -> None:
        """Keeps commands that cannot find their message out of the log.

        Such are ids that are none or lie ahead of any that is accepted, and ids older than the
        early window which the store does not know: it would answer NOT_FOUND to them anyway.
        """
        made_at, now = id_time_ms(msg_id), self._clock.now_ms()
        if made_at is None or made_at > now + ID_AHEAD_MS:
            raise not_found()
        if made_at < now - self._early_ms and self._reader.get([msg_id]) == [None]:
            raise not_found()


def _refusal(kind: CommandKind, verdict: Verdict) -> SorakaError | None:
    if verdict is Verdict.TOO_LATE:
        if kind is CommandKind.REDRIVE:
            return TooLate("too late: it is not a dead letter, or no longer")
        return TooLate("too late: it is being called, was called, was cancelled, or is dead")
    return not_found() if verdict is Verdict.NOT_FOUND else None


def not_found() -> MessageNotFound:
    return MessageNotFound("msg_id: no such message, or its retention has passed")
