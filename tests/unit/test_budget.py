"""The bytes of requests held at a time."""

from contextlib import suppress

import pytest

from soraka.budget import SMALL, ReadingBudget
from soraka.errors import Unavailable

LIMIT = 100_000


def test_small_requests_are_read_though_nothing_is_left() -> None:
    budget = ReadingBudget(LIMIT)
    with budget.share() as big, budget.share() as small, budget.share() as other:
        big.take(SMALL + LIMIT)
        small.take(SMALL // 2)
        small.take(SMALL // 2)
        with pytest.raises(Unavailable):
            small.take(1)
        other.take(SMALL)


def test_what_is_refused_takes_nothing() -> None:
    budget = ReadingBudget(LIMIT)
    with budget.share() as one, budget.share() as other:
        one.take(SMALL + LIMIT // 2)
        with pytest.raises(Unavailable):
            other.take(SMALL + LIMIT // 2 + 1)
        other.take(SMALL + LIMIT // 2)


def test_all_is_given_back_however_it_ends() -> None:
    budget = ReadingBudget(LIMIT)
    for _ in range(3):
        with suppress(ZeroDivisionError), budget.share() as share:
            for _ in range(LIMIT // 1000):
                share.take(1000)
            raise ZeroDivisionError
    with budget.share() as share:
        share.take(SMALL + LIMIT)
        share.release()
        share.release()
        with budget.share() as other:
            other.take(SMALL + LIMIT)
        share.take(SMALL + LIMIT)
