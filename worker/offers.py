"""Messages that wait for another attempt, offered to a center. Best effort."""

import logging
from collections.abc import Callable

from gevent.pool import Group

from soraka.errors import SorakaError
from soraka.ports import DueId

log = logging.getLogger(__name__)

HandBack = Callable[[list[tuple[str, DueId]]], list[str]]
"""Offers (topic, message) pairs to a center; the ids that went to another worker. Blocks until it
answered."""

MAX_OFFERS = 4
"""Under way at once. What is not offered stays here, which is no harm."""


class Offers:
    """`gone` is told of each message that went to another worker."""

    def __init__(
        self, hand_back: HandBack | None, gone: Callable[[str], object], greenlets: Group
    ) -> None:
        self._hand_back = hand_back
        self._gone = gone
        self._greenlets = greenlets
        self._under_way = 0

    def put(self, retries: list[tuple[str, DueId]]) -> None:
        """Never blocks."""
        if retries and self._hand_back and self._under_way < MAX_OFFERS:
            self._under_way += 1
            self._greenlets.spawn(self._offer, self._hand_back, retries)

    def _offer(self, hand_back: HandBack, retries: list[tuple[str, DueId]]) -> None:
        try:
            for msg_id in hand_back(retries):
                self._gone(msg_id)
        except SorakaError as exc:
            log.debug("hand_back.failed", extra={"reason": str(exc)})
        except Exception:  # a defect; they stay here
            log.exception("hand_back.failed")
        finally:
            self._under_way -= 1
