"""How many bytes of requests one process holds at a time, over all its connections."""

from soraka.errors import Unavailable

SMALL = 16 << 10
"""The first bytes of each request are free: big ones cannot keep the small out. So in all it is
the budget, and this much per connection."""


class ReadingBudget:
    """`limit` is in bytes. What is decoded from them takes several times that for a while."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def share(self) -> "Share":
        """For one request, from its first byte until it is answered."""
        return Share(self)

    def take(self, size: int) -> None:
        """Raises Unavailable, and takes nothing, when they are not there."""
        if size > self._left:
            raise Unavailable("too many bytes of other requests are being read")
        self._left -= size

    def give_back(self, size: int) -> None:
        self._left += size


class Share:
    """What one request holds of the budget, until the end of its `with`."""

    def __init__(self, budget: ReadingBudget) -> None:
        self._budget = budget
        self._size = 0
        self._held = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self, size: int) -> None:
        """Of the next bytes. Raises Unavailable: then they must not be kept."""
        more = self._size + size - SMALL - self._held
        if more > 0:
            self._budget.take(more)
            self._held += more
        self._size += size

    def release(self) -> None:
        """Safe to repeat."""
        self._budget.give_back(self._held)
        self._size = self._held = 0
