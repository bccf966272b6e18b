"""SqliteThread: shared by greenlets, alone on its file, honest about failures."""

import sqlite3
import time
from pathlib import Path

import gevent
import pytest

from soraka.adapters.sqlite_thread import SqliteThread
from soraka.errors import StoreUnavailable

SCHEMA = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)"


def _open(path: Path, timeout_ms: int = 2000, max_waiting: int = 100) -> SqliteThread:
    return SqliteThread(
        path,
        schema=SCHEMA,
        layout=1,
        synchronous="NORMAL",
        unavailable=StoreUnavailable,
        timeout_ms=timeout_ms,
        max_waiting=max_waiting,
    )


def _insert(n: int) -> str:
    return f"INSERT INTO t VALUES ({n})"


def _count(thread: SqliteThread) -> int:
    return int(thread.run(lambda db: db.execute("SELECT count(*) FROM t").fetchone()[0]))


def test_one_that_fails_takes_back_its_own_changes_alone(tmp_path: Path) -> None:
    thread = _open(tmp_path / "a.db")

    def fails(db: sqlite3.Connection) -> None:
        db.execute(_insert(100))
        raise ValueError("mine")

    good = [gevent.spawn(thread.run, lambda db, n=n: db.execute(_insert(n))) for n in range(20)]
    bad = gevent.spawn(thread.run, fails)
    gevent.joinall(good, raise_error=True)
    bad.join()
    assert isinstance(bad.exception, ValueError)
    assert _count(thread) == 20
    thread.close()


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    thread = _open(tmp_path / "a.db")
    with pytest.raises(StoreUnavailable, match="another process works on it"):
        _open(tmp_path / "a.db")
    thread.close()
    _open(tmp_path / "a.db").close()


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere"):
        _open(tmp_path / "nowhere" / "a.db")


def test_a_slow_database_is_unavailable_at_the_deadline_and_bounded(tmp_path: Path) -> None:
    thread = _open(tmp_path / "a.db", timeout_ms=100, max_waiting=5)
    slow = gevent.spawn(thread.run, lambda _db: time.sleep(0.5))
    gevent.sleep(0.02)
    waiting = [gevent.spawn(thread.run, lambda db: db.execute(_insert(1))) for _ in range(6)]
    gevent.joinall([slow, *waiting])
    reasons = [str(greenlet.exception) for greenlet in [slow, *waiting]]
    assert reasons[0] == "the database did not answer in time"
    assert reasons[-1] == "5 writes are waiting already"
    thread.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        _count(thread)


def test_the_callers_own_timeout_is_its_own(tmp_path: Path) -> None:
    thread = _open(tmp_path / "a.db")
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        thread.run(lambda _db: time.sleep(0.3))
    thread.close()
