"""Message ids: unique, in order, and with the time of the clock they were given."""

import uuid

import pytest

from receive_app.ids import BACK_MS, Ids
from soraka.message import ID_AHEAD_MS, id_time_ms

NOW = 1_700_000_000_000


def test_an_id_is_a_uuid7_of_that_time() -> None:
    made = Ids()(NOW)
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, made)
    assert id_time_ms(made) == NOW


def test_many_in_one_millisecond_are_unique_and_in_order() -> None:
    ids = Ids()
    made = [ids(NOW) for _ in range(20_000)]
    assert made == sorted(set(made))
    last = id_time_ms(made[-1])
    assert last is not None
    assert 2 <= last - NOW <= 10  # 2048 to 4096 in each


def test_two_processes_do_not_make_the_same() -> None:
    one, other = Ids(), Ids()
    assert not {one(NOW) for _ in range(5000)} & {other(NOW) for _ in range(5000)}


def test_a_clock_set_back_a_little_keeps_the_order() -> None:
    ids = Ids()
    made = [ids(moment) for moment in (NOW, NOW - BACK_MS, NOW + 1)]
    assert made == sorted(set(made))
    assert id_time_ms(made[1]) == NOW


@pytest.mark.parametrize("back_ms", [BACK_MS + 1, 3_600_000])
def test_a_clock_set_back_by_much_is_followed(back_ms: int) -> None:
    """Or its ids would be refused as from the future."""
    ids = Ids()
    ids(NOW)
    assert id_time_ms(ids(NOW - back_ms)) == NOW - back_ms
    assert BACK_MS < ID_AHEAD_MS
