"""Records as bytes: round trips, golden bytes, garbage."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from soraka import wire
from soraka.errors import DecodeError
from soraka.limits import DAY_MS
from soraka.message import Callback, Command, CommandKind, Message

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
# version 3: records of it must be readable for ever
MESSAGE_V3 = bytes.fromhex(
    "039801d92430313839306135642d616339362d373734622d626363652d6233303230393961383035"
    "37a66f7264657273cf0000018bcfe56800cf0000018bcfe56be8cd03e893a4504f5354aa68747470"
    "3a2f2f612f62a77b226e223a317d92cd03e8cd07d0"
)
COMMAND_V3 = bytes.fromhex(
    "039602a3632d31d92430313839306135642d616339362d373734622d626363652d62333032303939"
    "6138303537a66f7264657273a86164645f74696d6505"
)


@pytest.mark.parametrize(("record", "golden"), [(MESSAGE, MESSAGE_V3), (COMMAND, COMMAND_V3)])
def test_golden_bytes(record: Message | Command, golden: bytes) -> None:
    assert wire.encode(record) == golden
    assert wire.decode(golden) == record


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_decode_error_with_its_bytes(data: bytes) -> None:
    for tried in (b"\x04" + data, wire.VERSION + data + b"\xff"):
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
        {"msg_id": "x" * 251},
        {"topic": "x" * 251},
    ],
)
def test_what_is_out_of_range_is_a_decode_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        wire.decode(wire.encode(replace(MESSAGE, **wrong)))


def test_numbers_at_their_limits_are_decoded() -> None:
    edge = replace(MESSAGE, due_at=2**53 - 1, ttr_ms=DAY_MS, retry_ms=(0, *(2**53 - 1,) * 31))
    assert wire.decode(wire.encode(edge)) == edge


@pytest.mark.parametrize(
    "claimed",
    [
        pytest.param(b"\xdb\x7f\xff\xff\xff", id="a text of 2 GiB"),
        pytest.param(b"\xdd\x7f\xff\xff\xff", id="an array of two thousand million"),
        pytest.param(b"\x91" * 100_000, id="arrays in arrays"),
    ],
)
def test_what_is_claimed_is_not_believed(claimed: bytes) -> None:
    whole = wire.encode(MESSAGE)
    started = time.monotonic()
    for cut in range(len(whole)):
        with pytest.raises(DecodeError):
            wire.decode(whole[:cut] + claimed)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("more", [b"\xc0", b"\x01"])
def test_what_follows_a_record_is_refused(more: bytes) -> None:
    with pytest.raises(DecodeError):
        wire.decode(wire.encode(MESSAGE) + more)


def test_a_text_that_is_not_utf8_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        wire.decode(wire.encode(MESSAGE).replace(b"orders", b"order\xff"))


def test_a_command_id_longer_than_any_is_a_decode_error() -> None:
    """128 of them must fit in what the store has for them."""
    longest = replace(COMMAND, command_id="x" * 100)
    assert wire.decode(wire.encode(longest)) == longest
    with pytest.raises(DecodeError):
        wire.decode(wire.encode(replace(COMMAND, command_id="x" * 101)))


def test_a_command_is_no_message() -> None:
    with pytest.raises(DecodeError):
        wire.decode_message(wire.encode(COMMAND))
