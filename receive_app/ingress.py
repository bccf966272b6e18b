"""Submit, cancel, add time: from a request to a record that is durable. Ports only.

Whatever returns has been acknowledged by the log. `Unavailable` means that it is not known.
"""

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from receive_app import rules
from receive_app.access import ANYONE, Caller
from receive_app.batch import Accepted, TopicMemo, to_append
from receive_app.keys import Given, Keyed, Keys
from soraka.commands import Commands, not_found
from soraka.config import ReceiveConfig
from soraka.errors import SorakaError, Unavailable
from soraka.message import Command, Message, Stored, Submission, Topic, id_time_ms
from soraka.ports import Clock, Log, Record, Store, StoreReader
from soraka.stats import Counted
from soraka.tokens import Right
from soraka.topics import check_name, delays_of


class Ingress:
    """`topics` gives the settings of a topic, raising TopicNotFound or making it, `known_topics`
    never makes it; `encode` is `soraka.wire.encode`; `new_id` makes UUIDv7s of a moment;
    `early_ms` is that of the store; `why_denied` says where no callback may go."""

    def __init__(
        self,
        *,
        log: Log,
        store: Store,
        reader: StoreReader,
        keys: Keys,
        topics: Callable[[str], Topic],
        known_topics: Callable[[str], Topic],
        clock: Clock,
        encode: Callable[[Message | Command], bytes],
        new_id: Callable[[int], str],
        limits: ReceiveConfig,
        early_ms: int,
        why_denied: rules.WhyDenied = lambda _host: None,
        counted: Counted = lambda _topic, _name, _count: None,
    ) -> None:
        self._why_denied = why_denied
        self._counted = counted
        self._keys = keys
        self._log = log
        self._reader = reader
        self._topics = topics
        self._clock = clock
        self._encode = encode
        self._new_id = new_id
        self._limits = limits
        self._early_ms = early_ms
        self._commands = Commands(
            log=log,
            store=store,
            reader=reader,
            known_topics=known_topics,
            clock=clock,
            encode=encode,
            new_id=lambda: new_id(clock.now_ms()),
            early_ms=early_ms,
            counted=counted,
        )

    def submit(self, submission: Submission, caller: Caller = ANYONE) -> str:
        """The message id. Raises InvalidParams, NotAllowed, TopicNotFound, KeyReused,
        Unavailable."""
        accepted = self._accept(submission, self._topics, caller, self._clock.now_ms())
        if submission.idempotency_key is not None:
            (found,) = self._with_keys([accepted], caller)
            if isinstance(found, SorakaError):
                raise found
            accepted = found
        if accepted.append:
            self._log.append(submission.topic, [accepted.record])
            self._counted(submission.topic, "accepted", 1)
        return accepted.record.key

    def submit_batch(
        self, items: Iterable[Submission | SorakaError], caller: Caller = ANYONE
    ) -> list[str | SorakaError]:
        """For each item its message id or its error, in order; errors given pass through.

        Delays count from one moment. One append per topic; when it fails, every message of that
        topic gets its error.
        """
        topics, now = TopicMemo(self._topics, self._clock), self._clock.now_ms()
        answers = [self._accepted(item, topics, caller, now) for item in items]
        self._use_keys(answers, caller)
        for topic, records in to_append(answers).items():
            error = self._append_group(topic, list(records.values()), topics)
            if error is not None:
                for index in records:
                    answers[index] = error
        return [a if isinstance(a, SorakaError) else a.record.key for a in answers]

    def cancel(
        self, topic: str, msg_id: str, command_id: str | None, caller: Caller = ANYONE
    ) -> None:
        """On return the message is called no more. Raises InvalidParams, NotAllowed,
        TopicNotFound, MessageNotFound, TooLate, Unavailable."""
        self._check_command(topic, caller)
        self._commands.cancel(topic, msg_id, command_id)

    def add_time(
        self,
        topic: str,
        msg_id: str,
        add_ms: int,
        command_id: str | None,
        caller: Caller = ANYONE,
    ) -> None:
        """Moves the due time later. Raises as `cancel`."""
        self._check_command(topic, caller)
        self._commands.add_time(topic, msg_id, add_ms, command_id)

    def get(self, msg_id: str, caller: Caller = ANYONE) -> Stored:
        """Where a message is. Raises MessageNotFound, NotAllowed, StoreUnavailable."""
        if id_time_ms(msg_id) is None:
            raise not_found()
        (stored,) = self._reader.get([msg_id])
        if stored is None:
            raise not_found()
        caller.check(Right.READ, stored.message.topic)
        return stored

    def _check_command(self, topic: str, caller: Caller) -> None:
        check_name(topic)
        caller.check(Right.COMMAND, topic)

    def _accept(
        self, submission: Submission, topics: Callable[[str], Topic], caller: Caller, now: int
    ) -> Accepted:
        rules.check_submission(submission, self._limits, now, self._early_ms, self._why_denied)
        caller.check(Right.SUBMIT, submission.topic)
        # last: this may create the topic
        topic = topics(submission.topic)
        retry_ms = submission.retry_ms
        message = Message(
            msg_id=submission.msg_id or self._new_id(now),
            topic=submission.topic,
            created_at=now,
            due_at=_due_at(submission, now),
            ttr_ms=submission.ttr_ms,
            callback=submission.callback,
            retry_ms=delays_of(topic.name, topic.retry_ms) if retry_ms is None else retry_ms,
        )
        return Accepted(submission, topic, message, self._record(message))

    def _accepted(
        self, item: Submission | SorakaError, topics: TopicMemo, caller: Caller, now: int
    ) -> Accepted | SorakaError:
        if isinstance(item, SorakaError):
            return item
        try:
            return self._accept(item, topics, caller, now)
        except SorakaError as exc:
            return exc

    def _record(self, message: Message) -> Record:
        return Record(message.msg_id, self._encode(message))

    def _use_keys(self, answers: list[Accepted | SorakaError], caller: Caller) -> None:
        """Replaces those that have an idempotency key by what that stands for."""
        keyed = {
            index: a
            for index, a in enumerate(answers)
            if not isinstance(a, SorakaError) and a.submission.idempotency_key is not None
        }
        if not keyed:
            return
        found: Sequence[Accepted | SorakaError]
        try:
            found = self._with_keys(list(keyed.values()), caller)
        except Unavailable as exc:
            found = [exc] * len(keyed)
        for index, answer in zip(keyed, found, strict=True):
            answers[index] = answer

    def _with_keys(self, keyed: Sequence[Accepted], caller: Caller) -> list[Accepted | SorakaError]:
        """One for each, in order: with the id that its key stands for. Raises StoreUnavailable."""
        asked = [Keyed(a.submission, a.topic, a.record.key) for a in keyed]
        given = self._keys.give(caller.name, asked)
        return [self._with_id(a, g) for a, g in zip(keyed, given, strict=True)]

    def _with_id(self, asked: Accepted, given: Given | SorakaError) -> Accepted | SorakaError:
        if isinstance(given, SorakaError):
            return given
        record = asked.record
        if given.msg_id != record.key:
            record = self._record(replace(asked.message, msg_id=given.msg_id))
        return replace(asked, record=record, append=given.append)

    def _append_group(
        self, topic: str, records: list[Record], topics: TopicMemo
    ) -> SorakaError | None:
        try:
            topics.check_time()
            self._log.append(topic, records)
        except SorakaError as exc:
            # with it, the bodies would be in a cycle: it has our frame, and our caller's has it
            return exc.with_traceback(None)
        self._counted(topic, "accepted", len(records))
        return None


def _due_at(submission: Submission, now_ms: int) -> int:
    """A deliver_at in the past means at once: it becomes now, so that lateness is ours."""
    if submission.delay_ms is not None:
        return now_ms + submission.delay_ms
    return max(submission.deliver_at or 0, now_ms)
