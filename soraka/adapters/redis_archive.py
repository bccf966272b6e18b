"""The archive in Redis: messages by topic and state, their history, samples."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import gevent

from soraka.adapters.redis_args import pairs, triples
from soraka.adapters.redis_ids import full, short_span
from soraka.adapters.redis_node import Arg
from soraka.adapters.redis_record import STATES, history_in, place_of, stored_of
from soraka.adapters.redis_scripts import prefix, records
from soraka.adapters.redis_send import surely_not_run
from soraka.adapters.redis_shards import RedisShards
from soraka.errors import DecodeError
from soraka.limits import DAY_MS
from soraka.message import PARKED, Attempt, State, Stored
from soraka.ports import STATS_MS, Backlog, NotAdded, Query, Sample

LISTS_AT_ONCE = 100
"""Of topics and states, in one call of `search`: 1 or 2 ms of Redis."""
ROUNDS = 8
"""Of `search`, for one page: entries may turn out stale."""
ENTRIES_AT_ONCE = 500
RECORDS_AT_ONCE = 16
TOPICS_AT_ONCE = 100
TIDIED_AT_ONCE = 250
"""Entries: 1 to 2 ms of Redis. Twice as many in one call."""
VALUES_AT_ONCE = 400
"""Of samples, when all are new: 2 ms of Redis."""
HASHES_AT_ONCE = 200
"""Of samples, 120 fields each: some 3 ms of Redis."""
MINUTE_MS = 60_000
SPAN_MS = 120 * MINUTE_MS
"""Of one hash: Redis keeps up to 128 fields (hash-max-listpack-entries) in a ninth of the memory
that one with all values of an hour takes."""


class _Entry(NamedTuple):
    short_id: bytes
    topic: bytes
    state: State

    @property
    def msg_id(self) -> str:
        return full(self.short_id)


class RedisArchive(RedisShards):
    """Implements StoreArchive."""

    def search(self, query: Query, cursor: str, limit: int) -> tuple[list[Stored], str]:
        """The cursor is the last id looked at."""
        found: list[Stored] = []
        for _ in range(ROUNDS):
            wanted = min(limit - len(found), ENTRIES_AT_ONCE)
            entries, cursor = self._entries(query, short_span(query, cursor), wanted)
            found += self._living(entries)
            if not cursor or len(found) >= limit:
                break
        return found, cursor

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        counted: dict[str, Counter[State]] = {}
        begins = dict.fromkeys(self._shards, "-")
        while begins:
            calls = [(shard, ("", begin, TOPICS_AT_ONCE)) for shard, begin in begins.items()]
            replies = self._redis.run("counts", calls)
            for shard, reply in zip(list(begins), replies, strict=True):
                topics = [topic.decode() for topic in reply[::5]]
                for at, topic in enumerate(topics):
                    held = dict(zip(STATES, reply[5 * at + 1 : 5 * at + 5], strict=True))
                    counted.setdefault(topic, Counter()).update(held)
                if len(topics) < TOPICS_AT_ONCE:
                    del begins[shard]
                else:
                    begins[shard] = f"({topics[-1]}"
        return {
            topic: {state: held[state] for state in STATES}
            for topic, held in counted.items()
            if held.total()
        }

    def history(self, msg_id: str) -> list[Attempt]:
        (raw,) = self._raws([msg_id])
        return [] if raw is None else history_in(raw)

    def backlog(self, now: int) -> Backlog:
        overdue, parked, oldest = 0, 0, []
        for reply in self._redis.run("backlog", self._on_all("", now)):
            for owner, due, first in triples(reply):
                if owner.startswith(PARKED.encode()):
                    parked += due
                else:
                    overdue += due
                    oldest.append(int(first))
        return Backlog(overdue, min(oldest, default=None), parked)

    def count_due(self, owner: str, since: int) -> int:
        return sum(self._redis.read(self._everywhere("ZCOUNT", f"o:{owner}", since, "+inf")))

    def keep(self, retention_ms: Mapping[str, int]) -> None:
        named = [(topic, ms) for topic, ms in retention_ms.items() if ms > 0]
        self._redis.run("keep", self._on_all("", *(arg for pair in named for arg in pair)))

    def tidy(self) -> int:
        """What is out of reach is left for another time."""
        step = self._on_all("", TIDIED_AT_ONCE)
        replies = self._redis.run_some("tidy", step) + self._redis.run_some("tidy", step)
        return sum(reply for reply in replies if reply is not None)

    def add_stats(self, samples: Sequence[Sample]) -> NotAdded:
        parts = list(self._stats_parts(samples))
        calls = [(shard, ("", STATS_MS + DAY_MS, *_args_of(part))) for shard, part in parts]
        again, lost, reason = list[Sample](), 0, ""
        for (_, part), reply in zip(parts, self._redis.attempt("add_stats", calls), strict=True):
            if not isinstance(reply, Exception):
                continue
            reason = reason or f"redis: {reply}"
            if surely_not_run(reply):
                again += part
            else:
                lost += len(part)
        return NotAdded(tuple(again), lost, reason)

    def _stats_parts(self, samples: Sequence[Sample]) -> Iterator[tuple[int, list[Sample]]]:
        """Samples of one shard, so many that one call takes them."""
        for shard, at in self._by_shard(sample.series for sample in samples).items():
            part, size = list[Sample](), 0
            for index in at:
                part.append(samples[index])
                size += len(samples[index].values)
                if size >= VALUES_AT_ONCE:
                    yield shard, part
                    part, size = [], 0
            if part:
                yield shard, part

    def stats(
        self, series: str, since: int, until: int, names: Collection[str] = ()
    ) -> Mapping[int, Mapping[str, int]]:
        found: dict[int, dict[str, int]] = {}
        shard = self._shard_of(series)
        (known,) = self._redis.read([(shard, ("SMEMBERS", f"{prefix(shard)}yn:{series}"))])
        wanted = [name for name in sorted(map(bytes.decode, known)) if not names or name in names]
        spans = range(since // SPAN_MS, -(-until // SPAN_MS))
        hashes = [(span, name) for span in spans for name in wanted]
        for at in range(0, len(hashes), HASHES_AT_ONCE):
            part = hashes[at : at + HASHES_AT_ONCE]
            keys = (f"{prefix(shard)}y:{series}:{span}:{name}" for span, name in part)
            replies = self._redis.read([(shard, ("HGETALL", key)) for key in keys])
            for (span, name), reply in zip(part, replies, strict=True):
                for minute, value in pairs(reply):
                    begin = span * SPAN_MS + int(minute) * MINUTE_MS
                    if since <= begin < until:
                        found.setdefault(begin, {})[name] = int(value)
            gevent.sleep(0)
        return dict(sorted(found.items()))

    def _entries(
        self, query: Query, span: tuple[bytes, bytes], limit: int
    ) -> tuple[list[_Entry], str]:
        """Of the index, the latest first, and the cursor behind them."""
        low, high = span
        if low >= high or limit <= 0 or not query.states:
            return [], ""
        quota = self._quota(limit)
        replies = self._redis.run("search", list(self._searches(query, span, quota)))
        lists = [
            [_Entry(i, topic, STATES[int(state)]) for i, topic, state in triples(reply)]
            for reply in replies
        ]
        entries = sorted((entry for found in lists for entry in found), reverse=True)
        # Of a list that gave all it was asked for, nothing is known beyond its last entry.
        ends = [found[-1].short_id for found in lists if len(found) == quota]
        known_to = max(ends, default=b"")
        page = [entry for entry in entries if entry.short_id >= known_to][:limit]
        more = ends or len(page) < len(entries)
        return page, page[-1].msg_id if more else ""

    def _searches(
        self, query: Query, span: tuple[bytes, bytes], quota: int
    ) -> Iterator[tuple[int, Sequence[Arg]]]:
        states = "".join(str(STATES.index(state)) for state in query.states)
        low, high = span
        head = ("", b"[" + low, b"(" + high, quota, states)
        step = max(1, LISTS_AT_ONCE // len(states))
        for at in range(0, len(query.topics), step):
            yield from self._on_all(*head, *query.topics[at : at + step])

    def _living(self, entries: Sequence[_Entry]) -> Iterator[Stored]:
        """Corrects the index where it is behind the records."""
        stale = list[_Entry]()
        for entry, raw in zip(entries, self._raws([e.msg_id for e in entries]), strict=True):
            try:
                if raw is None or place_of(raw) != (entry.topic, entry.state):
                    stale.append(entry)
                else:
                    yield stored_of(entry.msg_id, raw)
            except DecodeError:
                continue
        self._correct(stale)

    def _correct(self, stale: Iterable[_Entry]) -> None:
        calls: dict[int, list[Arg]] = {}
        for entry in stale:
            into = calls.setdefault(self._shard_of(entry.msg_id), [""])
            into += (entry.topic, STATES.index(entry.state), entry.short_id)
        self._redis.run("correct", list(calls.items()))

    def _raws(self, msg_ids: Sequence[str]) -> list[bytes | None]:
        """A few records at a time: they may be large."""
        found: list[bytes | None] = [None] * len(msg_ids)
        parts = [
            (shard, at[i : i + RECORDS_AT_ONCE])
            for shard, at in self._by_shard(msg_ids).items()
            for i in range(0, len(at), RECORDS_AT_ONCE)
        ]
        commands = [records(shard, [msg_ids[i] for i in at]) for shard, at in parts]
        for (_, at), reply in zip(parts, self._redis.read(commands), strict=True):
            for i, raw in zip(at, reply, strict=True):
                found[i] = raw
        return found


def _args_of(samples: Iterable[Sample]) -> Iterator[Arg]:
    for series, minute, values in samples:
        span, rest = divmod(minute, SPAN_MS)
        yield from (series, span, rest // MINUTE_MS, len(values))
        for pair in values.items():
            yield from pair
