"""Message ids: unique, in order, and with the time of the clock they were given."""

import uuid
from collections.abc import Callable

import pytest

from receive_app.ids import BACK_MS, Ids
from soraka.message import ID_AHEAD_MS, id_time_ms

NOW = 1_700_000_000_000


def at(*moments: int) -> Callable[[], int]:
    """A clock that tells these."""
    left = iter(moments)
    return lambda: next(left)


def test_an_id_is_a_uuid7_of_that_time() -> None:
    made = Ids(lambda: NOW)()
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, made)
    assert id_time_ms(made) == NOW


def test_many_in_one_millisecond_are_unique_and_in_order() -> None:
    ids = Ids(lambda: NOW)
    made = [ids() for _ in range(20_000)]
    assert made == sorted(set(made))
    last = id_time_ms(made[-1])
    assert last is not None
    assert 2 <= last - NOW <= 10  # 2048 to 4096 in each


def test_two_processes_do_not_make_the_same() -> None:
    one, other = Ids(lambda: NOW), Ids(lambda: NOW)
    assert not {one() for _ in range(5000)} & {other() for _ in range(5000)}


def test_a_clock_set_back_a_little_keeps_the_order() -> None:
    ids = Ids(at(NOW, NOW - BACK_MS, NOW + 1))
    made = [ids() for _ in range(3)]
    assert made == sorted(set(made))
    assert id_time_ms(made[1]) == NOW


@pytest.mark.parametrize("back_ms", [BACK_MS + 1, 3_600_000])
def test_a_clock_set_back_by_much_is_followed(back_ms: int) -> None:
    """Or its ids would be refused as from the future."""
    ids = Ids(at(NOW, NOW - back_ms))
    ids()
    assert id_time_ms(ids()) == NOW - back_ms
    assert BACK_MS < ID_AHEAD_MS
