"""From the log to the store: read, schedule, deliver, commit, in that order."""

import dataclasses
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import gevent

from center.workers import Workers
from soraka import wire
from soraka.errors import BodyTooLarge, DecodeError, Gap, StoreUnavailable
from soraka.message import Message
from soraka.metrics import Metrics
from soraka.ports import (
    Batch,
    Clock,
    Consumer,
    DueId,
    Entry,
    FullStore,
    Log,
    Logged,
    NewCommand,
    NewMessage,
    Record,
)

log = logging.getLogger(__name__)

POLL_MS = 200
SPACING_S = 0.01
"""Between two polls when one found something and has left little: more comes in one batch."""
BUSY_SPACING_S = 0.025
BUSY = 25
"""Messages in one poll, from which on it is longer, as long as none of them falls due soon."""
SOON_MS = 100
AT_ONCE = 250
"""Messages, or more up to the end of a bundle: 3 to 5 ms of Redis, in which claims wait."""
CHECK_EVERY_S = 1.0
CHECKED_AT_ONCE = 50
"""Partitions whose positions are read in one check: with more, they take turns."""
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
        group: str,
        consumer: Consumer,
        store: FullStore,
        workers: Workers,
        clock: Clock,
        metrics: Metrics,
        horizon_ms: int,
    ) -> None:
        self._log = log
        self._group = group
        self._consumer = consumer
        self._store = store
        self._workers = workers
        self._clock = clock
        self._metrics = metrics
        self._horizon_ms = horizon_ms
        self._read: dict[str, _Read] = {}
        self._checked_at = time.monotonic()
        self._unchecked: list[str] = []
        self._committed: Mapping[str, int] | None = None

    def turn(self) -> None:
        """One poll and what comes of it. Raises Unavailable; nothing is lost then."""
        # what came before its partition is begun is dropped: beginning it goes back for it
        batches = [b for b in self._consumer.poll(POLL_MS) if self._has_begun(b)]
        began = time.monotonic()
        self._committed = None
        near: dict[str, list[DueId]] = defaultdict(list)
        taken = 0
        try:
            self._follow_assignment()
            try:
                for batch in batches:
                    self._take(batch, near)
                    taken += 1
            finally:
                self._workers.deliver(near)
            self._check_now_and_then()
        except StoreUnavailable as exc:
            log.warning("store.unavailable", extra={"reason": str(exc)})
            self._go_back_to(batches[taken:])
            gevent.sleep(BACK_OFF_S)
        except BaseException:
            self._go_back_to(batches[taken:])
            raise
        lag = self._consumer.lag()
        self._metrics.log_lag.set(lag)
        if batches and lag < BUSY:
            found = sum(len(batch.records) for batch in batches)
            is_long = found >= BUSY and not self._any_soon(near)
            spacing_s = BUSY_SPACING_S if is_long else SPACING_S
            gevent.sleep(max(0.0, began + spacing_s - time.monotonic()))

    def _any_soon(self, near: Mapping[str, Sequence[DueId]]) -> bool:
        until = self._clock.now_ms() + SOON_MS
        return any(due.due_at < until for ids in near.values() for due in ids)

    def commit(self) -> None:
        """Every shard stands at or after what is committed."""
        self._consumer.commit({p: min(read.positions) for p, read in self._read.items()})

    def _go_back_to(self, batches: Sequence[Batch]) -> None:
        """They were polled but not taken: the next poll must begin with them again."""
        for batch in batches:
            self._consumer.seek(batch.partition, batch.records[0].position)

    # ------------------------------------------------------------------ where to read

    def _has_begun(self, batch: Batch) -> bool:
        read = self._read.get(batch.partition)
        return read is not None and read.epoch == batch.epoch

    def _follow_assignment(self) -> None:
        assigned = self._consumer.assigned()
        for partition in self._read.keys() - assigned.keys():
            del self._read[partition]
        for partition, epoch in assigned.items():
            read = self._read.get(partition)
            if read is None or read.epoch != epoch:
                self._begin(partition, epoch)

    def _begin(self, partition: str, epoch: int) -> None:
        """Reads on where the store stands. Within one epoch the log then goes on without a hole."""
        positions = self._store.positions(partition)
        oldest, end = self._consumer.span(partition)
        if -1 in positions and end > 0:  # of a new partition there is nothing to have lost
            positions = self._standing(partition, positions)
            oldest, end = self._consumer.span(partition)
        if max(positions) >= end:
            log.error(
                "log.lost_its_tail",
                extra={"partition": partition, "end": end, "store": max(positions)},
            )
            self._store.rewind(partition, end - 1)
            positions = self._store.positions(partition)
        start = min(positions) + 1
        if start < oldest and positions != (-1,) * len(positions):
            log.error(
                "log.lost_its_head", extra={"partition": partition, "positions": oldest - start}
            )
        self._consumer.seek(partition, start)
        self._read[partition] = _Read(epoch, positions)
        log.info("partition.assigned", extra={"partition": partition, "position": start})

    def _standing(self, partition: str, positions: tuple[int, ...]) -> tuple[int, ...]:
        """Where the shards stand, once those that have lost everything have adopted what the group
        committed: what they held is not to be called again on its own account."""
        if -1 not in positions:
            return positions
        if self._committed is None:  # asked once a turn: it takes a third of a second
            self._committed = self._log.committed(self._group)
        emptied = self._store.adopt(self._committed)
        if not emptied:
            return positions
        self._metrics.emptied.inc(emptied)
        log.error(
            "store.was_emptied",
            extra={
                "shards": emptied,
                "reason": "what was pending there is gone; `soraka rebuild --since` reads it again",
            },
        )
        return self._store.positions(partition)

    def look_again(self) -> None:
        """The store has restarted: the next turn looks at all positions."""
        self._checked_at = -CHECK_EVERY_S
        self._unchecked = list(self._read)

    def _check_now_and_then(self) -> None:
        """Commits, and looks whether the store has lost its tail: on a quiet partition no batch
        would tell."""
        if time.monotonic() - self._checked_at < CHECK_EVERY_S:
            return
        self._checked_at = time.monotonic()
        self.commit()
        self._unchecked = [p for p in self._unchecked if p in self._read] or list(self._read)
        now, self._unchecked = (
            self._unchecked[:CHECKED_AT_ONCE],
            self._unchecked[CHECKED_AT_ONCE:],
        )
        for partition in now:
            positions = self._store.positions(partition)
            known = self._read[partition].positions
            if any(stands < was for stands, was in zip(positions, known, strict=True)):
                self._go_back(Gap(partition, positions))

    def _go_back(self, gap: Gap) -> None:
        self._metrics.gaps.inc()
        log.warning("store.gap", extra={"partition": gap.partition, "reason": str(gap)})
        positions = self._standing(gap.partition, gap.positions)
        self._read[gap.partition].positions = positions
        self._consumer.seek(gap.partition, min(positions) + 1)

    # ------------------------------------------------------------------ a batch

    def _take(self, batch: Batch, near: dict[str, list[DueId]]) -> None:
        """Adds to `near` what falls due soon, by the worker that has it."""
        if not self._has_begun(batch):
            return  # taken away by now
        for records in _parts(batch.records):
            try:
                self._schedule(dataclasses.replace(batch, records=records), near)
            except Gap as gap:
                self._go_back(gap)
                return

    def _schedule(self, batch: Batch, near: dict[str, list[DueId]]) -> None:
        read = self._read[batch.partition]
        entries = self._entries(batch)
        read.positions = self._store.schedule(batch.partition, read.positions, batch.last, entries)
        self._metrics.scheduled.inc(len(entries))
        until = self._clock.now_ms() + self._horizon_ms
        for entry in entries:
            if isinstance(entry, NewMessage) and entry.message.due_at < until:
                near[entry.owner].append(DueId(entry.message.due_at, entry.message.msg_id))

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
            self._put_aside(bad)
        return entries

    def _put_aside(self, bad: Sequence[Record]) -> None:
        self._metrics.undecodable.inc(len(bad))
        try:
            self._log.append_dead_letter(bad)
            return
        except BodyTooLarge:  # one of them
            pass
        for record in bad:
            try:
                self._log.append_dead_letter([record])
            except BodyTooLarge as exc:  # it stays where it is, and was logged with its position
                log.error("record.too_large", extra={"key": record.key, "reason": str(exc)})


def _parts(records: Sequence[Logged]) -> Iterator[Sequence[Logged]]:
    """AT_ONCE, or more where those at the end share a position."""
    start = 0
    while start < len(records):
        end = min(start + AT_ONCE, len(records))
        while end < len(records) and records[end].position == records[end - 1].position:
            end += 1
        yield records[start:end]
        start = end


def _entry(logged: Logged, choose: Callable[[str], str]) -> Entry:
    record = wire.decode(logged.value)
    if isinstance(record, Message):
        return NewMessage(logged.position, record, choose(record.topic))
    return NewCommand(logged.position, record)
