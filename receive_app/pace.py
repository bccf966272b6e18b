"""Letting others run during long work."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import gevent

T = TypeVar("T")


def paced(items: Iterable[T], every: int = 64) -> Iterator[T]:
    """The same items; other greenlets run after each `every` of them."""
    for index, item in enumerate(items, start=1):
        yield item
        if index % every == 0:
            gevent.sleep(0)
