"""Several of our records in one of Kafka's.

A record costs kafka-python 20 to 30 µs at each end, more than all else that is done with it. So
what is appended at one moment to one partition travels as one. Pure.

A bundle is the byte 4, then as MessagePack an array of up to 400 records, each an array of its key
and its value. What begins otherwise is one record of its own, and so is what only looks like a
bundle: other producers may write to a topic, too.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from soraka.ports import Logged, Record

MAX_RECORDS = 400
MAX_BYTES = 128 << 10
"""A larger record is alone."""
HEAD = b"\x04"
"""`wire.VERSION` is another."""
_Pairs = Annotated[list[tuple[str, bytes]], msgspec.Meta(min_length=1, max_length=MAX_RECORDS)]
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Pairs] = msgspec.msgpack.Decoder(_Pairs)


def bundled(records: Sequence[Record]) -> tuple[bytes, bytes]:
    """Key and value of the Kafka record that holds `records`, of which there is one at least.
    One alone stays as it is."""
    first, *others = records
    value = HEAD + _encoder.encode(records) if others else first.value
    return first.key.encode(), value


def unbundled(position: int, key: bytes, value: bytes) -> list[Logged]:
    """What a Kafka record holds; all of it has its position."""
    if value[:1] == HEAD:
        try:
            return [Logged(position, text, body) for text, body in _decoder.decode(value[1:])]
        except (msgspec.DecodeError, UnicodeDecodeError):  # no bundle
            pass
    return [Logged(position, key.decode(errors="replace"), value)]
