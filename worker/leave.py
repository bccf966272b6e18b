"""Leaving: what is a worker's goes to others, while it still serves what falls due."""

import logging
import time

import gevent

from soraka.errors import StoreUnavailable
from soraka.message import Instance
from soraka.ports import Registry, StoreReader

log = logging.getLogger(__name__)

QUIET_S = 1.0
"""So long it must have had nothing: a center that has not heard yet may just be giving it more."""
LOOK_S = 0.1


def handed_over(instance: Instance, registry: Registry, store: StoreReader, limit_s: float) -> bool:
    """Waits until `instance` has had nothing in the store for a while; False when the limit came
    first and it has something, or may have.

    Does not wait when there is no other worker to take it, or no center to give it.
    """
    deadline = time.monotonic() + limit_s
    empty_since: float | None = None
    while _is_taken_over(instance, registry):
        now = time.monotonic()
        if not _has_nothing(instance.address, store):
            empty_since = None
        elif empty_since is None:
            empty_since = now
        elif now - empty_since >= QUIET_S:
            break
        if now >= deadline:
            return _ended_by_limit(empty_since is not None, limit_s)
        gevent.sleep(LOOK_S)
    return True


def _ended_by_limit(empty: bool, limit_s: float) -> bool:
    if not empty:
        log.warning("drain.not_handed_over", extra={"limit_s": round(limit_s, 1)})
    return empty


def _is_taken_over(instance: Instance, registry: Registry) -> bool:
    others = registry.live("worker").values()
    takes = any(o.address != instance.address and not o.draining for o in others)
    return takes and bool(registry.live("center"))


def _has_nothing(owner: str, store: StoreReader) -> bool:
    """By the word of all shards. `due` gives those within reach."""
    try:
        return not store.totals().pending.get(owner)
    except StoreUnavailable:
        return False
