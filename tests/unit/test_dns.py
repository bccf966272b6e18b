import socket
from collections import Counter
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tests.unit.sinks import eventually
from worker.dns import Resolver

NOT_KNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class LookUp:
    """Stands for the resolver of the system, which no test can make slow or wrong at will."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.under_way = 0
        self.at_once = 0
        self.open = Event()
        self.open.set()
        self.error: OSError | None = None

    def __call__(self, host: str, *_: Any) -> list[tuple[Any, ...]]:
        self.asked[host] += 1
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        try:
            self.open.wait()
            if self.error is not None:
                raise self.error
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))] * 9
        finally:
            self.under_way -= 1


ADDRESS = (socket.AF_INET, ("192.0.2.1", 0))


def test_an_answer_is_kept_and_bounded() -> None:
    look_up = LookUp()
    resolver = Resolver(look_up=look_up)
    assert [resolver.addresses("a") for _ in range(3)] == [[ADDRESS] * 4] * 3
    assert look_up.asked == {"a": 1}


def test_addresses_need_no_look_up() -> None:
    look_up = LookUp()
    resolver = Resolver(look_up=look_up)
    assert resolver.addresses("192.0.2.7") == [(socket.AF_INET, ("192.0.2.7", 0))]
    assert resolver.addresses("::1") == [(socket.AF_INET6, ("::1", 0, 0, 0))]
    assert not look_up.asked
    resolver.addresses("1.example")
    assert look_up.asked == {"1.example": 1}


def test_those_who_ask_for_one_name_share_a_look_up() -> None:
    look_up = LookUp()
    look_up.open.clear()
    resolver = Resolver(look_up=look_up)
    asking = [gevent.spawn(resolver.addresses, "a") for _ in range(5)]
    eventually(lambda: look_up.under_way)
    look_up.open.set()
    assert all(one.get()[0] == ADDRESS for one in asking)
    assert look_up.asked == {"a": 1}


def test_an_error_is_kept_for_a_moment() -> None:
    look_up = LookUp()
    look_up.error = NOT_KNOWN
    resolver = Resolver(look_up=look_up, negative_s=0.2)
    for _ in range(3):
        with pytest.raises(socket.gaierror, match="not known"):
            resolver.addresses("a")
    assert look_up.asked == {"a": 1}
    look_up.error = None
    eventually(lambda: _addresses_or_none(resolver, "a"))
    assert look_up.asked == {"a": 2}


def _addresses_or_none(resolver: Resolver, host: str) -> Any:
    try:
        return resolver.addresses(host)
    except OSError:
        return None


def test_an_old_answer_is_used_while_a_new_one_is_fetched() -> None:
    look_up = LookUp()
    resolver = Resolver(look_up=look_up, ttl_s=0)
    resolver.addresses("a")
    look_up.open.clear()
    for _ in range(3):
        with gevent.Timeout(1):
            assert resolver.addresses("a")[0] == ADDRESS
    eventually(lambda: look_up.under_way == 1)
    look_up.open.set()
    eventually(lambda: look_up.under_way == 0)
    assert look_up.asked == {"a": 2}


def test_an_old_answer_outlives_a_failing_look_up_up_to_its_end() -> None:
    look_up = LookUp()
    resolver = Resolver(look_up=look_up, ttl_s=0, stale_s=0.3, negative_s=0)
    resolver.addresses("a")
    look_up.error = NOT_KNOWN
    assert resolver.addresses("a")[0] == ADDRESS
    eventually(lambda: look_up.asked["a"] == 2)
    assert resolver.addresses("a")[0] == ADDRESS
    eventually(lambda: _addresses_or_none(resolver, "a") is None)


def test_look_ups_under_way_are_bounded_and_a_known_name_needs_none() -> None:
    look_up = LookUp()
    resolver = Resolver(look_up=look_up, max_in_flight=3)
    resolver.addresses("known")
    look_up.open.clear()
    asking = [gevent.spawn(resolver.addresses, f"slow{n}") for n in range(10)]
    eventually(lambda: look_up.under_way == 3)
    with gevent.Timeout(1):
        resolver.addresses("known")
    look_up.open.set()
    gevent.joinall(asking, raise_error=True)
    assert look_up.at_once == 3


def test_what_nobody_waits_for_any_more_is_not_looked_up() -> None:
    look_up = LookUp()
    look_up.open.clear()
    resolver = Resolver(look_up=look_up, max_in_flight=1)
    first = gevent.spawn(resolver.addresses, "first")
    eventually(lambda: look_up.under_way == 1)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        resolver.addresses("second")
    look_up.open.set()
    first.get()
    third = gevent.spawn(resolver.addresses, "third")
    third.get()
    assert look_up.asked == {"first": 1, "third": 1}
    assert resolver.addresses("second")[0] == ADDRESS


def test_names_kept_are_bounded() -> None:
    look_up = LookUp()
    resolver = Resolver(look_up=look_up, max_names=2)
    for host in ("a", "b", "a", "c", "a", "b"):
        resolver.addresses(host)
    assert look_up.asked == {"a": 1, "b": 2, "c": 1}
