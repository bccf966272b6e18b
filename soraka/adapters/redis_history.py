"""The history of a message in the Redis store: entries that `lua/settle.lua` appends. Pure.

An entry is the number of the attempt, when the next is due, and a note, which Lua does not read.
"""

import struct
from collections.abc import Iterator

from soraka.message import Attempt
from soraka.ports import HISTORY_LENGTH, Ended, Outcome

REASON_BYTES = 200
WORKER_BYTES = 255
# number, next_at, size of the note
_ENTRY = struct.Struct("<IQH")
# started_at, duration_ms, HTTP status, how it ended, size of the worker; then worker and reason
_NOTE = struct.Struct("<QIHBB")
_ENDED = (Ended.SUCCEEDED, Ended.RETRY, Ended.DEAD)
_MAX_DURATION_MS = (1 << 32) - 1


def note_of(o: Outcome) -> bytes:
    """Empty for a released attempt: that has no entry."""
    if o.ended is Ended.RELEASED:
        return b""
    worker = o.worker.encode()[:WORKER_BYTES]
    duration = min(o.duration_ms, _MAX_DURATION_MS)
    head = _NOTE.pack(o.started_at, duration, o.status, _ENDED.index(o.ended), len(worker))
    return head + worker + o.reason.encode()[:REASON_BYTES]


def history_of(raw: bytes) -> list[Attempt]:
    return list(_attempts(raw))[-HISTORY_LENGTH:]


def _attempts(raw: bytes) -> Iterator[Attempt]:
    at = 0
    while at < len(raw):
        number, next_at, size = _ENTRY.unpack_from(raw, at)
        at += _ENTRY.size
        yield _attempt(number, next_at, raw[at : at + size])
        at += size


def _attempt(number: int, next_at: int, note: bytes) -> Attempt:
    started_at, duration_ms, status, ended, worker_size = _NOTE.unpack_from(note)
    texts = note[_NOTE.size :]
    return Attempt(
        number=number,
        started_at=started_at,
        duration_ms=duration_ms,
        worker=texts[:worker_size].decode(errors="ignore"),
        ended=_ENDED[ended].value,
        status=status,
        reason=texts[worker_size:].decode(errors="ignore"),  # a character may be cut
        next_at=next_at,
    )
