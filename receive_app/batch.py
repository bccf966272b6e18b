"""What a batch needs while it is being accepted: its topics once each, and a bound in time."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from soraka.errors import SorakaError, Unavailable
from soraka.message import Message, Submission, Topic
from soraka.ports import Clock, Record

BATCH_BUDGET_MS = 5_000
"""A batch over many topics begins no further one after this: no wait without end when each
topic takes its full deadline."""


class Accepted(Struct, frozen=True, gc=False):
    """What was asked for, and the message made of it. `append`: its record is yet to go into the
    log."""

    submission: Submission
    topic: Topic
    message: Message
    record: Record
    append: bool = True


def to_append(answers: Sequence[Accepted | SorakaError]) -> dict[str, dict[int, Record]]:
    """Topic -> index -> record of those that are yet to go into its log."""
    by_topic: dict[str, dict[int, Record]] = {}
    for index, answer in enumerate(answers):
        if not isinstance(answer, SorakaError) and answer.append:
            by_topic.setdefault(answer.submission.topic, {})[index] = answer.record
    return by_topic


class TopicMemo:
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
