"""One member of a consumer group, over all topics with the prefix."""

import itertools
import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gevent.event import Event
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.future import Future

from soraka.adapters.kafka_client import logged, opened, partition_name, translated
from soraka.errors import LogUnavailable
from soraka.ports import Batch

log = logging.getLogger(__name__)

MAX_RECORDS = 50
"""Of Kafka; each may be a bundle, so in all up to 20,000 messages."""
CLOSE_MS = 2000
SPAN_MS = 5000
JOIN_MS = 2000
"""A poll in which the group is to be joined anew lasts up to that: kafka-python asks for metadata
first, and once more at the next poll when it took longer than this one. With a busy broker and
short polls no join ever began."""
SETTINGS = {
    "partition_assignment_strategy": [CooperativeStickyAssignor],
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    # A member that was killed loses its partitions after 6 s, one whose loop stands still after 60.
    "session_timeout_ms": 6000,
    "heartbeat_interval_ms": 1000,
    "max_poll_interval_ms": 60_000,
    "request_timeout_ms": 10_000,
    "max_poll_records": MAX_RECORDS,
    "fetch_max_bytes": 8 << 20,
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}


@dataclass(slots=True)
class _Owned:
    """A partition we were given. `position` is the next to poll, -1 as long as unknown;
    `joined` is False when the next batch need not follow on, because we went elsewhere."""

    epoch: int
    name: str
    topic_id: UUID | None
    position: int = -1
    joined: bool = False


class KafkaLogConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Partitions are named `<topic>/<number>@<topic id>`: a topic that was deleted and made again
    has others. The listener's methods run on the driver's greenlet and do no I/O."""

    def __init__(
        self,
        *,
        connection: Mapping[str, Any],
        group: str,
        topic_prefix: str,
        metadata_max_age_ms: int,
        timeout_ms: int,
        client_id: str,
    ) -> None:
        self._owned: dict[TopicPartition, _Owned] = {}
        self._epochs = itertools.count(1)
        self._to_commit: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._commit: Any = None
        self._closed = False
        with translated():
            self._consumer, network = opened(
                KafkaConsumer,
                **connection,
                group_id=group,
                client_id=client_id,
                metadata_max_age_ms=metadata_max_age_ms,
                bootstrap_timeout_ms=timeout_ms,
                **SETTINGS,
            )
            self._cluster = network.cluster
            _remember_joins(self._consumer._coordinator)
            self._consumer.subscribe(pattern=f"^{re.escape(topic_prefix)}.*", listener=self)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        for tp in assigned:
            self._own(tp)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        for tp in revoked:
            self._owned.pop(tp, None)
            self._to_commit.pop(tp, None)
            self._committed.pop(tp, None)

    def poll(self, timeout_ms: int) -> Sequence[Batch]:
        if self._closed:
            raise LogUnavailable("closed")
        self._send_commit()
        with translated():
            joins = self._joins()
            fetched = self._consumer.poll(timeout_ms=max(timeout_ms, JOIN_MS if joins else 0))
            for tp in self._made_anew():
                # What we hold of it may come of either topic: read the new one from its start.
                self._own(tp)
                self._consumer.seek_to_beginning(tp)
                fetched.pop(tp, None)
        batches = (self._batch(tp, records) for tp, records in fetched.items())
        return [batch for batch in batches if batch is not None]

    def assigned(self) -> Mapping[str, int]:
        return {owned.name: owned.epoch for owned in self._owned.values()}

    def span(self, partition: str) -> tuple[int, int]:
        found = [tp for tp, owned in self._owned.items() if owned.name == partition]
        if not found:
            raise LogUnavailable(f"{partition} is assigned no longer")
        with translated():
            oldest = self._consumer.beginning_offsets(found, timeout_ms=SPAN_MS)
            end = self._consumer.end_offsets(found, timeout_ms=SPAN_MS)
        return oldest[found[0]], end[found[0]]

    def seek(self, partition: str, position: int) -> None:
        for tp, owned in self._owned.items():
            if owned.name == partition:
                with suppress(ValueError):  # taken away this moment
                    self._consumer.seek(tp, max(0, position))
                owned.position, owned.joined = max(0, position), False

    def commit(self, positions: Mapping[str, int]) -> None:
        for tp, owned in self._owned.items():
            position = positions.get(owned.name, -1)
            if position >= 0 and self._committed.get(tp) != position:
                self._to_commit[tp] = self._committed[tp] = position
        self._send_commit()

    def lag(self) -> int:
        total = 0
        for tp, owned in list(self._owned.items()):
            with suppress(KafkaError):
                end = self._consumer.highwater(tp)
                if end is not None and owned.position >= 0:
                    total += max(0, end - owned.position)
        return total

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._flush_commits()
        try:
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)
        except KafkaError as exc:
            log.warning("kafka.close_failed", extra={"reason": repr(exc)})

    def _joins(self) -> bool:
        """Whether the next poll has a join to begin or to end.

        kafka-python 3.0.12 forgets a join that a new topic had it begin when the poll ends before
        the join does: it then waits for nothing, out of the group, for ever.
        """
        coordinator = self._consumer._coordinator
        if coordinator.rejoining:
            coordinator.request_rejoin()
        return bool(coordinator.need_rejoin())

    def _made_anew(self) -> list[TopicPartition]:
        """Partitions of topics that were deleted and made again."""
        return [
            tp
            for tp, owned in self._owned.items()
            if self._cluster.topic_id(tp.topic) not in (None, owned.topic_id)
        ]

    def _own(self, tp: TopicPartition) -> _Owned:
        topic_id = self._cluster.topic_id(tp.topic)
        owned = _Owned(next(self._epochs), partition_name(tp, topic_id), topic_id)
        self._owned[tp] = owned
        return owned

    def _batch(self, tp: TopicPartition, records: Sequence[Any]) -> Batch | None:
        owned = self._owned.get(tp)
        if owned is None:
            return None
        first, last = records[0].offset, records[-1].offset
        if owned.joined and first != owned.position:
            owned.epoch = next(self._epochs)
        owned.position, owned.joined = last + 1, True
        return Batch(owned.name, owned.epoch, logged(records))

    def _send_commit(self) -> None:
        """One request at a time; what comes meanwhile goes together into the next."""
        if not self._to_commit or self._commit is not None:
            return
        offsets = {
            tp: OffsetAndMetadata(position + 1, "", -1) for tp, position in self._to_commit.items()
        }
        self._to_commit = {}
        try:
            self._commit = self._consumer.commit_async(offsets)
        except KafkaError as exc:
            self._commit_done(exc)
        else:
            self._commit.add_both(self._commit_done)

    def _commit_done(self, answer: object) -> None:
        self._commit = None
        if isinstance(answer, Exception):
            self._committed.clear()
            log.info("kafka.commit_failed", extra={"reason": repr(answer)})

    def _flush_commits(self) -> None:
        deadline = time.monotonic() + CLOSE_MS / 1000
        while (self._commit is not None or self._to_commit) and time.monotonic() < deadline:
            self._send_commit()
            if self._commit is not None:
                answered = Event()
                self._commit.add_both(lambda _, event=answered: event.set())
                answered.wait(max(0.0, deadline - time.monotonic()))


def _remember_joins(coordinator: Any) -> None:
    """Hands a join that completed between two polls to the next poll, as if it came just now.

    kafka-python 3.0.12 forgets it and joins once more, for which every other member has to join
    again, too: with a few members busy between their polls the rebalancing never ends.
    """
    join_group = coordinator.join_group_async

    async def join_group_async(timeout_ms: float | None = None) -> Any:
        done = coordinator._join_task
        if done is not None and done.succeeded():
            coordinator._join_task = under_way = Future()
            coordinator._net.call_soon(lambda: under_way.success(done.value))
        return await join_group(timeout_ms=timeout_ms)

    coordinator.join_group_async = join_group_async
