"""The Log in one SQLite file, for a single process.

All topics share one table and one partition; the position is its rowid, which AUTOINCREMENT never
gives twice. There is nothing to share out either: every consumer reads everything.
"""

import logging
import sqlite3
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from gevent.event import Event

from soraka.adapters.sqlite_thread import SqliteThread
from soraka.errors import LogUnavailable, TopicNotFound
from soraka.ports import Batch, Consumer, Logged, Record

log = logging.getLogger(__name__)

LAYOUT = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS log_id (id TEXT NOT NULL);
INSERT INTO log_id SELECT lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT 1 FROM log_id);
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, value BLOB NOT NULL, appended_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS dead_letters (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, value BLOB NOT NULL, appended_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS committed (
    consumer_group TEXT PRIMARY KEY, position INTEGER NOT NULL
) WITHOUT ROWID;
"""
APPEND = "INSERT INTO records (key, value, appended_at) VALUES (?, ?, ?)"
APPEND_DEAD_LETTER = "INSERT INTO dead_letters (key, value, appended_at) VALUES (?, ?, ?)"
READ = "SELECT position, key, value FROM records WHERE position >= ? ORDER BY position LIMIT ?"
SINCE = "SELECT min(position) FROM records WHERE appended_at >= ?"
COMMITTED = "SELECT position FROM committed WHERE consumer_group = ?"
COMMIT = """
INSERT INTO committed VALUES (?, ?)
ON CONFLICT (consumer_group) DO UPDATE SET position = excluded.position
"""
# Only the oldest are looked at: a scan that found few old ones would hold up the appends.
EXPIRE = """
DELETE FROM records WHERE appended_at < :cutoff AND position IN (
    SELECT position FROM records WHERE position <= (SELECT min(position) FROM committed)
    ORDER BY position LIMIT :chunk
)
"""
EXPIRE_DEAD_LETTERS = """
DELETE FROM dead_letters WHERE appended_at < :cutoff AND position IN (
    SELECT position FROM dead_letters ORDER BY position LIMIT :chunk
)
"""
MAX_RECORDS = 1000
MAX_BYTES = 8 << 20
CHUNK = 1000
MAX_CHUNKS = 50
"""Deleted in one commit at the most."""
RECORD_OVERHEAD = 200
"""Bytes that Python holds for a waiting record besides its key and value."""


class SqliteLog:
    """`retention_ms` counts from the append; what a group has not committed is kept longer."""

    def __init__(
        self, *, path: Path, retention_ms: int, append_timeout_ms: int, max_inflight_bytes: int
    ) -> None:
        self._retention_ms = retention_ms
        self._max_inflight_bytes = max_inflight_bytes
        self._inflight_bytes = 0
        self._dropped: deque[int] = deque()
        self._consumers: weakref.WeakSet[SqliteLogConsumer] = weakref.WeakSet()
        self._thread = SqliteThread(
            path,
            schema=SCHEMA,
            layout=LAYOUT,
            synchronous="FULL",
            unavailable=LogUnavailable,
            timeout_ms=append_timeout_ms,
        )
        self.last, log_id, self._topics = self._thread.run(_state)
        self.partition = f"log@{log_id}"

    def create_topic(self, topic: str) -> None:
        self._thread.run(
            lambda db: db.execute("INSERT OR IGNORE INTO topics VALUES (?)", (topic,)).rowcount
        )
        self._topics.add(topic)

    def append(self, topic: str, records: Sequence[Record]) -> None:
        if topic not in self._topics:
            raise TopicNotFound(topic)
        if records:
            self.last = max(self.last, self._insert(APPEND, records))
            for consumer in list(self._consumers):
                consumer.wake()

    def append_dead_letter(self, records: Sequence[Record]) -> None:
        if records:
            self._insert(APPEND_DEAD_LETTER, records)

    def consumer(self, group: str) -> Consumer:
        made = SqliteLogConsumer(self, self._thread, group, self._retention_ms)
        self._consumers.add(made)
        return made

    def spans(self) -> Mapping[str, tuple[int, int]]:
        return {self.partition: self._thread.run(_span)}

    def committed(self, group: str) -> Mapping[str, int]:
        found = self._thread.run(lambda db: db.execute(COMMITTED, (group,)).fetchone())
        return {self.partition: found[0]} if found and found[0] > 0 else {}

    def replay(self, since_ms: int) -> Iterator[Batch]:
        end = self.last
        (start,) = self._thread.run(lambda db: db.execute(SINCE, (since_ms,)).fetchone())
        while start is not None and start <= end:
            records = [
                r for r in self._thread.run(partial(_read, start=start)) if r.position <= end
            ]
            if not records:
                return
            yield Batch(self.partition, 1, records)
            start = records[-1].position + 1

    def check(self) -> None:
        self._thread.run(lambda db: db.execute("SELECT 1").fetchone())

    def close(self) -> None:
        self._thread.close()

    def _insert(self, statement: str, records: Sequence[Record]) -> int:
        """Position of the last one."""
        size = sum(len(r.key) + len(r.value) + RECORD_OVERHEAD for r in records)
        self._reserve(size)

        def work(db: sqlite3.Connection) -> int:
            return _insert(db, statement, records)

        try:
            last = self._thread.run(work)
        except BaseException:
            # It may still wait for the thread: its bytes count until it was let go of there, on
            # whichever thread that is.
            weakref.finalize(work, self._dropped.append, size).atexit = False
            raise
        self._inflight_bytes -= size
        return last

    def _reserve(self, size: int) -> None:
        while self._dropped:
            self._inflight_bytes -= self._dropped.popleft()
        if self._inflight_bytes + size > self._max_inflight_bytes:
            raise LogUnavailable(f"{self._inflight_bytes} bytes are in flight already")
        self._inflight_bytes += size


class SqliteLogConsumer:
    """Reads on from what its group committed last."""

    def __init__(self, log: SqliteLog, thread: SqliteThread, group: str, retention_ms: int) -> None:
        self._log = log
        self._thread = thread
        self._group = group
        self._retention_ms = retention_ms
        self._woken = Event()
        self._committed = thread.run(lambda db: _join(db, group))
        self._next = self._committed + 1

    def wake(self) -> None:
        """Something was appended."""
        self._woken.set()

    def poll(self, timeout_ms: int) -> Sequence[Batch]:
        self._woken.clear()
        records = self._read()
        if not records and self._woken.wait(timeout_ms / 1000):
            records = self._read()
        if not records:
            return []
        self._next = records[-1].position + 1
        return [Batch(self._log.partition, 1, records)]

    def assigned(self) -> Mapping[str, int]:
        return {self._log.partition: 1}

    def span(self, partition: str) -> tuple[int, int]:
        if partition != self._log.partition:
            raise LogUnavailable(f"{partition} is not of this log")
        return self._thread.run(_span)

    def seek(self, partition: str, position: int) -> None:
        if partition == self._log.partition:
            self._next = position

    def commit(self, positions: Mapping[str, int]) -> None:
        position = positions.get(self._log.partition, -1)
        try:
            if position >= 0 and position != self._committed:
                self._thread.run(lambda db: db.execute(COMMIT, (self._group, position)).rowcount)
                self._committed = position
            self._expire()
        except LogUnavailable as exc:
            log.warning("log.commit_failed", extra={"reason": str(exc)})

    def lag(self) -> int:
        return max(0, self._log.last + 1 - self._next)

    def close(self) -> None:
        """Nothing to leave: the group keeps what it committed."""

    def _read(self) -> list[Logged]:
        start = self._next
        return self._thread.run(lambda db: _read(db, start))

    def _expire(self) -> None:
        values = {"cutoff": _now_ms() - self._retention_ms, "chunk": CHUNK}
        self._thread.run(lambda db: db.execute(EXPIRE_DEAD_LETTERS, values).rowcount)
        for _ in range(MAX_CHUNKS):
            if self._thread.run(lambda db: db.execute(EXPIRE, values).rowcount) < CHUNK:
                return


def _state(db: sqlite3.Connection) -> tuple[int, str, set[str]]:
    """The last position ever given, the log's id, the topics."""
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    (log_id,) = db.execute("SELECT id FROM log_id").fetchone()
    topics = {name for (name,) in db.execute("SELECT name FROM topics")}
    return (last[0] if last else 0), log_id, topics


def _span(db: sqlite3.Connection) -> tuple[int, int]:
    end = _state(db)[0] + 1
    (oldest,) = db.execute("SELECT min(position) FROM records").fetchone()
    return end if oldest is None else oldest, end


def _insert(db: sqlite3.Connection, statement: str, records: Iterable[Record]) -> int:
    now = _now_ms()
    db.executemany(statement, [(r.key, r.value, now) for r in records])
    last: int = db.execute("SELECT last_insert_rowid()").fetchone()[0]
    return last


def _join(db: sqlite3.Connection, group: str) -> int:
    """What the group has committed. One that is new here holds up the deletion from now on."""
    db.execute("INSERT OR IGNORE INTO committed VALUES (?, 0)", (group,))
    position: int = db.execute(COMMITTED, (group,)).fetchone()[0]
    return position


def _read(db: sqlite3.Connection, start: int) -> list[Logged]:
    records: list[Logged] = []
    size = 0
    for row in db.execute(READ, (start, MAX_RECORDS)):
        records.append(Logged(*row))
        size += len(row[2])
        if size > MAX_BYTES:
            break
    return records


def _now_ms() -> int:
    return int(time.time() * 1000)
