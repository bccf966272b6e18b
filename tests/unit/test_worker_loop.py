"""The loop with the real SQLite store and real sockets."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import pytest
import redis
from gevent.event import Event

import idl
from soraka.adapters.redis_ids import short
from soraka.adapters.redis_store import RedisStore
from soraka.adapters.sqlite_store import SqliteStore
from soraka.config import WorkerConfig
from soraka.errors import PeerUnavailable, StoreUnavailable
from soraka.message import Callback, Command, CommandKind, State
from soraka.ports import Claim, DueId, Ended, Move, Outcome, Verdict
from tests.contract.store_kit import message, put, redis_store
from tests.servers import Server
from tests.unit.machine import withheld
from tests.unit.sinks import Sink, eventually, ok, raw, sink
from tests.unit.worker_kit import OWNER, Rig, Switched, after, calls, late_ms
from worker.callback import Caller
from worker.loop import Loop
from worker.rpc import Handler
from worker.settle import Settling

# Run without coverage, which would take most of the time that is measured here.
pytestmark = pytest.mark.timed


# --------------------------------------------------------------- when


def test_a_message_is_called_when_due_not_early_and_not_late(rig: Rig, server: Sink) -> None:
    rig.loop()
    waits = {rig.put(server.url, in_ms=ms)[0]: ms for ms in (0, 150, 151, 400, 700)}
    due = {msg_id: rig.stored(msg_id).due_at for msg_id in waits}
    rig.all_end(list(waits), State.SUCCEEDED)
    for seen in server.seen:
        msg_id = seen.headers["soraka-message-id"]
        assert int(seen.headers["soraka-due-at"]) == due[msg_id]
        assert seen.at >= due[msg_id]
        if waits[msg_id] > 100:  # the first is paged only after it was due
            assert seen.at - due[msg_id] < 50
    assert calls(server) == dict.fromkeys(waits, 1)
    assert [topic for topic, _ in rig.fired] == ["orders"] * 5
    assert min(late for _, late in rig.fired) >= 0
    assert [(e, r) for _, e, _, r in rig.done] == [(Ended.SUCCEEDED, "")] * 5


def test_a_message_told_of_need_not_be_paged(rig: Rig, server: Sink) -> None:
    loop = rig.loop(page_ms=900)
    eventually(lambda: rig.store.pages)
    (msg_id,) = rig.put(server.url, in_ms=60)
    due_at = rig.stored(msg_id).due_at
    assert loop.deliver([(msg_id, due_at), (msg_id, due_at)]) == 1
    assert loop.deliver([(msg_id, due_at)]) == 0
    rig.ends(msg_id)
    assert 0 <= server.seen[0].at - due_at < 50


def test_an_earlier_arrival_wakes_the_timer(rig: Rig, server: Sink) -> None:
    loop = rig.loop(page_ms=900)
    (late,) = rig.put(server.url, in_ms=800)
    loop.deliver([(late, rig.stored(late).due_at)])
    eventually(lambda: rig.store.pages)
    (early,) = rig.put(server.url, in_ms=100)
    loop.deliver([(early, rig.stored(early).due_at)])
    rig.ends(early)
    assert server.seen[0].at - rig.stored(early).message.due_at < 50
    assert rig.stored(late).state is State.PENDING


def test_what_is_far_off_is_not_held(rig: Rig, server: Sink) -> None:
    loop = rig.loop()
    (msg_id,) = rig.put(server.url, in_ms=60_000)
    assert loop.deliver([(msg_id, rig.stored(msg_id).due_at)]) == 0
    (soon,) = rig.put(server.url)
    rig.ends(soon)
    assert loop.held == 0


def test_a_hint_about_nothing_is_dropped(rig: Rig, server: Sink) -> None:
    loop = rig.loop()
    assert loop.deliver([("nobody", rig.now()), ("nobody2", rig.now() + 50)]) == 2
    eventually(lambda: loop.held == 0 and loop.in_flight == 0)
    (msg_id,) = rig.put(server.url)
    rig.ends(msg_id)
    assert len(server.seen) == 1


def test_a_hint_too_early_is_corrected_without_a_busy_loop(rig: Rig, server: Sink) -> None:
    loop = rig.loop(page_ms=900)
    (msg_id,) = rig.put(server.url, in_ms=500)
    loop.deliver([(msg_id, rig.now())])
    rig.ends(msg_id)
    assert server.seen[0].at >= rig.stored(msg_id).message.due_at
    assert len(rig.store.claims) <= 4


def test_a_clock_ahead_of_the_stores_asks_again_but_not_all_the_time(
    rig: Rig, server: Sink
) -> None:
    loop = rig.loop(start=False)
    real = rig.real.now_ms

    class Ahead:
        def now_ms(self) -> int:
            return real() + 300

    loop._clock = loop._calls._clock = Ahead()
    loop.start()
    (msg_id,) = rig.put(server.url, in_ms=600)
    due_at = rig.stored(msg_id).due_at
    rig.ends(msg_id)
    assert 0 <= server.seen[0].at - due_at < 100
    assert len(rig.store.claims) < 40


def test_claimed_ahead_each_is_called_at_its_own_time(rig: Rig, server: Sink) -> None:
    rig.loop()
    ids = [rig.put(server.url, in_ms=300 + n)[0] for n in range(0, 20, 2)]
    rig.all_end(ids, State.SUCCEEDED)
    late = sorted(map(late_ms, server.seen))
    assert late[0] >= 0
    assert late[len(late) // 2] < 50
    assert len(rig.store.claims) <= 5


def test_what_was_claimed_ahead_is_called_before_a_worker_ends(rig: Rig, server: Sink) -> None:
    loop = rig.loop()
    (msg_id,) = rig.put(server.url, in_ms=200)
    eventually(lambda: rig.store.claims, 5)
    assert not server.seen
    assert loop.drain(5)
    assert rig.stored(msg_id).state is State.SUCCEEDED
    assert server.seen[0].at >= rig.stored(msg_id).message.due_at


def test_added_time_and_cancel_hold(rig: Rig, server: Sink) -> None:
    loop = rig.loop()
    moved, gone = rig.put(server.url, in_ms=200, count=2)
    eventually(lambda: loop.held == 2)
    verdicts = rig.real.command(
        [
            Command(
                command_id="1", msg_id=moved, topic="orders", kind=CommandKind.ADD_TIME, add_ms=300
            ),
            Command(command_id="2", msg_id=gone, topic="orders", kind=CommandKind.CANCEL),
        ]
    )
    assert verdicts == [Verdict.APPLIED, Verdict.APPLIED]
    due_at = rig.stored(moved).due_at
    rig.ends(moved)
    assert 0 <= server.seen[0].at - due_at < 50
    assert calls(server) == {moved: 1}


# --------------------------------------------------------------- how it ends


def test_retries_by_the_schedule_then_dead(rig: Rig, server: Sink) -> None:
    server.reply = ok(status="500 No")
    rig.loop()
    (msg_id,) = rig.put(server.url, in_ms=200, retry_ms=(150, 300))
    end = rig.ends(msg_id)
    assert end.state is State.DEAD
    assert end.reason == "HTTP 500 (attempt 3, the last)"
    assert end.attempt == 3
    assert [seen.headers["soraka-attempt"] for seen in server.seen] == ["1", "2", "3"]
    times = [seen.at for seen in server.seen]
    assert 150 <= times[1] - times[0] < 250
    assert 300 <= times[2] - times[1] < 400
    assert [ended for _, ended, _, _ in rig.done] == [Ended.RETRY, Ended.RETRY, Ended.DEAD]


def test_a_retry_may_succeed(rig: Rig, server: Sink) -> None:
    replies = [ok(status="500 No"), ok(b'{"result": false}'), ok(b'{"result": true}')]
    server.reply = lambda sock, seen: replies.pop(0)(sock, seen)
    rig.loop()
    (msg_id,) = rig.put(server.url, retry_ms=(50, 50, 50))
    assert rig.ends(msg_id).state is State.SUCCEEDED
    assert len(server.seen) == 3


def test_410_stops_the_retries(rig: Rig, server: Sink) -> None:
    server.reply = ok(status="410 Gone")
    rig.loop()
    (msg_id,) = rig.put(server.url, retry_ms=(50,))
    end = rig.ends(msg_id)
    assert (end.state, end.reason) == (State.DEAD, "HTTP 410")
    assert len(server.seen) == 1


def test_retry_after_is_honoured(rig: Rig, server: Sink) -> None:
    replies = [ok(status="503 Busy", extra="Retry-After: 1\r\n"), ok()]
    server.reply = lambda sock, seen: replies.pop(0)(sock, seen)
    rig.loop()
    (msg_id,) = rig.put(server.url, retry_ms=(50,))
    rig.ends(msg_id)
    first, second = (seen.at for seen in server.seen)
    assert 1000 <= second - first < 1150


def test_a_call_that_outlasts_its_ttr_is_a_failure(rig: Rig, server: Sink) -> None:
    server.reply = after(5)
    rig.loop()
    (msg_id,) = rig.put(server.url, ttr_ms=200)
    end = rig.ends(msg_id)
    assert end.reason == "timeout after 200 ms (attempt 1, the last)"
    assert rig.done[0][2] == pytest.approx(200, abs=100)


def test_what_can_never_be_called_is_dead_at_once(rig: Rig, server: Sink) -> None:
    rig.loop()
    (bad_url,) = rig.put("ftp://nowhere/", retry_ms=(50,) * 5)
    (bad_params,) = rig.put(server.url, method="GET", params="[1]", retry_ms=(50,) * 5)
    assert "callback.url" in rig.ends(bad_url).reason
    assert "callback.params" in rig.ends(bad_params).reason
    assert server.seen == []


def test_a_broken_record_is_dead(rig: Rig, server: Sink) -> None:
    rig.loop(start=False)
    (msg_id,) = rig.put(server.url)
    rig.real._thread.run(lambda c: c.execute("UPDATE message SET body = x'00'"))
    reasons: list[str] = []
    real = rig.real.settle

    def settle(outcomes: Sequence[Outcome]) -> list[bool]:
        reasons.extend(o.reason for o in outcomes if o.ended is Ended.DEAD)
        return real(outcomes)

    rig.real.settle = settle  # type: ignore[method-assign]
    rig.loops[0].start()
    eventually(lambda: rig.real.totals().dead == 1)
    assert f"{msg_id} cannot be read: unknown record version" in reasons[0]


def test_failed_messages_are_handed_back(rig: Rig, server: Sink) -> None:
    server.reply = ok(status="500 No")
    offered: list[tuple[str, DueId]] = []

    def hand_back(messages: list[tuple[str, DueId]]) -> list[str]:
        offered.extend(messages)
        return []

    rig.loop(hand_back=hand_back)
    msg_ids = rig.put(server.url, count=3, retry_ms=(30_000,))
    eventually(lambda: len(offered) == 3)
    assert {topic for topic, _ in offered} == {"orders"}
    assert {due.msg_id for _, due in offered} == set(msg_ids)
    for _, due in offered:
        assert due.due_at == pytest.approx(rig.stored(due.msg_id).due_at, abs=50)


def test_what_went_to_another_worker_is_not_claimed_any_more(rig: Rig, server: Sink) -> None:
    server.reply = ok(status="500 No")

    def hand_back(messages: list[tuple[str, DueId]]) -> list[str]:
        moves = [Move(due.msg_id, OWNER, "10.0.0.2:30002") for _, due in messages]
        rig.real.assign(moves[:2])
        return [move.msg_id for move in moves[:2]]

    loop = rig.loop(hand_back=hand_back)
    msg_ids = rig.put(server.url, count=3, retry_ms=(300,), in_ms=200)
    eventually(lambda: len(server.seen) == 3)
    eventually(lambda: loop.held == 1)
    eventually(lambda: rig.real.totals().dead == 1)
    moved = [s.msg_id for s in (s.message for s in map(rig.stored, msg_ids) if s.owner != OWNER)]
    assert len(moved) == 2
    gevent.sleep(0.2)
    assert sum(rig.store.claims) == 4
    assert calls(server) == {msg_id: 1 if msg_id in moved else 2 for msg_id in msg_ids}


@pytest.mark.parametrize("error", [PeerUnavailable("nobody"), ValueError("a defect")])
def test_handing_back_need_not_succeed(
    rig: Rig, server: Sink, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    asked = []

    def hand_back(messages: list[tuple[str, DueId]]) -> list[str]:
        asked.append(messages)
        raise error

    server.reply = ok(status="500 No")
    rig.loop(hand_back=hand_back)
    (msg_id,) = rig.put(server.url, retry_ms=(50, 50))
    assert rig.ends(msg_id).attempt == 3
    assert len(asked) == 2
    assert "Traceback" not in capsys.readouterr().err


# --------------------------------------------------------------- bounds and fairness


def test_more_messages_than_slots(rig: Rig, server: Sink) -> None:
    server.reply = after(0.02)
    msg_ids = rig.put(server.url, count=400, in_ms=500)
    loop = rig.loop(max_callbacks=20, max_per_host=100, page_ms=900)
    rig.all_end(msg_ids, State.SUCCEEDED, limit_s=8)
    assert calls(server) == dict.fromkeys(msg_ids, 1)
    assert 10 <= server.at_once <= 20
    eventually(lambda: loop.in_flight == 0)


def test_more_messages_than_may_be_held(rig: Rig, server: Sink) -> None:
    loop = rig.loop(max_held=100, page_ms=900)
    msg_ids = rig.put(server.url, count=1500)
    most = 0

    def watch() -> bool:
        nonlocal most
        most = max(most, loop.held)
        return rig.real.totals().succeeded == len(msg_ids)

    eventually(watch, 8)
    assert most <= 100
    assert calls(server) == dict.fromkeys(msg_ids, 1)


def test_no_more_calls_to_a_host_than_allowed(rig: Rig, server: Sink) -> None:
    server.reply = after(0.02)
    rig.loop(max_callbacks=100, max_per_host=5)
    msg_ids = rig.put(server.url, count=150)
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert server.at_once == 5
    assert calls(server) == dict.fromkeys(msg_ids, 1)
    assert all(rig.stored(msg_id).attempt == 1 for msg_id in msg_ids)


def test_a_host_that_hangs_stops_no_other(rig: Rig, server: Sink) -> None:
    with sink(after(30)) as hanging, withheld() as lost:
        rig.loop(max_callbacks=20, max_per_host=10)
        stuck = rig.put(hanging.url, count=500, ttr_ms=2000, retry_ms=(1000,) * 32)
        eventually(lambda: hanging.at_once == 10)
        fine = rig.put(server.url, count=50, in_ms=300)
        rig.all_end(fine, State.SUCCEEDED)
        assert max(late_ms(seen, lost) for seen in server.seen) < 1000
        assert hanging.at_once == 10
        # each of the stuck was claimed a few times, not over and over
        assert sum(rig.store.claims) < 5 * (len(stuck) + len(fine))
        assert all(s and s.state is State.PENDING for s in rig.real.get(stuck))


@pytest.fixture
def patient_rig(tmp_path: Path) -> Iterator[Rig]:
    """Whose leases outlast any wait for a busy machine."""
    with closing(Rig(tmp_path / "store.db", lease_margin_ms=60_000)) as made:
        yield made


def test_claims_and_settles_come_in_batches_under_load(patient_rig: Rig, server: Sink) -> None:
    rig = patient_rig
    rig.loop(max_callbacks=2000, max_per_host=1000)
    msg_ids = rig.put(server.url, count=1000, in_ms=300, ttr_ms=10_000)
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert sum(rig.store.claims) == 1000
    assert len(rig.store.claims) < 100
    assert max(rig.store.claims) <= 200
    assert len(rig.store.settles) < 200


def test_claims_close_together_go_together(rig: Rig, server: Sink) -> None:
    rig.loop()
    msg_ids = [i for n in range(200) for i in rig.put(server.url, in_ms=700 + n - n // 2)]
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert len(rig.store.claims) < 100


# --------------------------------------------------------------- what breaks


def test_a_store_away_for_a_while_costs_no_call_and_doubles_none(
    rig: Rig, server: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.reply = after(0.05)
    loop = rig.loop()
    msg_ids = [i for n in range(20) for i in rig.put(server.url, count=5, in_ms=50 * n)]
    eventually(lambda: len(server.seen) >= 20)
    rig.store.down = True
    gevent.sleep(0.5)  # messages fall due, and calls end, meanwhile
    called = len(server.seen)
    gevent.sleep(0.2)
    assert len(server.seen) == called < 100
    assert loop.last_turn_ms() < 1500
    rig.store.down = False
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert calls(server) == dict.fromkeys(msg_ids, 1)
    said = Counter((r.getMessage(), r.__dict__.get("doing")) for r in caplog.records)
    assert said["store.unavailable", "claim"] == 1
    assert said["store.back", "claim"] == 1


def test_a_claim_refused_is_tried_again_soon(rig: Rig, server: Sink) -> None:
    loop = rig.loop(page_ms=900)
    eventually(lambda: rig.store.pages)
    (msg_id,) = rig.put(server.url, in_ms=100)
    due_at = rig.stored(msg_id).due_at
    loop.deliver([(msg_id, due_at)])
    rig.store.down = True
    eventually(lambda: rig.store.claims)
    rig.store.down = False
    rig.ends(msg_id)
    assert server.seen[0].at - due_at < 400


def test_answers_of_the_store_that_get_lost_double_no_call(rig: Rig, server: Sink) -> None:
    rig.loop()
    msg_ids = rig.put(server.url, count=20, in_ms=150, ttr_ms=200)
    settling = rig.put(server.url.replace("/hook", "/early"), count=20, ttr_ms=200)
    eventually(lambda: len(server.seen) >= 10)
    rig.store.answers_lost = True  # claims take leases that nobody learns of
    gevent.sleep(0.4)
    rig.store.answers_lost = False
    rig.all_end(msg_ids + settling, State.SUCCEEDED)
    assert calls(server) == dict.fromkeys(msg_ids + settling, 1)


def test_unsettled_outcomes_are_bounded(rig: Rig, server: Sink) -> None:
    loop = rig.loop(max_callbacks=10)
    real = rig.store.settle

    def failing(outcomes: Sequence[Outcome]) -> list[bool]:
        raise StoreUnavailable("switched off")

    rig.store.settle = failing  # type: ignore[method-assign]
    msg_ids = rig.put(server.url, count=1000, ttr_ms=60_000)
    eventually(lambda: loop.in_flight >= 200)  # called, or sent away
    gevent.sleep(0.5)
    assert loop.in_flight <= 3 * 10 + 200
    assert len(server.seen) <= 3 * 10 + 200
    rig.store.settle = real  # type: ignore[method-assign]
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert calls(server) == dict.fromkeys(msg_ids, 1)


def test_a_zombie_does_not_call(rig: Rig, server: Sink) -> None:
    zombie_store = Switched(rig.real)
    frozen = Event()
    go_on = Event()

    def freeze() -> None:
        if not frozen.is_set():
            frozen.set()
            go_on.wait()

    zombie_store.claimed = freeze
    zombie = rig.loop(store=zombie_store, owner="zombie")
    (msg_id,) = rig.put(server.url, owner="zombie", ttr_ms=200)
    frozen.wait(5)
    lease_until = rig.stored(msg_id).lease_until
    eventually(lambda: rig.now() > lease_until)  # its lease has run out, it does not know
    go_on.set()
    eventually(lambda: (Ended.RELEASED, 0) in [(e, ms) for _, e, ms, _ in rig.done])
    eventually(lambda: zombie.in_flight == 0 or server.seen)
    rig.ends(msg_id)
    assert [seen.headers["soraka-attempt"] for seen in server.seen] in (["1"], ["2"])


def test_a_zombie_and_a_new_owner_do_not_both_call(rig: Rig, server: Sink) -> None:
    zombie_store = Switched(rig.real)
    frozen, go_on = Event(), Event()

    def freeze() -> None:
        frozen.set()
        go_on.wait()

    zombie_store.claimed = freeze
    rig.loop(store=zombie_store, owner="zombie")
    server.reply = after(0.3)
    (msg_id,) = rig.put(server.url, owner="zombie", ttr_ms=500)
    frozen.wait(5)
    new = rig.loop(owner="new")
    new.deliver([(msg_id, rig.now())])  # BUSY until the lease ends
    eventually(lambda: server.seen)
    assert server.seen[0].at >= rig.stored(msg_id).message.due_at + 500 + 400
    go_on.set()  # wakes while the new owner's call is under way
    assert rig.ends(msg_id).state is State.SUCCEEDED
    assert len(server.seen) == 1


def test_a_worker_that_died_in_a_call_leaves_a_message_that_falls_due_again(
    rig: Rig, server: Sink
) -> None:
    server.reply = after(5)
    first = rig.loop()
    (msg_id,) = rig.put(server.url, ttr_ms=300)
    eventually(lambda: server.seen)
    first.stop()
    server.reply = ok()
    rig.loop()
    assert rig.ends(msg_id).state is State.SUCCEEDED
    one, two = server.seen
    assert 650 <= two.at - one.at < 1000  # ttr + margin after the claim
    assert two.headers["soraka-attempt"] == "2"


def test_a_call_that_raises_leaks_nothing(rig: Rig, server: Sink) -> None:
    crashed: list[int] = []

    def call(request: Any, deadline: float) -> Any:
        if not crashed:
            crashed.append(1)
            raise gevent.GreenletExit
        return rig.caller(request, deadline)

    loop = rig.loop(call=call, max_callbacks=1, max_per_host=1)
    (msg_id,) = rig.put(server.url, ttr_ms=200)
    assert rig.ends(msg_id).state is State.SUCCEEDED
    eventually(lambda: loop.in_flight == 0)


class Faulty(Switched):
    """Fails, in ways that nobody foresaw, on a poisoned message; or once, on anything."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.poison: str | None = None
        self.once: set[str] = set()

    def claim(self, msg_ids: Sequence[str], ahead_ms: int = 0) -> list[Claim]:
        self._fail_once("claim")
        return super().claim(msg_ids, ahead_ms)

    def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        if self.poison in [outcome.msg_id for outcome in outcomes]:
            raise KeyError(self.poison)
        return super().settle(outcomes)

    def due(self, owner: str, until: int, limit: int) -> list[DueId]:
        self._fail_once("due")
        return super().due(owner, until, limit)

    def _fail_once(self, what: str) -> None:
        if what in self.once:
            self.once.remove(what)
            raise KeyError(what)


@pytest.mark.parametrize(("what", "said"), [("due", "pager.failed"), ("claim", "claim.failed")])
def test_a_defect_in_one_turn_ends_no_loop(
    rig: Rig, server: Sink, caplog: pytest.LogCaptureFixture, what: str, said: str
) -> None:
    store = Faulty(rig.real)
    store.once = {what}
    msg_ids = rig.put(server.url, count=3)
    rig.loop(store=store)
    rig.all_end(msg_ids, State.SUCCEEDED)
    (record,) = [r for r in caplog.records if r.getMessage() == said]
    assert record.exc_info


def test_a_defect_in_a_turn_of_the_timer_does_not_end_it(
    rig: Rig, server: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    loop = rig.loop(start=False)
    pop_due, failed = loop._timer.pop_due, list[int]()

    def failing_once(now_ms: int, limit: int) -> list[str]:
        if not failed:
            failed.append(1)
            raise KeyError("a defect")
        return pop_due(now_ms, limit)

    loop._timer.pop_due = failing_once  # type: ignore[method-assign]
    loop.start()
    (msg_id,) = rig.put(server.url)
    rig.ends(msg_id)
    assert "timer.failed" in caplog.messages


def test_an_outcome_that_cannot_be_settled_costs_no_other(
    rig: Rig, server: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    store = Faulty(rig.real)
    msg_ids = rig.put(server.url, count=20, in_ms=200, ttr_ms=200)
    store.poison = msg_ids[7]
    loop = rig.loop(store=store)
    others = [msg_id for msg_id in msg_ids if msg_id != store.poison]
    rig.all_end(others, State.SUCCEEDED)
    assert [r.__dict__["msg_id"] for r in caplog.records if r.getMessage() == "settle.dropped"]
    poison, store.poison = store.poison, None
    rig.all_end([poison], State.SUCCEEDED)  # its lease ran out
    assert calls(server) == {msg_id: 2 if msg_id == poison else 1 for msg_id in msg_ids}
    eventually(lambda: loop.in_flight == 0)


def test_a_defect_after_settling_does_not_end_the_settler(
    rig: Rig, server: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    loop = rig.loop(start=False)
    settled, failed = loop._settler._settled, list[int]()

    def failing_once(batch: list[Settling], answers: list[bool]) -> None:
        settled(batch, answers)
        if not failed:
            failed.append(1)
            raise KeyError("a defect")

    loop._settler._settled = failing_once
    loop.start()
    (first,) = rig.put(server.url)
    rig.ends(first)
    (second,) = rig.put(server.url)
    rig.ends(second)
    assert "settler.failed" in caplog.messages


def test_a_defect_in_a_call_is_told_and_the_message_called_again(
    rig: Rig, server: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[int] = []

    def call(request: Any, deadline: float) -> Any:
        if not failed:
            failed.append(1)
            raise KeyError("a defect")
        return rig.caller(request, deadline)

    rig.loop(call=call)
    (msg_id,) = rig.put(server.url, ttr_ms=200)
    rig.ends(msg_id)
    (record,) = [r for r in caplog.records if r.getMessage() == "call.failed"]
    assert record.__dict__["msg_id"] == msg_id


# --------------------------------------------------------------- the index


def test_pages_are_bounded_however_much_is_held(rig: Rig, server: Sink) -> None:
    server.reply = after(0.3)
    asked: list[tuple[int, int]] = []
    real = rig.store.due

    def due(owner: str, until: int, limit: int) -> list[DueId]:
        asked.append((loop.held, limit))
        return real(owner, until, limit)

    rig.store.due = due  # type: ignore[method-assign]
    loop = rig.loop(start=False, max_held=8000, max_callbacks=5)
    rig.put(server.url, count=9000, ttr_ms=60_000)
    loop.start()
    now = rig.now()
    loop.deliver([(f"later-{i}", now + 900) for i in range(4000)])
    eventually(lambda: any(held > 7000 and limit == 500 for held, limit in asked))
    assert max(limit for _, limit in asked) == 5000


@pytest.fixture
def on_redis(redis_server: Server) -> Iterator[RedisStore]:
    with redis_store(redis_server.url) as made:
        yield made


def test_ids_without_a_record_do_not_stay_in_the_index(
    on_redis: RedisStore, redis_server: Server, server: Sink
) -> None:
    now = on_redis.now_ms()
    messages = [message(now - 1) for _ in range(20)]
    fine = message(now, callback=Callback(method="POST", url=server.url, params="{}"))
    put(on_redis, *messages, fine, owner=OWNER)
    with redis.Redis.from_url(redis_server.url) as admin:
        for m in messages:
            admin.delete(*admin.scan_iter(f"*m:{short(m.msg_id).decode()}"))
    claimed = Counter[str]()
    claim = on_redis.claim

    def counted(msg_ids: Sequence[str], ahead_ms: int) -> list[Claim]:
        claimed.update(msg_ids)
        return claim(msg_ids, ahead_ms)

    on_redis.claim = counted  # type: ignore[method-assign]
    loop = Loop(
        owner=OWNER,
        store=on_redis,
        clock=on_redis,
        call=Caller(max_response_bytes=4096),
        config=WorkerConfig(page_ms=100, horizon_ms=1000),
    )
    loop.start()
    try:
        eventually(lambda: on_redis.owners() == set())
        assert on_redis.due(OWNER, 1 << 52, 100) == []
        assert len(server.seen) == 1
        assert claimed[messages[0].msg_id] == 1
    finally:
        loop.stop()


def test_a_message_that_came_back_is_not_taken_for_dead(
    on_redis: RedisStore, redis_server: Server, server: Sink
) -> None:
    """Its record was lost, and is read from the log again between two pages."""
    m = message(on_redis.now_ms(), callback=Callback(method="POST", url=server.url, params="{}"))
    put(on_redis, m, owner=OWNER)
    with redis.Redis.from_url(redis_server.url) as admin:
        (key,) = admin.scan_iter(f"*m:{short(m.msg_id).decode()}")
        lost = [admin.get(key)]
        admin.delete(key)
        claim = on_redis.claim

        def restored(msg_ids: Sequence[str], ahead_ms: int) -> list[Claim]:
            claims = claim(msg_ids, ahead_ms)
            if lost:
                admin.set(key, lost.pop())
            return claims

        on_redis.claim = restored  # type: ignore[method-assign]
        loop = Loop(
            owner=OWNER,
            store=on_redis,
            clock=on_redis,
            call=Caller(max_response_bytes=4096),
            config=WorkerConfig(page_ms=100, horizon_ms=1000),
        )
        loop.start()
        try:
            eventually(lambda: on_redis.totals().succeeded == 1)
        finally:
            loop.stop()


# --------------------------------------------------------------- drain, liveness, Thrift


def test_drain_finishes_what_is_under_way_and_takes_nothing_new(rig: Rig, server: Sink) -> None:
    server.reply = after(0.4)
    loop = rig.loop(max_callbacks=9)  # five of them for one host
    msg_ids = rig.put(server.url, count=20)
    eventually(lambda: len(server.seen) == 5)
    assert loop.drain(5.0)
    assert loop.in_flight == 0
    states = Counter(s.state for s in rig.real.get(msg_ids) if s)
    assert states == {State.SUCCEEDED: 5, State.PENDING: 15}
    claims = len(rig.store.claims)
    assert loop.deliver([(msg_ids[0], rig.now())]) == 0
    gevent.sleep(0.3)
    assert len(server.seen) == 5
    assert len(rig.store.claims) == claims


def test_drain_gives_back_those_that_wait_for_their_host(rig: Rig, server: Sink) -> None:
    server.reply = after(0.3)
    loop = rig.loop(max_callbacks=10, max_per_host=2)
    msg_ids = rig.put(server.url, count=8)
    eventually(lambda: len(server.seen) == 2)
    assert loop.drain(5.0)
    waiting = [s for s in rig.real.get(msg_ids) if s and s.state is State.PENDING]
    assert len(waiting) == 6
    assert all(s.lease_until == 0 and s.attempt == 0 for s in waiting)


def test_drain_gives_up_at_its_limit(rig: Rig, server: Sink) -> None:
    server.reply = after(5)
    loop = rig.loop()
    rig.put(server.url, ttr_ms=5000)
    eventually(lambda: server.seen)
    before = rig.now()
    assert not loop.drain(0.2)
    assert rig.now() - before < 400


def test_turns_show_life_and_their_absence(rig: Rig) -> None:
    loop = rig.loop()
    gevent.sleep(1.3)
    assert loop.last_turn_ms() < 1200
    assert set(loop.turn_ages_ms()) == {"pager", "timer", "settler"}
    loop.stop()
    eventually(lambda: loop.last_turn_ms() > 1300)


def test_the_thrift_handler(rig: Rig, server: Sink) -> None:
    loop = rig.loop(page_ms=900)
    handler = Handler("me", loop)
    eventually(lambda: rig.store.pages)
    (msg_id,) = rig.put(server.url, in_ms=100)
    due = idl.worker.Due(msg_id=msg_id, due_at=rig.stored(msg_id).due_at)
    with pytest.raises(idl.worker.WrongIncarnation) as wrong:
        handler.deliver("another", [due])
    assert wrong.value.incarnation == "me"
    assert handler.deliver("me", [due, idl.worker.Due(msg_id="x"), idl.worker.Due()]) == 1
    rig.ends(msg_id)
    assert handler.deliver("me", None) == 0


def test_a_server_that_closes_after_each_answer_gets_each_request_once(
    rig: Rig, server: Sink
) -> None:
    server.reply = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", close=True)
    rig.loop(max_per_host=4)
    msg_ids = rig.put(server.url, count=60, method="GET")
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert calls(server) == dict.fromkeys(msg_ids, 1)
