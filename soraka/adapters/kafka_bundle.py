"""Several of our records in one of Kafka's.

A record costs kafka-python 20 to 30 µs at each end, more than all else that is done with it. So
what is appended at one moment to one partition travels as one. Pure.

A bundle is the byte 2, then for each of up to 100 records its key and its value, each behind its
length (4 bytes, big endian). What begins otherwise is one record of its own, and so is what only
looks like a bundle: other producers may write to a topic, too.
"""

import struct
from collections.abc import Sequence

from soraka.ports import Logged, Record

MAX_RECORDS = 100
MAX_BYTES = 64 << 10
"""A larger record is alone."""
HEAD = b"\x02"
"""`wire.VERSION` is another."""
_length = struct.Struct(">I")


def bundled(records: Sequence[Record]) -> tuple[bytes, bytes]:
    """Key and value of the Kafka record that holds `records`, of which there is one at least.
    One alone stays as it is."""
    first, *others = records
    if not others:
        return first.key.encode(), first.value
    parts = [HEAD]
    for record in records:
        key = record.key.encode()
        parts += (_length.pack(len(key)), key, _length.pack(len(record.value)), record.value)
    return first.key.encode(), b"".join(parts)


def unbundled(position: int, key: bytes, value: bytes) -> list[Logged]:
    """What a Kafka record holds; all of it has its position."""
    if value[:1] == HEAD:
        try:
            return [Logged(position, text.decode(), body) for text, body in _pairs(value)]
        except (ValueError, struct.error):  # no bundle
            pass
    return [Logged(position, key.decode(errors="replace"), value)]


def _pairs(value: bytes) -> list[tuple[bytes, bytes]]:
    """Raises ValueError or struct.error for what `bundled` has not made."""
    pairs = []
    at, end = len(HEAD), len(value)
    while at < end:
        key, at = _part(value, at)
        body, at = _part(value, at)
        pairs.append((key, body))
        if len(pairs) > MAX_RECORDS:
            raise ValueError("too many")
    if not pairs:
        raise ValueError("empty")
    return pairs


def _part(value: bytes, at: int) -> tuple[bytes, int]:
    (length,) = _length.unpack_from(value, at)
    start = at + _length.size
    if start + length > len(value):
        raise ValueError(f"{length} bytes at {start} of {len(value)}")
    return value[start : start + length], start + length
