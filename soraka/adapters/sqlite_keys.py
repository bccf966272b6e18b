"""Idempotency keys in SQLite."""

import sqlite3
from collections.abc import Sequence

from soraka.adapters.sqlite_work import SqliteWork
from soraka.ports import KeptKey

PURGED_AT_ONCE = 16
"""Past their window, for each call; and two for each key."""
_KEEP = (
    "INSERT INTO kept_key VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " msg_id = excluded.msg_id, digest = excluded.digest, expires_at = excluded.expires_at"
    " WHERE expires_at <= ?"
)
_PURGE = (
    "DELETE FROM kept_key WHERE key IN (SELECT key FROM kept_key INDEXED BY kept_key_expires"
    " WHERE expires_at <= ? LIMIT ?)"
)


class SqliteKeys(SqliteWork):
    """Implements StoreKeys."""

    def keep_keys(self, keys: Sequence[KeptKey], window_ms: Sequence[int]) -> list[KeptKey]:
        now = self.now_ms()

        def work(connection: sqlite3.Connection) -> list[KeptKey]:
            for kept, ms in zip(keys, window_ms, strict=True):
                connection.execute(_KEEP, (*kept, now + ms, now))
            connection.execute(_PURGE, (now, PURGED_AT_ONCE + 2 * len(keys)))
            return [_kept(connection, kept.key) for kept in keys]

        # durable: the log, which is, must not know more messages of a key than one
        return self._on_thread(work, durable=True)


def _kept(connection: sqlite3.Connection, key: str) -> KeptKey:
    sql = "SELECT key, msg_id, digest FROM kept_key WHERE key = ?"
    return KeptKey(*connection.execute(sql, (key,)).fetchone())
