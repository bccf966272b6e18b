"""Ids as Redis has them: back and forth, and in the same order."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soraka.adapters.id_span import id_span
from soraka.adapters.redis_ids import full, short, short_span
from soraka.errors import StoreUnavailable
from soraka.ports import Query

uuids = st.integers(0, (1 << 128) - 1).map(lambda number: str(uuid.UUID(int=number)))


@given(uuids | st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_comes_back_as_it_was(msg_id: str) -> None:
    assert full(short(msg_id)) == msg_id


@given(uuids, uuids)
def test_they_sort_as_the_ids_do(one: str, other: str) -> None:
    assert (short(one) < short(other)) == (one < other)
    assert len(short(one)) == 22


@pytest.mark.parametrize(
    "other",
    [
        "01890A5D-AC96-774B-BCCE-B302099A8057",
        "01890a5dac96774bbcceb302099a8057",
        "01890a5d-ac96-774b-bcce-b302099a805",
        "01890a5d-ac96-774b-bcce-b302099a8057\n",
        "",
        "!",
    ],
)
def test_what_is_no_uuid_in_canonical_form_is_another_id(other: str) -> None:
    assert short(other) == b"!" + other.encode()
    assert full(short(other)) == other


def test_an_id_that_another_version_wrote_is_refused() -> None:
    with pytest.raises(StoreUnavailable, match="LAYOUT"):
        full(b"01890a5d-ac96-774b-bcce-b302099a8057")


@given(
    uuids,
    st.integers(0, 40),
    st.integers(0, 1 << 48),
    st.integers(0, 1 << 48),
    uuids | st.just(""),
)
def test_a_span_holds_the_same_ids(
    msg_id: str, length: int, since: int, until: int, cursor: str
) -> None:
    """Of all that begin alike, of a time, and up to where a page ended."""
    for prefix in (msg_id[:length], "", "0G"):
        query = Query(["t"], [], since=since, until=until, prefix=prefix)
        span = id_span(query, cursor)
        low, high = short_span(query, cursor)
        held = {found for found in (msg_id, cursor) if found and low <= short(found) < high}
        assert held == {
            found for found in (msg_id, cursor) if found and span.low <= found < span.high
        }


texts = st.text("019afxyz-é", max_size=12)


@given(st.sets(uuids | texts, min_size=2))
def test_a_page_goes_on_right_behind_its_cursor(ids: set[str]) -> None:
    """Whatever the ids look like: none is left out, none comes twice."""
    every = Query(["t"], [])
    for cursor in ids - {""}:
        low, high = short_span(every, cursor)
        for other in ids:
            assert (low <= short(other) < high) == (short(other) < short(cursor))


@given(texts.filter(bool), texts)
def test_a_beginning_finds_nothing_that_begins_otherwise(start: str, other: str) -> None:
    low, high = short_span(Query(["t"], [], prefix=start), "")
    is_found = low <= short(other) < high
    assert not is_found or other.startswith(start)
    if other.startswith(start) and not set(start) <= set("019af-"):
        assert is_found


@given(texts, st.integers(1, 1 << 48))
def test_what_has_no_time_is_in_no_span_of_time(other: str, at: int) -> None:
    for query in (Query(["t"], [], since=at), Query(["t"], [], until=at - 1)):
        low, high = short_span(query, "")
        assert not low <= short(other) < high
