"""How long to wait before a call is sent again, and when to give up."""

import random
import time

from soraka.client.failures import Again

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


class Patience:
    """For one call: `seconds` in all, over so many servers."""

    def __init__(self, seconds: float, servers: int) -> None:
        self._until = time.monotonic() + seconds
        self._servers = servers
        self._failed = 0

    @property
    def is_new(self) -> bool:
        """Nothing was sent of which the outcome is unknown."""
        return self._failed == 0

    def wait(self, failure: Again) -> None:
        """Raises it when the time is up."""
        if not self.waits(failure):
            raise failure

    def waits(self, failure: Again) -> bool:
        """Waits; False at once when the time would be up by then."""
        self._failed += 1
        pause = self._pause(failure)
        if time.monotonic() + pause >= self._until:
            return False
        time.sleep(pause)
        return True

    def _pause(self, failure: Again) -> float:
        """Of a server that said nothing, the next one is asked at once."""
        rounds, rest = divmod(self._failed, self._servers)
        if rest and not failure.answered:
            return 0.0
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(rounds, 16))
        return max(failure.wait_s, random.uniform(longest / 2, longest))
