"""The walk over Thrift bytes: what thriftpy2 encodes passes, what would stall it does not."""

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.transport import TCyMemoryBuffer

import idl
from soraka import skim
from soraka.skim import Unsound

STOP, VOID, BYTE, U64, I64, STRING, STRUCT, MAP, SET, LIST = 0, 1, 3, 9, 10, 11, 12, 13, 14, 15
texts = st.none() | st.text(max_size=20)
numbers = st.none() | st.integers(-(1 << 63), (1 << 63) - 1)


def field(kind: int, value: bytes, number: int = 1) -> bytes:
    return struct.pack("!bh", kind, number) + value


def listed(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("!bI", kind, count) + values


def mapped(key: int, value: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("!bbI", key, value, count) + values


def structs(depth: int) -> bytes:
    """A struct in a struct, `depth` of them."""
    return (field(STRUCT, structs(depth - 1)) if depth > 1 else b"") + b"\0"


def encoded(value: object) -> bytes:
    buffer = TCyMemoryBuffer()
    TCyBinaryProtocol(buffer).write_struct(value)
    return bytes(buffer.getvalue())


def passes(data: bytes, max_items: int = 100) -> bool:
    try:
        skim.check_struct(data, 0, max_items)
    except Unsound:
        return False
    return True


@settings(deadline=None)
@given(
    topic=texts,
    params=texts,
    delay=numbers,
    method=st.none() | st.sampled_from([1, 2]),
    retry=st.none() | st.lists(st.integers(0, 1 << 40), max_size=32),
    count=st.integers(0, 3),
)
def test_what_is_encoded_passes_whole_and_not_cut(
    topic: str | None,
    params: str | None,
    delay: int | None,
    method: int | None,
    retry: list[int] | None,
    count: int,
) -> None:
    callback = idl.soraka.Callback(request_type=method, url=topic, params=params)
    submission = idl.soraka.Submission(
        topic_name=topic, delay_time=delay, callback=callback, retry_delays=retry
    )
    data = encoded(idl.soraka.Soraka.submitBatch_args(submissions=[submission] * count))
    assert passes(data, 1 + 44 * count)
    assert not any(passes(data[:size], 1000) for size in range(len(data)))


@pytest.mark.parametrize(
    "value",
    [
        field(LIST, listed(BYTE, 3, b"abc")),
        field(SET, listed(STRING, 2, b"\0\0\0\1a\0\0\0\0")),
        field(MAP, mapped(STRING, I64, 1, b"\0\0\0\1a" + bytes(8))),
        field(MAP, mapped(STRUCT, LIST, 1, b"\0" + listed(I64, 1, bytes(8)))),
        field(MAP, mapped(STOP, STOP, 0)),
        field(LIST, listed(STOP, 0)),
        structs(skim.MAX_DEPTH)[:-1],
    ],
)
def test_every_shape_passes(value: bytes) -> None:
    """Behind it stands a field that is wrong: the walk has come out where the value ends."""
    assert passes(value + b"\0")
    assert not passes(value + field(VOID, b"") + b"\0")


@pytest.mark.parametrize(
    "value",
    [
        field(VOID, b""),
        field(U64, bytes(8)),
        field(-1, b""),
        field(LIST, listed(VOID, 1)),
        field(LIST, listed(VOID, 90)),
        field(LIST, listed(STOP, 1)),
        field(MAP, mapped(BYTE, VOID, 1, b"\0")),
        field(STRING, b"\xff\xff\xff\xff"),
        structs(skim.MAX_DEPTH + 1)[:-1],
        field(LIST, listed(LIST, 1) * skim.MAX_DEPTH),
    ],
)
def test_what_thriftpy2_would_skip_blindly_is_refused(value: bytes) -> None:
    assert not passes(value + b"\0")


@pytest.mark.parametrize(
    ("of", "per"),
    [
        (lambda n: field(BYTE, b"x") * n, 1),
        (lambda n: field(LIST, listed(BYTE, n - 1, bytes(n - 1))), 1),
        (lambda n: field(LIST, listed(STRUCT, n - 1, bytes(n - 1))), 1),
        (lambda n: field(STRUCT, field(BYTE, b"x") * (n - 1) + b"\0"), 1),
        (lambda n: field(MAP, mapped(BYTE, BYTE, (n - 1) // 2, bytes(n - 1))), 2),
    ],
)
def test_the_budget_is_exact(of, per: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    assert passes(of(41) + b"\0", 41)
    assert not passes(of(41) + b"\0", 40)
    assert not passes(of(41 + per) + b"\0", 41)


@pytest.mark.parametrize(
    "data",
    [
        field(LIST, listed(STRUCT, 8_000_000, bytes(8_000_000))),
        field(LIST, listed(BYTE, 8_000_000, bytes(8_000_000))),
        field(LIST, listed(VOID, (1 << 32) - 1)),
        field(LIST, listed(LIST, 40_000, listed(VOID, (1 << 31) - 1) * 40_000)),
        field(BYTE, b"x") * 2_000_000,
        field(STRUCT, b"\0") * 2_000_000,
        field(LIST, listed(STRUCT, 1, field(STRUCT, b"\0") * 2_000_000 + b"\0")),
        structs(900)[:-1] * 100,
    ],
    ids=["structs", "bytes", "voids", "lists of voids", "fields", "empties", "nested", "deep"],
)
def test_the_worst_is_refused_at_once(data: bytes) -> None:
    started = time.perf_counter()
    assert not passes(data + b"\0", 50_000)
    # 0.02 to 0.1 s here; thriftpy2 alone takes seconds to minutes for them
    assert time.perf_counter() - started < 1
