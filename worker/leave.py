"""Leaving: what is a worker's goes to others, while it still serves what falls due."""

import logging
import time

import gevent

from soraka.errors import StoreUnavailable
from soraka.message import Instance
from soraka.ports import Registry, Store

log = logging.getLogger(__name__)

FOREVER = 1 << 52
"""Later than any due time."""
LOOK_S = 0.1


def handed_over(instance: Instance, registry: Registry, store: Store, limit_s: float) -> bool:
    """Waits until `instance` has nothing in the store any more; False when the limit came first.

    Does not wait when there is no other worker to take it, or no center to give it.
    """
    deadline = time.monotonic() + limit_s
    while _is_taken_over(instance, registry) and not _has_nothing(instance.address, store):
        if time.monotonic() >= deadline:
            log.warning("drain.not_handed_over", extra={"limit_s": round(limit_s, 1)})
            return False
        gevent.sleep(LOOK_S)
    return True


def _is_taken_over(instance: Instance, registry: Registry) -> bool:
    others = registry.live("worker").values()
    takes = any(o.address != instance.address and not o.draining for o in others)
    return takes and bool(registry.live("center"))


def _has_nothing(owner: str, store: Store) -> bool:
    try:
        return not store.due(owner, FOREVER, 1)
    except StoreUnavailable:
        return False
