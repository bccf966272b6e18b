"""Submit, cancel, add time: from a request to a record that is durable. Ports only.

Whatever returns has been acknowledged by the log. `Unavailable` means that it is not known.
"""

from collections.abc import Callable, Iterable

from receive_app import rules
from soraka.commands import Commands, not_found
from soraka.config import ReceiveConfig
from soraka.errors import SorakaError, Unavailable
from soraka.message import Command, Message, Stored, Submission, Topic, id_time_ms
from soraka.ports import Clock, Log, Record, Store, StoreReader
from soraka.stats import Counted

BATCH_BUDGET_MS = 5_000
"""A batch over many topics begins no further one after this: no wait without end when each
topic takes its full deadline."""


class Ingress:
    """`topics` gives the settings of a topic, raising TopicNotFound or making it, `known_topics`
    never makes it; `encode` is `soraka.wire.encode`; `new_id` makes UUIDv7s; `early_ms` is that
    of the store; `why_denied` says where no callback may go."""

    def __init__(
        self,
        *,
        log: Log,
        store: Store,
        reader: StoreReader,
        topics: Callable[[str], Topic],
        known_topics: Callable[[str], Topic],
        clock: Clock,
        encode: Callable[[Message | Command], bytes],
        new_id: Callable[[], str],
        limits: ReceiveConfig,
        early_ms: int,
        why_denied: rules.WhyDenied = lambda _host: None,
        counted: Counted = lambda _topic, _name, _count: None,
    ) -> None:
        self._why_denied = why_denied
        self._counted = counted
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
            new_id=new_id,
            early_ms=early_ms,
            counted=counted,
        )

    def submit(self, submission: Submission) -> str:
        """The message id. Raises InvalidParams, TopicNotFound, Unavailable."""
        message = self._message(submission, self._topics)
        self._log.append(message.topic, [self._record(message)])
        self._counted(message.topic, "accepted", 1)
        return message.msg_id

    def submit_batch(self, items: Iterable[Submission | SorakaError]) -> list[str | SorakaError]:
        """For each item its message id or its error, in order; errors given pass through.

        One append per topic; when it fails, every message of that topic gets its error.
        """
        topics = _Memo(self._topics, self._clock)
        answers: list[str | SorakaError] = []
        groups: dict[str, tuple[list[int], list[Record]]] = {}
        for index, item in enumerate(items):
            accepted = self._accepted(item, topics)
            if isinstance(accepted, SorakaError):
                answers.append(accepted)
                continue
            answers.append(accepted.msg_id)
            indexes, records = groups.setdefault(accepted.topic, ([], []))
            indexes.append(index)
            records.append(self._record(accepted))
        for topic, (indexes, records) in groups.items():
            error = self._append_group(topic, records, topics)
            if error is not None:
                for index in indexes:
                    answers[index] = error
        return answers

    def cancel(self, topic: str, msg_id: str, command_id: str | None) -> None:
        """On return the message is called no more. Raises InvalidParams, TopicNotFound,
        MessageNotFound, TooLate, Unavailable."""
        self._commands.cancel(topic, msg_id, command_id)

    def add_time(self, topic: str, msg_id: str, add_ms: int, command_id: str | None) -> None:
        """Moves the due time later. Raises as `cancel`."""
        self._commands.add_time(topic, msg_id, add_ms, command_id)

    def get(self, msg_id: str) -> Stored:
        """Where a message is. Raises MessageNotFound, StoreUnavailable."""
        if id_time_ms(msg_id) is None:
            raise not_found()
        (stored,) = self._reader.get([msg_id])
        if stored is None:
            raise not_found()
        return stored

    def _message(self, submission: Submission, topics: Callable[[str], Topic]) -> Message:
        now = self._clock.now_ms()
        rules.check_submission(submission, self._limits, now, self._early_ms, self._why_denied)
        # last: this may create the topic
        topic = topics(submission.topic)
        retry_ms = submission.retry_ms
        return Message(
            msg_id=submission.msg_id or self._new_id(),
            topic=submission.topic,
            created_at=now,
            due_at=_due_at(submission, now),
            ttr_ms=submission.ttr_ms,
            callback=submission.callback,
            retry_ms=topic.retry_ms if retry_ms is None else retry_ms,
        )

    def _record(self, message: Message) -> Record:
        return Record(message.msg_id, self._encode(message))

    def _accepted(self, item: Submission | SorakaError, topics: "_Memo") -> Message | SorakaError:
        if isinstance(item, SorakaError):
            return item
        try:
            return self._message(item, topics)
        except SorakaError as exc:
            return exc

    def _append_group(
        self, topic: str, records: list[Record], topics: "_Memo"
    ) -> SorakaError | None:
        try:
            topics.check_time()
            self._log.append(topic, records)
        except SorakaError as exc:
            return exc
        self._counted(topic, "accepted", len(records))
        return None


class _Memo:
    """Topics of one batch: each is asked for once, errors included, within BATCH_BUDGET_MS."""

    def __init__(self, topics: Callable[[str], Topic], clock: Clock) -> None:
        self._topics = topics
        self._clock = clock
        self._until = clock.now_ms() + BATCH_BUDGET_MS
        self._known: dict[str, Topic | SorakaError] = {}

    def __call__(self, name: str) -> Topic:
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._ask(name)
        if isinstance(found, SorakaError):
            raise found.with_traceback(None)  # raised again and again: it would grow
        return found

    def check_time(self) -> None:
        """Raises Unavailable."""
        if self._clock.now_ms() > self._until:
            raise Unavailable("the batch took too long before it came to this topic")

    def _ask(self, name: str) -> Topic | SorakaError:
        try:
            self.check_time()
            return self._topics(name)
        except SorakaError as exc:
            return exc


def _due_at(submission: Submission, now_ms: int) -> int:
    """A deliver_at in the past means at once: it becomes now, so that lateness is ours."""
    if submission.delay_ms is not None:
        return now_ms + submission.delay_ms
    return max(submission.deliver_at or 0, now_ms)
