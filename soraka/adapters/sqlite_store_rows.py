"""Tables of the SQLite store, and one transaction's work on them."""

import heapq
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from soraka.adapters import store_rules
from soraka.adapters.id_span import IdSpan
from soraka.message import Attempt, Command, CommandKind, State
from soraka.ports import HISTORY_LENGTH

LAYOUT = 2
"""Of the tables and of the bodies in them. docs/operations.md says how to change it."""
SCHEMA = """
PRAGMA cache_size = -65536;
CREATE TABLE IF NOT EXISTS message (
    msg_id TEXT PRIMARY KEY,
    topic TEXT NOT NULL,
    owner TEXT NOT NULL,
    ttr_ms INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    body BLOB NOT NULL,
    state TEXT NOT NULL,
    lease_until INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    commands TEXT NOT NULL,
    reason TEXT NOT NULL,
    look_at INTEGER NOT NULL,
    not_before INTEGER NOT NULL DEFAULT 0,
    releases INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS message_due ON message (owner, look_at, msg_id)
    WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS message_expires ON message (expires_at) WHERE expires_at > 0;
CREATE INDEX IF NOT EXISTS message_held ON message (not_before, msg_id)
    WHERE state = 'pending' AND not_before > 0;
CREATE INDEX IF NOT EXISTS message_held_due ON message (due_at)
    WHERE state = 'pending' AND not_before > 0;
CREATE INDEX IF NOT EXISTS message_topic ON message (topic, state, msg_id);
CREATE TABLE IF NOT EXISTS tally (
    topic TEXT NOT NULL,
    state TEXT NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (topic, state)
) WITHOUT ROWID;
INSERT INTO tally SELECT topic, state, count(*) FROM message
    WHERE NOT EXISTS (SELECT 1 FROM tally) GROUP BY topic, state;
CREATE TABLE IF NOT EXISTS attempt (
    msg_id TEXT NOT NULL,
    lease INTEGER NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    worker TEXT NOT NULL,
    ended TEXT NOT NULL,
    status INTEGER NOT NULL,
    reason TEXT NOT NULL,
    next_at INTEGER NOT NULL,
    PRIMARY KEY (msg_id, lease)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retention (topic TEXT PRIMARY KEY, ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sample (
    series TEXT NOT NULL,
    minute INTEGER NOT NULL,
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (series, minute, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sample_minute ON sample (minute);
CREATE TABLE IF NOT EXISTS owner (name TEXT PRIMARY KEY, pending INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (partition TEXT PRIMARY KEY, last INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS early (
    number INTEGER PRIMARY KEY,
    msg_id TEXT NOT NULL,
    command_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    add_ms INTEGER NOT NULL,
    topic TEXT NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS early_message ON early (msg_id, number);
CREATE INDEX IF NOT EXISTS early_expires ON early (expires_at);
CREATE TABLE IF NOT EXISTS kept_key (
    key TEXT PRIMARY KEY,
    msg_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kept_key_expires ON kept_key (expires_at);
"""
# INDEXED BY makes a query that would scan all messages an error.
DUE = (
    "SELECT look_at, msg_id FROM message INDEXED BY message_due"
    " WHERE state = 'pending' AND owner = ? AND look_at >= ? AND look_at < ?"
    " ORDER BY look_at, msg_id LIMIT ?"
)
SCAN = "SELECT msg_id, look_at, owner, state FROM message WHERE msg_id > ? ORDER BY msg_id LIMIT ?"
# in the order of the fields of store_rules.Row
_COLUMNS = (
    "msg_id, topic, owner, ttr_ms, due_at, body, state, lease_until, attempt, tries,"
    " finished_at, expires_at, commands, reason, not_before, releases"
)
_LOAD = f"SELECT {_COLUMNS} FROM message WHERE msg_id = ? AND expires_at NOT BETWEEN 1 AND ?"  # noqa: S608
_INSERT = f"INSERT INTO message ({_COLUMNS}, look_at) VALUES ({', '.join('?' * 17)})"  # noqa: S608
# Two, since an index costs whenever one of its columns is named.
_UPDATE = (
    "UPDATE message SET owner = ?, due_at = ?, lease_until = ?, attempt = ?, tries = ?,"
    " commands = ?, reason = ?, not_before = ?, releases = ?, look_at = ?"
)
_UPDATE_STATE = ", state = ?, finished_at = ?, expires_at = ?"
_LISTED = (
    "SELECT msg_id FROM message INDEXED BY message_topic"
    " WHERE topic = ? AND state = ? AND msg_id >= ? AND msg_id < ? ORDER BY msg_id DESC"
)
_HISTORY = (
    "SELECT number, started_at, duration_ms, worker, ended, status, reason, next_at FROM attempt"
    " WHERE msg_id = ? ORDER BY lease DESC LIMIT ?"
)
_FORGET_OLDEST = (
    "DELETE FROM attempt WHERE msg_id = ?1 AND lease <= (SELECT lease FROM attempt"
    " WHERE msg_id = ?1 ORDER BY lease DESC LIMIT 1 OFFSET ?2)"
)
_PURGE = (
    "DELETE FROM message WHERE rowid IN (SELECT rowid FROM message INDEXED BY message_expires"
    " WHERE expires_at > 0 AND expires_at <= ? LIMIT ?) RETURNING msg_id, topic, state"
)
_DELETE = "DELETE FROM message WHERE msg_id = ? RETURNING msg_id, topic, state"
_PURGE_EARLY = (
    "DELETE FROM early WHERE number IN (SELECT number FROM early WHERE expires_at <= ? LIMIT ?)"
)
PURGED_AT_ONCE = 500


class Rows:
    """Loads and saves records at the moment `now`, and keeps the counters in step with them.

    One for each piece of work; `close` writes the counters.
    """

    def __init__(self, connection: sqlite3.Connection, now: int) -> None:
        self.now = now
        self._connection = connection
        self._loaded: dict[str, tuple[State, str, int]] = {}
        self._pending = Counter[str]()
        self._counts = Counter[str]()
        self._tally = Counter[tuple[str, str]]()

    def load(self, msg_id: str) -> store_rules.Row | None:
        """None when it is unknown or past its retention."""
        found = self._connection.execute(_LOAD, (msg_id, self.now)).fetchone()
        if found is None:
            return None
        row = _row(found)
        self._loaded[msg_id] = (row.state, row.owner, row.tries)
        return row

    def insert(self, row: store_rules.Row) -> None:
        """For a message that `load` did not find."""
        try:
            self._insert(row)
        except sqlite3.IntegrityError:  # past its retention, and still there
            self._forget(
                "DELETE FROM message WHERE msg_id = ? RETURNING msg_id, topic, state", (row.msg_id,)
            )
            self._insert(row)
        self._counts["scheduled"] += 1
        self._pending[row.owner] += 1
        self._tally[row.topic, row.state] += 1
        self._loaded[row.msg_id] = (row.state, row.owner, row.tries)

    def save(self, row: store_rules.Row) -> None:
        """For a row that was loaded or inserted here."""
        before, owner, tries = self._loaded[row.msg_id]
        values: tuple[Any, ...] = (
            row.owner,
            row.due_at,
            row.lease_until,
            row.attempt,
            row.tries,
            row.commands,
            row.reason,
            row.not_before,
            row.releases,
            row.look_at,
        )
        sql = _UPDATE
        if row.state is not before:
            sql += _UPDATE_STATE
            values = (*values, row.state, row.finished_at, row.expires_at)
        self._connection.execute(f"{sql} WHERE msg_id = ?", (*values, row.msg_id))
        if before is State.PENDING:
            self._pending[owner] -= 1
            self._counts["attempts"] += row.tries - tries
        if row.state is State.PENDING:
            self._pending[row.owner] += 1
        if row.state is not before:
            self._tally[row.topic, before] -= 1
            self._tally[row.topic, row.state] += 1
            self._counts["redriven" if row.state is State.PENDING else row.state] += 1
        self._loaded[row.msg_id] = (row.state, row.owner, row.tries)

    def add_attempt(self, row: store_rules.Row, attempt: Attempt) -> None:
        a = attempt
        self._connection.execute(
            "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.msg_id,
                row.attempt,
                a.number,
                a.started_at,
                a.duration_ms,
                a.worker,
                a.ended,
                a.status,
                a.reason,
                a.next_at,
            ),
        )
        if row.attempt > HISTORY_LENGTH:
            self._connection.execute(_FORGET_OLDEST, (row.msg_id, HISTORY_LENGTH))

    def history(self, msg_id: str) -> list[Attempt]:
        """Of a message within its retention."""
        names = ("number", "started_at", "duration_ms", "worker", "ended", "status", "reason")
        found = self._connection.execute(_HISTORY, (msg_id, HISTORY_LENGTH)).fetchall()
        return [Attempt(**dict(zip((*names, "next_at"), one, strict=True))) for one in found[::-1]]

    def listed(self, topics: Sequence[str], states: Sequence[State], span: IdSpan) -> Iterator[str]:
        """Ids, the latest first; read as they are asked for."""
        lists = [
            self._connection.execute(_LISTED, (topic, state, span.low, span.high))
            for topic, state in product(topics, states)
        ]
        return (msg_id for (msg_id,) in heapq.merge(*lists, reverse=True))

    def waiting(self, msg_id: str) -> list[Command]:
        """The commands at the door of a message, in the order in which they came."""
        found = self._connection.execute(
            "SELECT command_id, msg_id, topic, kind, add_ms FROM early"
            " WHERE msg_id = ? AND expires_at > ? ORDER BY number",
            (msg_id, self.now),
        )
        return [
            Command(command_id=i, msg_id=m, topic=t, kind=CommandKind(k), add_ms=a)
            for i, m, t, k, a in found
        ]

    def leave_at_door(self, command: Command, expires_at: int) -> None:
        c = command
        self._connection.execute(
            "INSERT INTO early (msg_id, command_id, kind, add_ms, topic, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (c.msg_id, c.command_id, c.kind, c.add_ms, c.topic, expires_at),
        )
        self._connection.execute(
            "UPDATE early SET expires_at = ? WHERE msg_id = ?", (expires_at, c.msg_id)
        )

    def at_doors(self) -> int:
        """All commands that wait, those past their time included."""
        found = self._connection.execute("SELECT count(*) FROM early").fetchone()
        return int(found[0])

    def any_waiting(self) -> bool:
        return self._connection.execute("SELECT 1 FROM early LIMIT 1").fetchone() is not None

    def clear_door(self, msg_id: str) -> None:
        self._connection.execute("DELETE FROM early WHERE msg_id = ?", (msg_id,))

    def position(self, partition: str) -> int:
        found = self._connection.execute(
            "SELECT last FROM position WHERE partition = ?", (partition,)
        ).fetchone()
        return -1 if found is None else int(found[0])

    def set_position(self, partition: str, last: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO position VALUES (?, ?)", (partition, last))

    def adopt(self, positions: Mapping[str, int]) -> bool:
        """Takes these positions when there is none at all."""
        if not positions or self._connection.execute("SELECT 1 FROM position LIMIT 1").fetchone():
            return False
        self._connection.executemany("INSERT INTO position VALUES (?, ?)", positions.items())
        return True

    def purge(self, handled: int) -> None:
        """Removes records past their retention: a bounded number, more than `handled`."""
        limit = (self.now, PURGED_AT_ONCE + 2 * handled)
        self._forget(_PURGE, limit)
        self._connection.execute(_PURGE_EARLY, limit)

    def close(self) -> None:
        self._add("counter", ("name",), "value", self._counts.items())
        self._add("owner", ("name",), "pending", self._pending.items())
        self._add("tally", ("topic", "state"), "messages", self._tally.items())
        if self._pending:
            self._connection.execute("DELETE FROM owner WHERE pending = 0")

    def _insert(self, row: store_rules.Row) -> None:
        self._connection.execute(
            _INSERT,
            (
                row.msg_id,
                row.topic,
                row.owner,
                row.ttr_ms,
                row.due_at,
                row.body,
                row.state,
                row.lease_until,
                row.attempt,
                row.tries,
                row.finished_at,
                row.expires_at,
                row.commands,
                row.reason,
                row.not_before,
                row.releases,
                row.look_at,
            ),
        )

    def _forget(self, delete: str, args: tuple[str | int, ...]) -> None:
        """Runs `delete`, which returns what it deleted, and forgets what belongs to that."""
        gone = self._connection.execute(delete, args).fetchall()
        for _, topic, state in gone:
            self._tally[topic, state] -= 1
        self._connection.executemany(
            "DELETE FROM attempt WHERE msg_id = ?", [(msg_id,) for msg_id, _, _ in gone]
        )

    def _add(
        self, table: str, key: tuple[str, ...], column: str, deltas: Iterable[tuple[Any, int]]
    ) -> None:
        names = ", ".join(key)
        self._connection.executemany(
            f"INSERT INTO {table} VALUES ({', '.join('?' * len(key))}, ?)"  # noqa: S608
            f" ON CONFLICT ({names}) DO UPDATE SET {column} = {column} + excluded.{column}",
            [((name,) if len(key) == 1 else name) + (by,) for name, by in deltas if by],
        )


def _row(found: tuple[Any, ...]) -> store_rules.Row:
    row = store_rules.Row(*found)
    row.state = State(row.state)
    return row
