"""Claims that the shard of a message does not answer, while others are."""

from collections import Counter

import gevent
import pytest
import redis

from soraka.config import WorkerConfig
from soraka.message import Callback, State
from tests.contract.store_kit import message, put, redis_store
from tests.servers import Server
from tests.unit.sinks import Sink, eventually, ok
from tests.unit.worker_kit import OWNER, Rig, after, calls
from worker.again import shard_of
from worker.callback import Caller
from worker.loop import Loop

# Run without coverage, which would take most of the time that is measured here.
pytestmark = pytest.mark.timed


def test_one_in_the_dark_is_asked_about_again_and_called_when_it_is_back(
    rig: Rig, server: Sink
) -> None:
    loop = rig.loop()
    (msg_id,) = rig.put(server.url, in_ms=150)
    rig.store.dark = {msg_id}
    eventually(lambda: len(rig.store.asked_in_the_dark) >= 8)
    assert loop.held == 1
    assert loop.in_flight <= 1
    rig.store.dark = set()
    back = rig.now()
    rig.ends(msg_id)
    assert server.seen[0].at - back < 700
    assert calls(server) == {msg_id: 1}
    eventually(lambda: loop.held == loop.in_flight == 0)


def test_many_in_the_dark_are_not_asked_about_all_the_time_nor_hold_up_others(
    rig: Rig, server: Sink
) -> None:
    loop = rig.loop(max_callbacks=300)
    dark = rig.put(server.url, count=2000, in_ms=300)
    rig.store.dark = set(dark)
    eventually(lambda: len(rig.store.asked_in_the_dark) >= len(dark))
    gevent.sleep(1)  # the pace has grown
    rig.store.asked_in_the_dark.clear()
    claims = len(rig.store.claims)
    gevent.sleep(2)
    assert 2 <= len(rig.store.asked_in_the_dark) <= 200
    assert len(rig.store.claims) - claims <= 20
    fine = rig.put(server.url, count=300, in_ms=300)
    rig.all_end(fine, State.SUCCEEDED)
    late = [seen.at - int(seen.headers["soraka-due-at"]) for seen in server.seen]
    assert sorted(late)[len(late) // 2] < 500
    assert loop.held == len(dark)
    assert loop.deliver([(dark[0], rig.now())]) == 0  # it is known
    rig.store.dark = set()
    rig.all_end(dark, State.SUCCEEDED, limit_s=20)
    assert calls(server) == dict.fromkeys(dark + fine, 1)


def test_of_two_shards_in_the_dark_one_may_come_back(rig: Rig, server: Sink) -> None:
    rig.loop(shards=8)
    msg_ids = rig.put(server.url, count=2000, in_ms=200)
    back = [msg_id for msg_id in msg_ids if shard_of(msg_id, 8) == 5]
    rig.store.dark = set(msg_ids)
    eventually(lambda: len(rig.store.asked_in_the_dark) >= 2200)
    gevent.sleep(1)  # the pace has grown
    rig.store.dark -= set(back)
    rig.all_end(back, State.SUCCEEDED, limit_s=4)
    assert set(calls(server)) == set(back)


def test_dark_ones_are_let_go_at_the_drain_and_called_by_the_next(rig: Rig, server: Sink) -> None:
    loop = rig.loop()
    msg_ids = rig.put(server.url, count=10)
    rig.store.dark = set(msg_ids)
    eventually(lambda: loop.held == 10)
    assert loop.drain(5)
    loop.stop()
    rig.store.dark = set()
    rig.loop()
    rig.all_end(msg_ids, State.SUCCEEDED)


def test_outcomes_in_the_dark_hold_up_no_others(rig: Rig, server: Sink) -> None:
    server.reply = after(0.3)
    loop = rig.loop(shards=8, max_callbacks=300, max_per_host=300)
    msg_ids = rig.put(server.url, count=150, ttr_ms=60_000)
    eventually(lambda: len(server.seen) == 150)
    dark = {msg_id for msg_id in msg_ids if shard_of(msg_id, 8) in (3, 6)}
    rig.store.dark = set(dark)  # their calls are under way
    rig.all_end([msg_id for msg_id in msg_ids if msg_id not in dark], State.SUCCEEDED)
    server.reply = ok()
    later = [
        msg_id
        for msg_id in rig.put(server.url, count=400, in_ms=100)
        if shard_of(msg_id, 8) not in (3, 6)
    ]
    rig.all_end(later, State.SUCCEEDED)
    settles = len(rig.store.settles)
    gevent.sleep(1)
    assert len(rig.store.settles) - settles < 20
    rig.store.dark = set()
    rig.all_end(msg_ids, State.SUCCEEDED)
    eventually(lambda: loop.in_flight == 0)
    assert set(calls(server).values()) == {1}


@pytest.mark.timeout(120)
def test_a_redis_that_has_restarted_is_asked_until_it_is_vouched_for(
    redis_server: Server, server: Sink
) -> None:
    with redis_store(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as admin:
        admin.config_set("appendfsync", "always")
        callback = Callback(method="POST", url=server.url, params="{}")
        messages = [message(store.now_ms() + 500, callback=callback) for _ in range(50)]
        put(store, *messages, owner=OWNER)
        with redis_server.outage():
            pass
        config = WorkerConfig(page_ms=100, horizon_ms=1000)
        caller = Caller(max_response_bytes=4096)
        loop = Loop(owner=OWNER, store=store, clock=store, call=caller, config=config)
        loop.start()
        try:
            eventually(lambda: loop.held == 50 and store.now_ms() > messages[0].due_at + 1000)
            assert server.seen == []
            store.vouch(store.restarts())
            eventually(lambda: store.totals().succeeded == 50, 10)
            assert Counter(calls(server).values()) == {1: 50}
        finally:
            loop.stop()
            caller.close()
