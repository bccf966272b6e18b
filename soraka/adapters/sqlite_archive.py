"""The archive in SQLite: messages by topic and state, their history, samples."""

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import gevent

from soraka.adapters.id_span import id_span
from soraka.adapters.sqlite_store_rows import Rows
from soraka.adapters.sqlite_work import SqliteWork
from soraka.adapters.store_rules import Row
from soraka.errors import DecodeError
from soraka.message import PARKED, Attempt, State, Stored
from soraka.ports import STATS_MS, Backlog, Ended, NotAdded, Outcome, Query, Sample
from soraka.wire import decode_message

REASON_CHARS = 200
LOADED_AT_ONCE = 1000
"""Records, for one page; some are past their retention."""
COUNTED_AT_ONCE = 20_000
"""Index entries: some ms of the thread."""
_DUE = (
    "SELECT look_at, msg_id FROM message INDEXED BY message_due"
    " WHERE state = 'pending' AND owner = ? AND look_at < ? AND (look_at, msg_id) >= (?, ?)"
)
_HELD = (
    "SELECT not_before, msg_id FROM message INDEXED BY message_held"
    " WHERE state = 'pending' AND not_before > 0 AND (not_before, msg_id) >= (?, ?)"
)
_FIRST_HELD = (
    "SELECT min(due_at) FROM message INDEXED BY message_held_due"
    " WHERE state = 'pending' AND not_before > 0 AND due_at <= ?"
)
_FIRST = (
    "SELECT min(look_at) FROM message INDEXED BY message_due WHERE state = 'pending' AND owner = ?"
)
READ_AT_ONCE_MS = 6 * 3_600_000
"""Of samples: some ms of the thread, and as long to decode."""
_SAMPLES = (
    "SELECT minute, name, value FROM sample"
    " WHERE series = ? AND minute >= ? AND minute < ? ORDER BY minute"
)
_ADD = (
    "INSERT INTO sample VALUES (?, ?, ?, ?) ON CONFLICT (series, minute, name)"
    " DO UPDATE SET value = value + excluded.value"
)


class SqliteArchive(SqliteWork):
    """Implements StoreArchive."""

    def __init__(self, path: Path, *, timeout_ms: int, now_ms: Callable[[], int] | None) -> None:
        super().__init__(path, timeout_ms=timeout_ms, now_ms=now_ms)
        self._kept_ms: dict[str, int] = dict(self._query("SELECT topic, ms FROM retention"))

    def search(self, query: Query, cursor: str, limit: int) -> tuple[list[Stored], str]:
        """The cursor is the last id looked at."""
        span = id_span(query, cursor)
        if span.empty or limit <= 0:
            return [], ""

        def work(rows: Rows) -> tuple[list[Row], str]:
            ids = rows.listed(query.topics, query.states, span)
            found: list[Row] = []
            last = ""
            for last in islice(ids, LOADED_AT_ONCE):
                row = rows.load(last)  # None past its retention
                if row is not None:
                    found.append(row)
                if len(found) == limit:
                    break
            return found, last if next(ids, None) else ""

        found, following = self._run(work)
        page = []
        for row in found:
            with suppress(DecodeError):
                page.append(stored_of(row))
        return page, following

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        found = self._query("SELECT topic, state, messages FROM tally WHERE messages > 0")
        counted: dict[str, dict[State, int]] = {}
        for topic, state, messages in found:
            counted.setdefault(topic, dict.fromkeys(State, 0))[State(state)] = messages
        return counted

    def history(self, msg_id: str) -> list[Attempt]:
        return self._run(lambda rows: rows.history(msg_id) if rows.load(msg_id) else [])

    def backlog(self, now: int) -> Backlog:
        overdue, parked, oldest = 0, 0, self._first(_FIRST_HELD, (now,))
        if oldest:
            overdue = self._count(_HELD, (), (now + 1, ""))
        for owner, _ in self._pending():
            due = self._count(_DUE, (owner, now + 1))
            if owner.startswith(PARKED):
                parked += due
            elif due:
                overdue += due
                oldest += self._first(_FIRST, (owner,))
        return Backlog(overdue, min(oldest, default=None), parked)

    def count_due(self, owner: str, since: int) -> int:
        pending = dict(self._pending()).get(owner, 0)
        return max(0, pending - self._count(_DUE, (owner, since))) if pending else 0

    def keep(self, retention_ms: Mapping[str, int]) -> None:
        kept = {topic: ms for topic, ms in retention_ms.items() if ms > 0}

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM retention")
            connection.executemany("INSERT INTO retention VALUES (?, ?)", kept.items())

        self._on_thread(work)
        self._kept_ms.clear()
        self._kept_ms.update(kept)

    def tidy(self) -> int:
        """Nothing: an index of SQLite has no stale entries."""
        return 0

    def add_stats(self, samples: Sequence[Sample]) -> NotAdded:
        values = [
            (sample.series, sample.minute, name, value)
            for sample in samples
            for name, value in sample.values.items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_ADD, values)
            connection.execute("DELETE FROM sample WHERE minute < ?", (self.now_ms() - STATS_MS,))

        self._on_thread(work)
        return NotAdded()

    def stats(
        self, series: str, since: int, until: int, names: Collection[str] = ()
    ) -> Mapping[int, Mapping[str, int]]:
        by_minute: dict[int, dict[str, int]] = {}
        for begin in range(since, until, READ_AT_ONCE_MS):
            end = min(until, begin + READ_AT_ONCE_MS)
            for minute, name, value in self._query(_SAMPLES, (series, begin, end)):
                if not names or name in names:
                    by_minute.setdefault(minute, {})[name] = value
            gevent.sleep(0)
        return by_minute

    def _pending(self) -> list[tuple[str, int]]:
        found = self._query("SELECT name, pending FROM owner WHERE pending > 0")
        return [(owner, pending) for owner, pending in found]

    def _first(self, sql: str, args: tuple[str | int, ...]) -> list[int]:
        return [int(at) for (at,) in self._query(sql, args) if at is not None]

    def _count(
        self, source: str, args: tuple[str | int, ...], begin: tuple[int, str] = (0, "")
    ) -> int:
        """Entries of _DUE or _HELD from `begin` on, counted in steps: others come between."""
        counted = 0
        step = f"{source} ORDER BY 1, 2 LIMIT 1 OFFSET {COUNTED_AT_ONCE}"
        while following := self._query(step, (*args, *begin)):
            counted += COUNTED_AT_ONCE
            begin = following[0]
        ((rest,),) = self._query(f"SELECT count(*) FROM ({source})", (*args, *begin))  # noqa: S608
        return counted + int(rest)


def attempt_of(row: Row, o: Outcome) -> Attempt:
    """`row` as it is after that outcome."""
    return Attempt(
        number=row.tries,
        started_at=o.started_at,
        duration_ms=o.duration_ms,
        worker=o.worker,
        ended=o.ended.value,
        status=o.status,
        reason=o.reason[:REASON_CHARS],
        next_at=row.due_at if o.ended is Ended.RETRY else 0,
    )


def stored_of(row: Row) -> Stored:
    """Raises DecodeError."""
    return Stored(
        message=decode_message(row.body),
        state=row.state,
        owner=row.owner,
        due_at=row.due_at,
        attempt=row.tries,
        lease_until=row.lease_until,
        finished_at=row.finished_at,
        not_before=row.not_before,
        reason=row.reason,
    )
