"""Idempotency keys: the same submission under the same key is one message. Ports only.

A key is kept in the store before its message goes into the log. Sent again, it gives the message
id that is kept; the message is appended again unless the store has it, which adds nothing where
the id is known. So the key holds at most for as long as finished messages are kept. Where that
time was made shorter since, its message may be forgotten already: then nothing is appended.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from soraka.config import Config
from soraka.errors import KeyReused, SorakaError, Unavailable
from soraka.message import Submission, Topic, id_time_ms
from soraka.ports import KeptKey, StoreKeys, StoreReader

_BYTES = 20
_encode = json.JSONEncoder(sort_keys=True).encode


class Keyed(NamedTuple):
    """A submission with an idempotency key, its topic, and the id made for it."""

    submission: Submission
    topic: Topic
    msg_id: str


class Given(NamedTuple):
    """The message id that the key stands for, and whether its message is yet to be appended."""

    msg_id: str
    append: bool


class Keys:
    """`window_ms` is how long a key holds; see `longest_window_ms`."""

    def __init__(self, store: StoreKeys, reader: StoreReader, window_ms: int) -> None:
        self._store = store
        self._reader = reader
        self._window_ms = window_ms

    def give(self, caller: str, asked: Sequence[Keyed]) -> list[Given | SorakaError]:
        """One answer each, in order. `caller` is whose keys these are. Raises StoreUnavailable."""
        ours = [_kept_of(caller, keyed) for keyed in asked]
        windows = [self._window_of(keyed.topic) for keyed in asked]
        kept = self._store.keep_keys(ours, windows)
        again = {k.msg_id for k, own in zip(kept, ours, strict=True) if k.msg_id != own.msg_id}
        stored = self._stored(sorted(again))
        rows = zip(kept, ours, windows, strict=True)
        return [_answer(k, own, window, stored) for k, own, window in rows]

    def _window_of(self, topic: Topic) -> int:
        return min(self._window_ms, topic.retention_ms or self._window_ms)

    def _stored(self, msg_ids: list[str]) -> set[str]:
        found = self._reader.get(msg_ids) if msg_ids else []
        return {i for i, stored in zip(msg_ids, found, strict=True) if stored is not None}


def longest_window_ms(config: Config) -> int:
    """A message must not be forgotten before its key, nor its id be too old for a cancel."""
    store = config.store
    kept_ms = min(store.retention_ms, store.dead_retention_ms)
    return min(config.receive.idempotency_ms, kept_ms, store.early_ms)


def _answer(kept: KeptKey, own: KeptKey, window_ms: int, stored: set[str]) -> Given | SorakaError:
    if kept.digest != own.digest:
        return KeyReused("idempotency_key: was sent before, with another message")
    if kept.msg_id in stored:
        return Given(kept.msg_id, append=False)
    if _age_ms(kept, own) > window_ms:
        return Unavailable("idempotency_key: is older than finished messages are kept by now")
    return Given(kept.msg_id, append=True)


def _age_ms(kept: KeptKey, own: KeptKey) -> int:
    """By their ids; `own` has been made just now."""
    return (id_time_ms(own.msg_id) or 0) - (id_time_ms(kept.msg_id) or 0)


def _kept_of(caller: str, keyed: Keyed) -> KeptKey:
    s = keyed.submission
    return KeptKey(_hash(caller, s.topic, s.idempotency_key), keyed.msg_id, digest(s))


def digest(s: Submission) -> str:
    """The same for submissions that mean the same, over HTTP and Thrift."""
    c = s.callback
    params = None if c.params is None else _normal(c.params)
    what = (s.delay_ms, s.deliver_at, s.ttr_ms, s.retry_ms, s.msg_id)
    return _hash(*what, c.method, c.url, params)


def _normal(params: str) -> str:
    """A JSON text, whatever its blanks and the order of its keys."""
    try:
        return _encode(json.loads(params))
    except RecursionError:
        return params


def _hash(*values: object) -> str:
    return blake2b(_encode(values).encode(), digest_size=_BYTES).hexdigest()
