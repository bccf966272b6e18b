"""Letting others run during long work."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import gevent

from soraka.errors import InvalidParams, SorakaError
from soraka.message import Submission

T = TypeVar("T")


def paced(items: Iterable[T], every: int = 64) -> Iterator[T]:
    """The same items; other greenlets run after each `every` of them."""
    for index, item in enumerate(items, start=1):
        yield item
        if index % every == 0:
            gevent.sleep(0)


def parsed(
    parse: Callable[[Any], Submission], items: Iterable[Any]
) -> Iterator[Submission | SorakaError]:
    """Each as a submission, or why it is none; other greenlets run in between."""
    for item in paced(items):
        try:
            yield parse(item)
        except InvalidParams as exc:
            yield exc
