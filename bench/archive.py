"""How long people wait for lists, counts and charts, with millions of messages in Redis.

    python -m bench.archive --redis redis://127.0.0.1:6379/0
    python -m bench.archive --redis ... --pending 100000 --finished 100000

Fills the store by its own calls, then makes each call of StoreArchive some times in turn. `worst`
is the slowest of them as the caller sees it; `blocked` the longest that one command held Redis
meanwhile, from SLOWLOG. The database of Redis is flushed, and its SLOWLOG taken over.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import random  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from contextlib import closing  # noqa: E402

import redis  # noqa: E402
from gevent.pool import Pool  # noqa: E402

from bench.store import PARAMS, SETTINGS, URL  # noqa: E402
from soraka.adapters.redis_store import RedisStore  # noqa: E402
from soraka.limits import DAY_MS  # noqa: E402
from soraka.message import Callback, Command, CommandKind, Message, State  # noqa: E402
from soraka.ports import Ended, Lease, NewMessage, Outcome, Query, Sample  # noqa: E402

TOPICS = [f"topic-{i}" for i in range(100)]
OWNERS = [f"10.0.0.{i}:30002" for i in range(1, 9)]
SHARDS = 8
BATCH = 500
AT_ONCE = 4
MINUTE_MS = 60_000
WEEK_MS = 7 * DAY_MS
SERIES_VALUES = 12
SLOW_US = 1000
REPEATS = 20
RARE = 7
"""Dead letters of the first topic; elsewhere a tenth of what is finished is dead."""


class Filler:
    """Messages submitted over the last week."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._now = store.now_ms()
        self._chance = random.Random(1)
        self._rare = RARE

    def pending(self, count: int) -> None:
        """One in a hundred is overdue."""

        def due_at() -> int:
            return self._now + self._chance.randrange(-WEEK_MS // 100, WEEK_MS)

        self._each(count, lambda size: self._schedule(size, due_at))

    def finished(self, count: int) -> None:
        self._each(count, lambda size: self._finish(self._schedule(size, lambda: self._now)))

    def samples(self, series: str) -> None:
        last = self._now // MINUTE_MS * MINUTE_MS
        values = {f"value-{i}": i for i in range(SERIES_VALUES)}
        minutes = range(last - WEEK_MS, last, MINUTE_MS)
        self._store.add_stats([Sample(series, minute, values) for minute in minutes])

    def _each(self, count: int, work: Callable[[int], object]) -> None:
        pool = Pool(AT_ONCE)
        for at in range(0, count, BATCH):
            pool.spawn(work, min(BATCH, count - at))
        pool.join(raise_error=True)

    def _schedule(self, size: int, due_at: Callable[[], int]) -> list[Message]:
        """Out of turn: with no position of the log to join on, several batches go at once."""
        messages = [self._message(due_at()) for _ in range(size)]
        entries = [NewMessage(0, m, self._chance.choice(OWNERS)) for m in messages]
        self._store.schedule("bench", (-1,) * SHARDS, -1, entries)
        return messages

    def _message(self, due_at: int) -> Message:
        made = self._now - self._chance.randrange(WEEK_MS)
        number = made << 80 | 7 << 76 | 2 << 62 | self._chance.getrandbits(62)
        return Message(
            msg_id=str(uuid.UUID(int=number)),
            topic=self._chance.choice(TOPICS),
            created_at=made,
            due_at=due_at,
            ttr_ms=1000,
            callback=Callback(method="POST", url=URL, params=PARAMS),
        )

    def _finish(self, messages: Sequence[Message]) -> None:
        """A fifth is cancelled, a tenth dies, the others succeed."""
        cancelled, called = messages[: len(messages) // 5], messages[len(messages) // 5 :]
        self._store.command(
            [
                Command(
                    command_id=m.msg_id, msg_id=m.msg_id, topic=m.topic, kind=CommandKind.CANCEL
                )
                for m in cancelled
            ]
        )
        claims = self._store.claim([m.msg_id for m in called])
        self._store.settle(
            [self._outcome(m, claim.lease) for m, claim in zip(called, claims, strict=True)]
        )

    def _outcome(self, m: Message, lease: Lease) -> Outcome:
        dies = self._chance.random() < 1 / 8
        if m.topic == TOPICS[0] and dies:
            self._rare -= 1
            dies = self._rare >= 0
        return Outcome(
            m.msg_id,
            lease,
            Ended.DEAD if dies else Ended.SUCCEEDED,
            reason="HTTP 500" if dies else "",
            started_at=self._now,
            duration_ms=12,
            worker=OWNERS[0],
            status=500 if dies else 200,
        )


def fill(client: "redis.Redis", store: RedisStore, pending: int, finished: int) -> None:
    store.vouch(store.restarts())
    filler = Filler(store)
    client.slowlog_reset()
    begin = time.perf_counter()
    filler.pending(pending)
    filler.finished(finished)
    filler.samples("topic-1")
    took, held = time.perf_counter() - begin, client.info("memory")["used_memory"] >> 20
    print(f"filled in {took:.0f} s, {held} MB, blocked {_blocked_ms(client):.1f} ms at most")


def calls(store: RedisStore, example: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each with what it is called in the table."""
    now = store.now_ms()
    every = Query(TOPICS, list(State))

    def search(query: Query, limit: int = 50) -> Callable[[], object]:
        return lambda: store.search(query, "", limit)

    yield "search, all topics and states, 50", search(every)
    yield "search, all topics and states, 500", search(every, 500)
    for state in State:
        yield f"search, {state}, all topics", search(every._replace(states=[state]))
    yield "search, one topic, pending", search(Query(TOPICS[1:2], [State.PENDING]))
    yield f"search, one topic, {RARE} dead", search(Query(TOPICS[:1], [State.DEAD]))
    yield "search, whole id", search(every._replace(prefix=example))
    yield "search, 8 characters of an id", search(every._replace(prefix=example[:8]))
    at = now - WEEK_MS // 2
    yield "search, one second", search(every._replace(since=at, until=at + 1000))
    yield (
        "search, one hour, page 2",
        lambda: store.search(
            every._replace(since=at, until=at + 60 * MINUTE_MS),
            store.search(every._replace(since=at, until=at + 60 * MINUTE_MS), "", 50)[1],
            50,
        ),
    )
    yield "get and history of one", lambda: (store.get([example]), store.history(example))
    yield "counts", store.counts
    yield "backlog", lambda: store.backlog(now)
    yield "totals", store.totals
    yield "count_due, one owner", lambda: store.count_due(OWNERS[0], now)
    yield "due(since), 500", lambda: store.due(OWNERS[0], 1 << 52, 500, since=now + DAY_MS)
    yield "stats, 7 days by minute", lambda: store.stats("topic-1", now - WEEK_MS, now)
    yield "tidy", store.tidy


def measure(client: "redis.Redis", name: str, call: Callable[[], object]) -> None:
    client.slowlog_reset()
    took = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        call()
        took.append(1000 * (time.perf_counter() - begin))
    took.sort()
    blocked = _blocked_ms(client)
    print(f"{name:38} {took[len(took) // 2]:8.1f} {took[-1]:8.1f} {blocked:8.1f}")


def _blocked_ms(client: "redis.Redis") -> float:
    slow = client.slowlog_get(1000)
    return max((entry["duration"] / 1000 for entry in slow), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench.archive", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--redis", metavar="URL", required=True, help="flushed first")
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--again", action="store_true", help="on what the last run has left")
    options = parser.parse_args()
    client = redis.Redis.from_url(options.redis)
    client.config_set("slowlog-log-slower-than", SLOW_US)
    with closing(RedisStore(url=options.redis, shards=SHARDS, **SETTINGS)) as store:
        if not options.again:
            client.flushdb()
            fill(client, store, options.pending, options.finished)
        (example,), _ = store.search(Query(TOPICS, [State.PENDING]), "", 1)
        print(f"{'ms':38} {'median':>8} {'worst':>8} {'blocked':>8}   (blocked 0: under 1 ms)")
        for name, call in calls(store, example.message.msg_id):
            measure(client, name, call)


if __name__ == "__main__":
    main()
