"""Pieces of work on the SQLite store, each one transaction."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from soraka.adapters.sqlite_store_rows import LAYOUT, SCHEMA, Rows
from soraka.adapters.sqlite_thread import SqliteThread
from soraka.errors import StoreUnavailable

T = TypeVar("T")


class SqliteWork:
    """`now_ms` replaces the clock in tests."""

    def __init__(self, path: Path, *, timeout_ms: int, now_ms: Callable[[], int] | None) -> None:
        self.now_ms = now_ms or _now_ms
        with _store_errors():
            self._thread = SqliteThread(
                path,
                schema=SCHEMA,
                layout=LAYOUT,
                synchronous="NORMAL",
                unavailable=StoreUnavailable,
                timeout_ms=timeout_ms,
            )

    def _run(self, work: Callable[[Rows], T], *, durable: bool = False) -> T:
        def on_thread(connection: sqlite3.Connection) -> T:
            rows = Rows(connection, self.now_ms())
            answer = work(rows)
            rows.close()
            return answer

        return self._on_thread(on_thread, durable=durable)

    def _query(self, sql: str, args: tuple[str | int, ...] = ()) -> list[tuple[Any, ...]]:
        return self._on_thread(lambda connection: connection.execute(sql, args).fetchall())

    def _on_thread(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        with _store_errors():
            return self._thread.run(work, durable=durable)


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"sqlite: {exc}") from exc


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
