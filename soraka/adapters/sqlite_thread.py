"""One SQLite connection on a native thread, shared by greenlets, with group commit.

SQLite blocks its caller; on a thread of its own it does not stop the hub. Whatever comes in
while one transaction is written goes together into the next: one fsync for all of it.
"""

import fcntl
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast

import gevent
from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

from soraka.errors import Unavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]


class SqliteThread:
    """`synchronous` is FULL where every commit must survive power loss, else NORMAL.

    `layout` is the number of what `schema` makes and of what is kept in it. A file of another one
    is refused.

    `unavailable` is raised when the database cannot be written (disk full, i/o error), when
    `max_waiting` pieces of work wait already, or when one is not done after `timeout_ms`.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: str,
        layout: int,
        synchronous: Literal["FULL", "NORMAL"],
        unavailable: type[Unavailable],
        timeout_ms: int = 5000,
        max_waiting: int = 10_000,
    ) -> None:
        self._unavailable = unavailable
        self._timeout_s = timeout_ms / 1000
        self._max_waiting = max_waiting
        self._waiting: list[tuple[Work, AsyncResult[Any]]] = []
        self._synchronous = synchronous
        self._durable = False
        self._flusher: gevent.Greenlet[..., None] | None = None
        self._closed = False
        try:
            self._lock = _locked(path.with_name(f"{path.name}.lock"))
        except OSError as exc:
            raise unavailable(f"{path}: {exc.strerror}") from exc
        self._pool = ThreadPool(1)
        opened: sqlite3.Connection | sqlite3.Error = self._pool.apply(
            _opened, (path, schema, layout)
        )
        if isinstance(opened, sqlite3.Error):
            self._pool.kill()
            self._lock.close()
            raise unavailable(f"{path}: {opened}") from opened
        self._connection = opened

    def run(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Runs `work` inside a transaction; returns its result once that is committed.

        What `work` raises is raised here, and its changes alone are rolled back. `durable`: the
        commit, and all before it, survive power loss also where `synchronous` is NORMAL.
        """
        if self._closed:
            raise self._unavailable("closed")
        if len(self._waiting) >= self._max_waiting:
            raise self._unavailable(f"{self._max_waiting} writes are waiting already")
        result: AsyncResult[T] = AsyncResult()
        self._waiting.append((work, result))
        self._durable |= durable
        if self._flusher is None:
            self._flusher = gevent.spawn(self._flush)
        result.wait(timeout=self._timeout_s)
        if not result.ready():
            raise self._unavailable("the database did not answer in time")
        try:
            return cast(T, result.get(block=False))
        except sqlite3.OperationalError as exc:
            raise self._unavailable(str(exc)) from exc

    def close(self) -> None:
        """Finishes what waits, then closes. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        if self._flusher is not None:
            self._flusher.join()
        self._pool.apply(self._connection.close)
        self._pool.kill()
        self._lock.close()

    def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                synchronous = "FULL" if self._durable else self._synchronous
                self._durable = False
                works = [work for work, _ in batch]
                answers = self._pool.apply(_transaction, (self._connection, works, synchronous))
                for (_, result), (value, error) in zip(batch, answers, strict=True):
                    if error is None:
                        result.set(value)
                    else:
                        result.set_exception(error)
        finally:
            self._flusher = None


def _locked(path: Path) -> IO[str]:
    """Open, and locked until closed: a second process on one database would call everything
    twice. Raises OSError."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        file.close()
        raise OSError(exc.errno, "another process works on it") from exc
    return file


def _opened(path: Path, schema: str, layout: int) -> sqlite3.Connection | sqlite3.Error:
    """The error as a value: gevent prints what is raised on its threads."""
    try:
        return _open(path, schema, layout)
    except sqlite3.Error as exc:
        return exc


def _open(path: Path, schema: str, layout: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA busy_timeout = 2000")
    ((found,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if tables and found != layout:
        connection.close()
        raise sqlite3.DatabaseError(f"layout {found}, this version of soraka reads {layout}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA user_version = {layout}")
    connection.executescript(schema)
    return connection


def _transaction(
    connection: sqlite3.Connection, batch: list[Work], synchronous: str
) -> list[tuple[Any, Exception | None]]:
    try:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("BEGIN IMMEDIATE")
        answers = [_savepoint(connection, work) for work in batch]
        connection.execute("COMMIT")
    except sqlite3.Error as exc:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return [(None, exc)] * len(batch)
    return answers


def _savepoint(connection: sqlite3.Connection, work: Work) -> tuple[Any, Exception | None]:
    connection.execute("SAVEPOINT work")
    answer: tuple[Any, Exception | None]
    try:
        answer = (work(connection), None)
    except Exception as exc:  # handed to the caller that asked for it
        connection.execute("ROLLBACK TO work")
        answer = (None, exc)
    connection.execute("RELEASE work")
    return answer
