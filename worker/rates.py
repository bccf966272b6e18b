"""How many calls of a topic may begin per second at this worker. Pure.

A rate is that of all workers together, so each takes its share. Those over it are told when to come
back: each gets the next place in a line that moves at the rate. Who comes for the first time
does not pass those who wait, so nobody is sent away again and again.
"""

import random
from collections import OrderedDict
from collections.abc import Callable

from soraka.rate import Rate

MAX_RATES = 10_000
MAX_DELAY_MS = 60_000
"""Beyond that the line has no order: who is at its end is looked at again in about a minute."""


class Rates:
    """`share` is asked each time: this worker's part of the rate of a topic; 0 is no limit."""

    def __init__(self, share: Callable[[str], float]) -> None:
        self._share = share
        self._rates: OrderedDict[str, Rate] = OrderedDict()

    def refused_ms(self, topic: str, now: float, *, came_back: bool) -> int:
        """0 when a call may begin now, and `take` must follow when it does; else when to come
        back. `came_back`: it was sent away before."""
        rate = self._rate(topic)
        if rate is None:
            return 0
        if not rate.wait_ms(now) and (came_back or not rate.has_line(now)):
            return 0
        delay_ms = rate.line_up(now)
        if delay_ms > MAX_DELAY_MS:
            rate.cut_line(now, MAX_DELAY_MS)
            delay_ms = MAX_DELAY_MS * random.uniform(0.5, 1)
        return int(delay_ms) + 1

    def take(self, topic: str, now: float) -> None:
        """A call begins now."""
        if rate := self._rates.get(topic):
            rate.take(now)

    def _rate(self, topic: str) -> Rate | None:
        share = self._share(topic)
        if not share:
            if self._rates:
                self._rates.pop(topic, None)
            return None
        rate = self._rates.get(topic)
        if rate is None:
            rate = self._rates[topic] = Rate(share)
            if len(self._rates) > MAX_RATES:
                self._rates.popitem(last=False)
        rate.per_second = share
        return rate
