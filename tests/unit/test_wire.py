"""Records as bytes: round trips, golden bytes, garbage."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soraka import wire
from soraka.errors import DecodeError
from soraka.message import DAY_MS, Callback, Command, CommandKind, Message

MESSAGE = Message(
    msg_id="01890a5d-ac96-774b-bcce-b302099a8057",
    topic="orders",
    created_at=1_700_000_000_000,
    due_at=1_700_000_001_000,
    ttr_ms=1000,
    callback=Callback(method="POST", url="http://a/b", params='{"n":1}'),
    retry_ms=(1000, 2000),
)
COMMAND = Command(
    command_id="c-1", msg_id=MESSAGE.msg_id, topic="orders", kind=CommandKind.ADD_TIME, add_ms=5
)
# version 1: records of it must be readable for ever
MESSAGE_V1 = bytes.fromhex(
    "010c00010b00010000002430313839306135642d616339362d373734622d626363652d6233303230"
    "393961383035370b0002000000066f72646572730a00030000018bcfe568000a00040000018bcfe5"
    "6be80a000500000000000003e80c0006080001000000020b00020000000a687474703a2f2f612f62"
    "0b0003000000077b226e223a317d000f00070a0000000200000000000003e800000000000007d000"
    "00"
)
COMMAND_V1 = bytes.fromhex(
    "010c00020b000100000003632d310b00020000002430313839306135642d616339362d373734622d"
    "626363652d6233303230393961383035370b0003000000066f7264657273080004000000020a0005"
    "00000000000000050000"
)


@pytest.mark.parametrize(("record", "golden"), [(MESSAGE, MESSAGE_V1), (COMMAND, COMMAND_V1)])
def test_golden_bytes(record: Message | Command, golden: bytes) -> None:
    assert wire.encode(record) == golden
    assert wire.decode(golden) == record


def test_a_length_beyond_the_end_reads_no_memory() -> None:
    """A string that says it has 1 GiB."""
    with pytest.raises(DecodeError):
        wire.decode(wire.VERSION + b"\x0c\x00\x01\x0b\x00\x01\x40\x00\x00\x00abc")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_decode_error_with_its_bytes(data: bytes) -> None:
    for tried in (b"\x02" + data, wire.VERSION + data + b"\xff"):
        with pytest.raises(DecodeError) as refused:
            wire.decode(tried)
        assert refused.value.data == tried


@given(st.integers(0, len(wire.encode(MESSAGE)) - 1))
def test_a_message_cut_short_is_a_decode_error(cut: int) -> None:
    with pytest.raises(DecodeError):
        wire.decode(wire.encode(MESSAGE)[:cut])


@given(
    topic=st.text(max_size=50),
    url=st.text(max_size=100),
    params=st.none() | st.text(max_size=100),
    due_at=st.integers(0, 2**53 - 1),
    retry=st.lists(st.integers(0, 2**40), max_size=32),
)
def test_what_is_encoded_is_decoded(
    topic: str, url: str, params: str | None, due_at: int, retry: list[int]
) -> None:
    message = Message(
        msg_id="x",
        topic=topic,
        created_at=1,
        due_at=due_at,
        ttr_ms=1,
        callback=Callback(method="GET", url=url, params=params),
        retry_ms=tuple(retry),
    )
    assert wire.decode_message(wire.encode(message)) == message


@pytest.mark.parametrize(
    "wrong",
    [
        {"due_at": -1},
        {"due_at": 2**53},
        {"created_at": 2**53},
        {"ttr_ms": -1},
        {"ttr_ms": DAY_MS + 1},
        {"retry_ms": (1, -1)},
        {"retry_ms": (2**53,)},
        {"retry_ms": (2**63 - 1,)},
        {"retry_ms": (1,) * 33},
        {"retry_ms": (1,) * 100_000},
    ],
)
def test_a_number_out_of_range_is_a_decode_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        wire.decode(wire.encode(replace(MESSAGE, **wrong)))


def test_numbers_at_their_limits_are_decoded() -> None:
    edge = replace(MESSAGE, due_at=2**53 - 1, ttr_ms=DAY_MS, retry_ms=(0, *(2**53 - 1,) * 31))
    assert wire.decode(wire.encode(edge)) == edge


def test_a_count_without_elements_stalls_nobody() -> None:
    """A record whose retry_ms are 2**31 elements of type void."""
    data = MESSAGE_V1[:-26] + b"\x0f\x00\x07\x01\x7f\xff\xff\xff\x00\x00"
    started = time.monotonic()
    with pytest.raises(DecodeError):
        wire.decode(data)
    assert time.monotonic() - started < 0.5


def test_a_command_is_no_message() -> None:
    with pytest.raises(DecodeError):
        wire.decode_message(wire.encode(COMMAND))
