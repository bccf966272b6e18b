"""Records as bytes: one version byte, then the record as MessagePack.

A record is an array: 1 for a message or 2 for a command, then the fields of `Message` or `Command`
in `soraka/message.py` in their order, a callback as an array likewise. The bytes are the value in
the log.
"""

import msgspec

from soraka.errors import DecodeError
from soraka.message import Command, Message

VERSION = b"\x03"
"""1 and 2 were other forms; 4 begins a bundle, see `kafka_bundle.py`."""
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message | Command] = msgspec.msgpack.Decoder(Message | Command)


def encode(record: Message | Command) -> bytes:
    """Bytes of a record, the current version."""
    return VERSION + _encoder.encode(record)


def decode(data: bytes) -> Message | Command:
    """The record in `data`. Raises DecodeError, with the bytes, when there is none."""
    if data[:1] != VERSION:
        raise DecodeError(f"unknown record version {data[:1]!r}", data)
    try:
        return _decoder.decode(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DecodeError(f"not a record: {exc}", data) from exc


def decode_message(data: bytes) -> Message:
    """As decode, for bytes that must be a message."""
    record = decode(data)
    if not isinstance(record, Message):
        raise DecodeError("a command where a message was expected", data)
    return record
