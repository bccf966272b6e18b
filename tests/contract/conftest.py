"""Stores of each kind."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soraka.ports import FullStore
from tests.contract.store_kit import KINDS, Open, TurnedClock, any_store


@pytest.fixture(params=KINDS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def opened(**other: Any) -> FullStore:
            store = any_store(request.param, request, tmp_path / "store.db", **other)
            return stack.enter_context(store)

        yield opened


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def store(open_store: Open, clock: TurnedClock) -> FullStore:
    return open_store(now_ms=clock)
