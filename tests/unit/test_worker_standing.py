"""A store that was killed lost a claim: the call is not made, whatever waited it waited for."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from soraka.adapters.redis_store import RedisStore
from soraka.config import WorkerConfig
from soraka.errors import StoreUnavailable
from soraka.message import Callback, State
from soraka.ports import Claim, Verdict
from tests.contract.store_kit import cancel, message, put, redis_store
from tests.servers import Server, newest_aof
from tests.unit.sinks import Sink, eventually, ok
from tests.unit.worker_kit import OWNER, Rig, Switched, after, calls
from worker.admission import Why
from worker.callback import Caller
from worker.loop import Loop
from worker.standing import SURE_S


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "store.db", lease_margin_ms=20_000)
    yield made
    made.close()


@pytest.fixture
def on_redis(redis_server: Server) -> Iterator[RedisStore]:
    with redis_store(redis_server.url, lease_margin_ms=20_000) as made:
        yield made


@contextmanager
def running(store: RedisStore) -> Iterator[Loop]:
    """Ten calls at a time, and as many wait."""
    with closing(Caller(max_response_bytes=4096)) as caller:
        config = WorkerConfig(page_ms=100, horizon_ms=1000, max_per_host=10)
        loop = Loop(owner=OWNER, store=store, clock=store, call=caller, config=config, shards=4)
        loop.start()
        try:
            yield loop
        finally:
            loop.stop()


def test_a_cancel_holds_that_was_confirmed_after_redis_lost_the_claim(
    on_redis: RedisStore, redis_server: Server, server: Sink
) -> None:
    go_on = Event()
    server.reply = lambda sock, seen: go_on.wait(15) and None
    now = on_redis.now_ms()
    callback = Callback(method="POST", url=server.url, params="{}")
    messages = [message(now + n, ttr_ms=15_000, callback=callback) for n in range(20)]
    put(on_redis, *messages, owner=OWNER)
    on_redis.now_ms()  # what was answered is in the file
    claims_begin = newest_aof(redis_server).stat().st_size
    with running(on_redis) as loop:
        eventually(lambda: loop.in_flight == 20 and len(server.seen) == 10)
        redis_server.kill()
        os.truncate(newest_aof(redis_server), claims_begin)
        redis_server.start()
        eventually(lambda: on_redis.restarts(), 10)
        on_redis.vouch(on_redis.restarts())
        ids = [m.msg_id for m in messages]
        assert set(on_redis.command([cancel(i) for i in ids])) == {Verdict.APPLIED}
        go_on.set()
        eventually(lambda: loop.in_flight == 0, 20)
    assert len(server.seen) == 10  # which had left before
    states = Counter(stored.state for stored in on_redis.get(ids) if stored)
    assert states == {State.CANCELLED: len(ids)}


class Living(Switched):
    """A server that may lose claims with its life; notes when it is asked for that, and may be
    silent then."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.real)
        self.now_in = "first"
        self.asked = 0
        self.silent = False
        self.slow_claim_s = 0.0

    def claim(self, msg_ids: Sequence[str], ahead_ms: int = 0) -> list[Claim]:
        claims = [claim._replace(life=self.now_in) for claim in super().claim(msg_ids, ahead_ms)]
        gevent.sleep(self.slow_claim_s)
        return claims

    def life(self, msg_id: str) -> str:
        self.asked += 1
        if self.silent:
            raise StoreUnavailable("silent")
        return self.now_in


def test_calls_that_waited_are_made_when_their_claims_stand(rig: Rig, server: Sink) -> None:
    store = Living(rig)
    server.reply = after(0.03)
    rig.loop(store=store, max_per_host=5)
    msg_ids = rig.put(server.url, count=30)
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert calls(server) == dict.fromkeys(msg_ids, 1)
    assert store.asked
    assert Why.CLAIM not in rig.released


def test_a_claim_of_another_life_is_given_back_and_made_again(rig: Rig, server: Sink) -> None:
    store = Living(rig)
    go_on = Event()
    server.reply = lambda sock, seen: ok()(sock, seen) if go_on.wait(10) else None
    loop = rig.loop(store=store, max_per_host=1)
    msg_ids = rig.put(server.url, count=2)
    eventually(lambda: len(server.seen) == 1 and loop.in_flight == 2)
    gevent.sleep(2 * SURE_S)
    store.now_in = "second"
    go_on.set()
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert rig.released.count(Why.CLAIM) == 1
    assert calls(server) == dict.fromkeys(msg_ids, 1)


def test_one_question_to_a_server_is_for_all_who_wait(rig: Rig, server: Sink) -> None:
    store = Living(rig)
    store.slow_claim_s = 0.1
    rig.loop(store=store)
    msg_ids = rig.put(server.url, count=100)
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert 1 <= store.asked < 20


def test_nobody_is_asked_about_new_claims_nor_where_claims_keep_coming(
    rig: Rig, server: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.standing.SURE_S", 10.0)  # this machine may be busy
    store = Living(rig)
    rig.loop(store=store)
    msg_ids = rig.put(server.url, count=20)
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert store.asked == 0


def test_without_an_answer_no_call_is_made_and_the_message_given_back(
    rig: Rig, server: Sink
) -> None:
    store = Living(rig)
    store.slow_claim_s, store.silent = 0.05, True
    rig.loop(store=store)
    (msg_id,) = rig.put(server.url)
    eventually(lambda: rig.released.count(Why.CLAIM) >= 2)
    assert server.seen == []
    store.silent = False
    assert rig.ends(msg_id).attempt == 1  # those given back do not count
    assert calls(server) == {msg_id: 1}


def test_an_answer_that_does_not_come_is_not_waited_for(rig: Rig, server: Sink) -> None:
    store = Living(rig)
    store.slow_claim_s = 0.05
    never = Event()

    def hangs(_id: str) -> str:
        never.wait()
        return ""

    store.life = hangs  # type: ignore[method-assign]
    loop = rig.loop(store=store)
    rig.put(server.url, count=3)
    started = time.monotonic()
    eventually(lambda: rig.released.count(Why.CLAIM) >= 3)
    assert time.monotonic() - started >= 1.0
    assert server.seen == []
    loop.stop()
