"""Logins are limited: by address, and by account.

Counted per process. One that is locked out may still use API tokens, and `soraka admin` on the
host.
"""

import time

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from soraka.errors import TooManyAttempts

WINDOW_S = 300


class FirstStopped(TooManyAttempts):
    """The first of its account or address in five minutes."""


class Attempts:
    """`per_account` and `per_address` in five minutes; a success forgets those of its account."""

    def __init__(self, *, per_account: int, per_address: int) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._account = RateLimitItemPerSecond(per_account, WINDOW_S, namespace="account")
        self._address = RateLimitItemPerSecond(per_address, WINDOW_S, namespace="address")
        self._stopped = RateLimitItemPerSecond(1, WINDOW_S, namespace="stopped")

    def take(self, name: str, address: str) -> None:
        """Before the password is looked at: of many at once, too, no more get through. Raises
        TooManyAttempts, the first time FirstStopped."""
        for item, key in ((self._address, address), (self._account, name)):
            if not self._limiter.hit(item, key):
                reset_s = self._limiter.get_window_stats(item, key).reset_time - time.time()
                wait_s = min(WINDOW_S, max(1, round(reset_s)))
                first = self._limiter.hit(self._stopped, item.namespace, key)
                kind = FirstStopped if first else TooManyAttempts
                raise kind(f"login: too many attempts; try again in {wait_s} s", wait_s)

    def succeeded(self, name: str) -> None:
        self._limiter.clear(self._account, name)
        self._limiter.clear(self._stopped, self._account.namespace, name)
