"""From the log to the store: read, schedule, deliver, commit, in that order."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gevent

from center.workers import Workers
from soraka import wire
from soraka.errors import DecodeError, Gap, StoreUnavailable
from soraka.message import Message
from soraka.metrics import Metrics
from soraka.ports import (
    Batch,
    Clock,
    Consumer,
    DueId,
    Entry,
    Log,
    Logged,
    NewCommand,
    NewMessage,
    Record,
    Store,
)

log = logging.getLogger(__name__)

POLL_MS = 200
COMMIT_EVERY_S = 1.0
BACK_OFF_S = 0.5


@dataclass(slots=True)
class _Read:
    """How far the store has read one partition, as far as this center knows."""

    epoch: int
    positions: tuple[int, ...]


class Consume:
    """One consumer. The store's own positions say where to go on; commits are a hint only."""

    def __init__(
        self,
        *,
        log: Log,
        consumer: Consumer,
        store: Store,
        workers: Workers,
        clock: Clock,
        metrics: Metrics,
        horizon_ms: int,
    ) -> None:
        self._log = log
        self._consumer = consumer
        self._store = store
        self._workers = workers
        self._clock = clock
        self._metrics = metrics
        self._horizon_ms = horizon_ms
        self._read: dict[str, _Read] = {}
        self._committed_at = time.monotonic()

    def turn(self) -> None:
        """One poll and what comes of it. Raises LogUnavailable; nothing is lost then."""
        for batch in self._consumer.poll(POLL_MS):
            self._guarded(batch)
        self._metrics.log_lag.set(self._consumer.lag())
        if time.monotonic() - self._committed_at >= COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Every shard stands at or after what is committed."""
        self._consumer.commit({p: min(read.positions) for p, read in self._read.items()})
        self._committed_at = time.monotonic()

    def _guarded(self, batch: Batch) -> None:
        first = batch.records[0].position
        try:
            self._take(batch)
        except Gap as gap:
            self._metrics.gaps.inc()
            log.warning("store.gap", extra={"partition": batch.partition, "reason": str(gap)})
            self._read[batch.partition].positions = gap.positions
            self._consumer.seek(batch.partition, min(gap.positions) + 1)
        except StoreUnavailable as exc:
            log.warning("store.unavailable", extra={"reason": str(exc)})
            self._consumer.seek(batch.partition, first)
            gevent.sleep(BACK_OFF_S)
        except BaseException:
            self._consumer.seek(batch.partition, first)
            raise

    def _take(self, batch: Batch) -> None:
        if not self._joins_on(batch):
            return
        read = self._read[batch.partition]
        entries = self._entries(batch)
        read.positions = self._store.schedule(batch.partition, read.positions, batch.last, entries)
        self._metrics.scheduled.inc(len(entries))
        self._deliver(entries)

    def _joins_on(self, batch: Batch) -> bool:
        """False when the store must read something before this batch, and we went back for it.

        Asked once for each epoch: within one, the log goes on without a hole.
        """
        read = self._read.get(batch.partition)
        if read is not None and read.epoch == batch.epoch:
            return True
        positions = self._store.positions(batch.partition)
        self._read[batch.partition] = _Read(batch.epoch, positions)
        start = min(positions) + 1
        log.info("partition.assigned", extra={"partition": batch.partition, "position": start})
        if start >= batch.records[0].position:
            return True
        self._consumer.seek(batch.partition, start)
        return False

    def _entries(self, batch: Batch) -> list[Entry]:
        entries: list[Entry] = []
        bad: list[Record] = []
        for logged in batch.records:
            try:
                entries.append(_entry(logged, self._workers.choose))
            except DecodeError as exc:
                bad.append(Record(logged.key, logged.value))
                log.error(
                    "record.undecodable",
                    extra={
                        "partition": batch.partition,
                        "position": logged.position,
                        "reason": str(exc),
                    },
                )
        if bad:
            self._log.append_dead_letter(bad)
            self._metrics.undecodable.inc(len(bad))
        return entries

    def _deliver(self, entries: Sequence[Entry]) -> None:
        until = self._clock.now_ms() + self._horizon_ms
        near: dict[str, list[DueId]] = defaultdict(list)
        for entry in entries:
            if isinstance(entry, NewMessage) and entry.message.due_at < until:
                near[entry.owner].append(DueId(entry.message.due_at, entry.message.msg_id))
        self._workers.deliver(near)


def _entry(logged: Logged, choose: Callable[[str], str]) -> Entry:
    record = wire.decode(logged.value)
    if isinstance(record, Message):
        return NewMessage(logged.position, record, choose(record.topic), logged.value)
    return NewCommand(logged.position, record)
