"""How long it takes to take a dead worker's messages over, on a real Redis."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

import gevent
import pytest

from center.moves import Moves
from center.reconcile import Reconcile
from center.workers import Workers
from soraka.adapters.local_registry import LocalRegistry
from soraka.adapters.redis_store import RedisStore
from soraka.clock import StoreClock
from soraka.message import Instance, Topic
from soraka.metrics import Metrics
from soraka.ports import ClaimKind, Ended, Outcome
from tests.contract.store_kit import HOUR, OTHER, OWNER, TOPIC, message, put, redis_store
from tests.servers import Server

# Run without coverage, which would take most of the time that is measured here.
pytestmark = pytest.mark.timed

PENDING = 100_000
OVERDUE = 2_000
THIRD = "127.0.1.3:1"


@pytest.fixture
def store(redis_server: Server) -> Iterator[RedisStore]:
    with redis_store(redis_server.url, shards=8) as made:
        yield made


def reconcile(store: RedisStore, *workers: str, topics: Sequence[Topic]) -> Reconcile:
    """Of a center for which an owner that is not there is absent at once."""
    registry = LocalRegistry(path=None)
    for topic in topics:
        registry.put_topic(topic, was=None)
    for address in workers:
        registry.register(Instance(service="worker", address=address, incarnation="1"))
    clock = StoreClock(store)
    clock.sync()
    known = Workers(registry, rpc_timeout_ms=100)
    return Reconcile(
        store=store,
        registry=registry,
        workers=known,
        moves=Moves(store=store, workers=known, clock=clock, horizon_ms=0),
        clock=clock,
        metrics=Metrics(),
        absent_ms=0,
        sweep_ms=30_000,
        turned=lambda: None,
    )


class Caller:
    """A live worker that claims and settles meanwhile; how long each call of it took."""

    def __init__(self, store: RedisStore, ids: list[str]) -> None:
        self.took_s: list[float] = []
        self.ended = 0
        self._store = store
        self._ids = ids
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """What it settled is counted by then."""
        self._ids = []
        self._greenlet.join()

    def _run(self) -> None:
        while self._ids:
            began = time.monotonic()
            batch, self._ids = self._ids[:10], self._ids[10:]
            claims = self._store.claim(batch)
            assert {claim.kind for claim in claims} == {ClaimKind.FIRE}
            outcomes = [
                Outcome(msg_id, claim.lease, Ended.SUCCEEDED)
                for msg_id, claim in zip(batch, claims, strict=True)
            ]
            self.ended += sum(self._store.settle(outcomes))
            self.took_s.append(time.monotonic() - began)
            gevent.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "other_balance", ["round_robin", "random"], ids=["topics-alike", "topics-differ"]
)
def test_a_hundred_thousand_are_taken_over_in_seconds_the_overdue_first(
    store: RedisStore, other_balance: str
) -> None:
    now = store.now_ms()
    dues = [now - OVERDUE + i for i in range(OVERDUE)] + [
        now + HOUR + i for i in range(PENDING - OVERDUE)
    ]
    for start in range(0, PENDING, 2000):
        put(store, *(message(due) for due in dues[start : start + 2000]))
    others = [message(now) for _ in range(10_000)]
    put(store, *others, owner=OTHER)
    topics = (Topic(name=TOPIC), Topic(name="other", balance=other_balance))
    center = reconcile(store, OTHER, THIRD, topics=topics)
    overdue = [row.msg_id for row in store.due(OWNER, now, OVERDUE)]
    assert len(overdue) == OVERDUE
    caller = Caller(store, [m.msg_id for m in others])
    began = time.monotonic()
    turning = gevent.spawn(center.turn)
    overdue_s = None
    try:
        while not turning.ready():
            if overdue_s is None and not store.due(OWNER, now, 1):
                overdue_s = time.monotonic() - began
                assert store.due(OWNER, 1 << 52, 1), "all at once"
            gevent.sleep(0.01)
        turning.get()
        took_s = time.monotonic() - began
    finally:
        turning.kill()
        caller.stop()
    assert store.owners() <= {OTHER, THIRD}
    pending = Counter(store.totals().pending)
    assert pending[THIRD] == PENDING // 2
    assert pending.total() == PENDING + len(others) - caller.ended
    print(
        f"\n{PENDING} taken over in {took_s:.2f} s, {OVERDUE} overdue in {overdue_s:.2f} s; "
        f"meanwhile {caller.ended} calls, a batch of ten took at most {max(caller.took_s):.3f} s"
    )
    assert took_s < 10
    assert overdue_s is not None
    assert overdue_s < took_s / 3
    assert len(caller.took_s) > took_s * 5, "no calls were made meanwhile"
    assert max(caller.took_s) < 1
