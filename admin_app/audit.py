"""What was changed by whom: a JSON object per line, durable before the answer goes out.

The file is only ever appended to, by all processes of a host; rotate it as you like.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent

from soraka.errors import SorakaError, Unavailable

log = logging.getLogger(__name__)

MAX_LISTED = 1000
_TAIL_BYTES = 1 << 20
_MAX_TEXT = 200
OK = 200
_UNKNOWN = (SorakaError.code, Unavailable.code)
_HARMLESS = """
action add_time address all balance business choose command_id instance job_id
max_concurrent_dispatches max_dispatches_per_second msg_id msg_ids name paused prefix retention_ms
retry retry_ms role scope since state states topic topic_name topics until weigh_by which
worker_num workers
"""
_TOLD = frozenset(_HARMLESS.split())
"""The details that are kept. All others may be secrets."""


class Audit:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        *,
        who: str,
        action: str,
        source: str,
        ec: int = OK,
        reason: str = "",
        details: Mapping[str, Any],
    ) -> None:
        """`ec` is that of the answer, `reason` why it is not OK, `source` the address of the peer.
        Only details that are known to be harmless are kept. An error of the file is logged: what
        was done is done."""
        entry = {
            "at": int(time.time() * 1000),
            "who": who,
            "action": action,
            "from": source,
            "outcome": _outcome(ec, reason),
            "ec": ec,
            "details": {k: _short(v) for k, v in details.items() if _is_told(k, v)},
        }
        log.info("audit", extra={"audit": entry})
        line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        error = gevent.get_hub().threadpool.apply(_append, (str(self._path), line))
        if error is not None:
            log.error("audit.not_kept", extra={"path": str(self._path), "reason": str(error)})

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """The latest first, as far as the end of the file goes back. Raises OSError."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        if size > _TAIL_BYTES:
            lines = lines[1:]
        entries = (_decoded(line) for line in reversed(lines))
        found = [entry for entry in entries if entry is not None]
        return found[: min(limit, MAX_LISTED)]


def _outcome(ec: int, reason: str) -> Any:
    """ok, "refused: reason", or "unknown: reason" when it may have been done all the same."""
    if ec == OK:
        return "ok"
    return _short(f"{'unknown' if ec in _UNKNOWN else 'refused'}: {reason}")


def _append(path: str, line: bytes) -> OSError | None:
    """The error as a value: gevent would print it."""
    try:
        # not os.close, which is gevent's, and of no use on another thread
        with open(path, "ab", buffering=0, opener=_for_its_owner) as file:
            file.write(line)
            os.fsync(file.fileno())
    except OSError as exc:
        return exc
    return None


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _decoded(line: bytes) -> dict[str, Any] | None:
    """None for a line that was cut off."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _is_told(name: str, value: Any) -> bool:
    """Objects are left out: they may hold anything, and no field is one."""
    values = value if isinstance(value, list | tuple) else (value,)
    return name in _TOLD and all(isinstance(v, str | int | float | None) for v in values)


def _short(value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."
