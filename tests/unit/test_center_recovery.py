"""Whose messages go to others, when, and which are left to another center."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from center import reconcile, takeover
from center.pulse import Load
from soraka.errors import StoreUnavailable
from soraka.message import Stored, Topic
from soraka.ports import ClaimKind, Ended, Outcome, Totals
from tests.acceptance.sink import wait_until
from tests.unit.test_center import DAY_MS, TOPIC, Rig

GONE, A, B = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"
STUCK = Load(last_turn_ms=10_000)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def owned_by(rig: Rig, address: str, count: int, *, due_in_ms: int = DAY_MS) -> list[str]:
    """Messages of a worker that is live."""
    topic = rig.registry.topics()[TOPIC]
    only = replace(topic, workers=(address,))
    rig.registry.put_topic(only, was=topic)
    ids = rig.append(count, due_in_ms=due_in_ms)
    rig.read()
    rig.registry.put_topic(topic, was=only)
    assert set(rig.owners_of(ids)) == {address}
    return ids


def leave(rig: Rig, address: str) -> None:
    """It has been absent for long enough."""
    rig.registry.unregister(rig.registry.live("worker")[address])
    rig.reconcile._absent_since[address] = time.monotonic() - 1


def events(caplog: pytest.LogCaptureFixture, *names: str) -> list[tuple[str, str]]:
    return [(r.message, vars(r)["owner"]) for r in caplog.records if r.message in names]


# ---------------------------------------------------------------- who leaves


def test_a_draining_owner_gives_all_away_without_delay(rig: Rig) -> None:
    leaving = rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 3)
    rig.registry.register(replace(leaving, draining=True))
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {A}


def test_a_draining_owner_keeps_its_own_while_there_is_no_other(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    leaving = rig.worker(GONE)
    ids = owned_by(rig, GONE, 3)
    rig.registry.register(replace(leaving, draining=True))
    with caplog.at_level(logging.INFO):
        rig.reconcile.turn()
        rig.registry.register(replace(leaving, address=A, incarnation=A, draining=True))
        rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {GONE}
    assert events(caplog, "owner.takeover_began") == []


def test_what_comes_to_a_draining_owner_late_goes_on_too(rig: Rig) -> None:
    """From a center that has not seen it drain."""
    leaving = rig.worker(GONE)
    rig.worker(A)
    late = owned_by(rig, GONE, 1)
    rig.registry.register(replace(leaving, draining=True))
    rig.reconcile.turn()
    rig.registry.register(leaving)
    late += owned_by(rig, GONE, 2)
    rig.registry.register(replace(leaving, draining=True))
    rig.reconcile.turn()
    assert set(rig.owners_of(late)) == {A}


def test_a_stuck_owner_loses_all_and_not_only_what_is_overdue(rig: Rig) -> None:
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 600) + owned_by(rig, GONE, 600, due_in_ms=0)
    rig.workers.pulses()[GONE].answered(STUCK, 1.0)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {A}


def test_when_all_are_stuck_all_stay(rig: Rig) -> None:
    for address in (GONE, A):
        rig.worker(address)
    ids = owned_by(rig, GONE, 5)
    for pulse in rig.workers.pulses().values():
        for _ in range(3):
            pulse.answered(STUCK, 1.0)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {GONE}


def test_an_absent_owners_messages_go_to_bad_workers_rather_than_to_nobody(rig: Rig) -> None:
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 5)
    for _ in range(3):
        rig.workers.pulses()[A].silent(1000)
    leave(rig, GONE)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {A}


def test_one_that_comes_back_in_the_middle_keeps_the_rest(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "STEP", 100)
    monkeypatch.setattr(reconcile, "LOOK_EVERY_S", 0)
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 500)
    leave(rig, GONE)
    steps = iter(range(100))
    turned = rig.reconcile._turned

    def and_comes_back() -> None:
        turned()
        if next(steps) == 2:
            rig.worker(GONE)

    monkeypatch.setattr(rig.reconcile, "_turned", and_comes_back)
    rig.reconcile.turn()
    assert Counter(rig.owners_of(ids)) == {A: 200, GONE: 300}


# ---------------------------------------------------------------- how


def test_what_falls_due_first_is_moved_first_and_absent_owners_take_turns(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "STEP", 100)
    other = "127.0.0.1:9"
    for address in (GONE, other, A):
        rig.worker(address)
    later = owned_by(rig, GONE, 200, due_in_ms=DAY_MS + 60_000)
    soon = owned_by(rig, GONE, 100, due_in_ms=DAY_MS)
    of_other = owned_by(rig, other, 300)
    for address in (GONE, other):
        leave(rig, address)
    halves: list[Counter[str | None]] = []
    turned = rig.reconcile._turned

    def and_note() -> None:
        turned()
        halves.append(
            Counter(o for ids in (soon, later, of_other) for o in rig.owners_of(ids) if o == A)
            + Counter({"soon": rig.owners_of(soon).count(A)})
            + Counter({"of_other": rig.owners_of(of_other).count(A)})
        )

    monkeypatch.setattr(rig.reconcile, "_turned", and_note)
    rig.reconcile.turn()
    first_round = next(noted for noted in halves if noted[A] == 200)
    assert (first_round["soon"], first_round["of_other"]) == (100, 100)
    assert set(rig.owners_of(soon + later + of_other)) == {A}


def test_the_log_and_the_metrics_tell_of_it(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "STEP", 100)
    monkeypatch.setattr(takeover, "TELL_EVERY_S", 0)
    rig.worker(GONE)
    rig.worker(A)
    owned_by(rig, GONE, 150)
    owned_by(rig, GONE, 50, due_in_ms=-10)
    leave(rig, GONE)
    with caplog.at_level(logging.INFO):
        rig.reconcile.turn()
    began, *progress, ended = (vars(r) for r in caplog.records if r.message.startswith("owner."))
    assert (began["message"], began["pending"]) == ("owner.takeover_began", 200)
    assert (began["why"], began["owner"]) == ("absent", GONE)
    assert progress[0]["message"] == "owner.takeover_goes_on"
    assert (ended["message"], ended["messages"]) == ("owner.taken_over", 200)
    assert ended["overdue"] == 50
    assert ended["seconds"] >= 0
    assert rig.metrics.reassigned._value.get() == 200
    assert rig.metrics.to_move._value.get() == 0


def test_a_store_that_cannot_count_stops_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 5)
    leave(rig, GONE)

    def away() -> Totals:
        raise StoreUnavailable("told so")

    monkeypatch.setattr(rig.store, "totals", away)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {A}


def test_leases_stay_and_what_the_old_owner_remembers_is_harmless(rig: Rig) -> None:
    rig.worker(GONE)
    rig.worker(A)
    called, waiting = owned_by(rig, GONE, 2, due_in_ms=0)
    (first,) = rig.store.claim([called])
    assert first.kind is ClaimKind.FIRE
    leave(rig, GONE)
    rig.reconcile.turn()
    assert set(rig.owners_of([called, waiting])) == {A}
    # the new owner may not call it, and the old one may still settle it
    assert rig.store.claim([called])[0].kind is ClaimKind.BUSY
    assert rig.store.settle([Outcome(called, first.lease, Ended.SUCCEEDED)]) == [True]
    # both have the other one in memory
    kinds = [rig.store.claim([waiting])[0].kind for _ in range(2)]
    assert kinds == [ClaimKind.FIRE, ClaimKind.BUSY]
    assert rig.store.claim([called])[0].kind is ClaimKind.GONE


# ---------------------------------------------------------------- the lock


def test_an_owner_that_another_center_moves_is_left_to_it(rig: Rig) -> None:
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 3)
    leave(rig, GONE)
    with rig.registry.lock(GONE):
        rig.reconcile.turn()
        assert set(rig.owners_of(ids)) == {GONE}
        # the other one gets on with it
        (soonest,) = rig.store.due(GONE, takeover.FOREVER, 1)
        rig.moves.move(GONE, [(A, soonest)])
        rig.reconcile.turn()
        assert Counter(rig.owners_of(ids)) == {GONE: 2, A: 1}


def test_a_center_that_dies_with_the_lock_holds_nothing_up(rig: Rig) -> None:
    """Its session, and with it the lock, lives on for seconds."""
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 3)
    leave(rig, GONE)
    with rig.registry.lock(GONE):
        began = time.monotonic()
        rig.reconcile.turn()
        wait_until(lambda: rig.reconcile.turn() is None and rig.owners_of(ids) == [A] * 3, 5)
        assert time.monotonic() - began > reconcile.LOOK_EVERY_S / 2 - 0.05


def test_the_lock_is_held_while_messages_are_moved_and_free_afterwards(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.worker(GONE)
    rig.worker(A)
    owned_by(rig, GONE, 3)
    leave(rig, GONE)
    had = []
    move = rig.moves.move

    def and_try(source: str, chosen: object) -> list[str]:
        with rig.registry.lock(source) as mine:
            had.append(mine)
        return move(source, chosen)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.moves, "move", and_try)
    rig.reconcile.turn()
    assert had == [False]
    with rig.registry.lock(GONE) as mine:
        assert mine


def test_the_lock_is_free_after_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 3)
    leave(rig, GONE)

    def away(*_: object) -> list[str]:
        raise StoreUnavailable("told so")

    with monkeypatch.context() as broken:
        broken.setattr(rig.moves, "move", away)
        with pytest.raises(StoreUnavailable):
            rig.reconcile.turn()
    with rig.registry.lock(GONE) as mine:
        assert mine
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {A}


def test_without_a_registry_it_goes_on_without_the_lock(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 3)
    leave(rig, GONE)

    def never(_: str) -> AbstractContextManager[bool]:
        return nullcontext(False)

    monkeypatch.setattr(rig.registry, "lock", never)
    wait_until(lambda: rig.reconcile.turn() is None and rig.owners_of(ids) == [A] * 3, 5)


# ---------------------------------------------------------------- the sweep


def test_the_sweep_spares_a_worker_when_no_other_is_good(rig: Rig) -> None:
    rig.worker(GONE)
    rig.worker(A)
    ids = owned_by(rig, GONE, 3, due_in_ms=-1500)
    for _ in range(3):
        rig.workers.pulses()[A].silent(1000)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {GONE}
    rig.workers.pulses()[A].answered(Load(), 1.0)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {A}


def test_the_sweep_goes_on_while_messages_are_moved(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A take-over may last for minutes."""
    monkeypatch.setattr(takeover, "STEP", 50)
    monkeypatch.setattr(reconcile, "LOOK_EVERY_S", 0)
    for address in (GONE, A, B):
        rig.worker(address)
    owned_by(rig, GONE, 500)
    leave(rig, GONE)
    overdue: list[str] = []
    turned = rig.reconcile._turned

    def and_add() -> None:
        turned()
        if not overdue:
            overdue.extend(owned_by(rig, A, 2, due_in_ms=-1500))
        elif rig.store.due(GONE, takeover.FOREVER, 1):
            swept.append(set(rig.owners_of(overdue)) == {B})

    swept: list[bool] = []
    monkeypatch.setattr(rig.reconcile, "_turned", and_add)
    rig.reconcile.turn()
    assert swept[-1]


def test_overloaded_workers_do_not_hand_messages_to_and_fro(rig: Rig) -> None:
    for address in (A, B):
        rig.worker(address)
    of_a, of_b = (owned_by(rig, address, 3, due_in_ms=-1500) for address in (A, B))
    for _ in range(5):
        rig.reconcile.turn()
        assert (set(rig.owners_of(of_a)), set(rig.owners_of(of_b))) == ({B}, {A})
    assert rig.metrics.reassigned._value.get() == 6


def test_messages_are_read_only_while_topics_differ(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    get = rig.store.get

    def counted(msg_ids: Sequence[str]) -> list[Stored | None]:
        reads.append(len(msg_ids))
        return get(msg_ids)

    for address in (GONE, A, B):
        rig.worker(address)
    rig.registry.put_topic(Topic(name="alike"), was=None)
    first, second = owned_by(rig, GONE, 4), owned_by(rig, GONE, 2)
    leave(rig, GONE)
    monkeypatch.setattr(rig.store, "get", counted)
    rig.reconcile.turn()
    assert reads == []
    assert Counter(rig.owners_of(first + second)) == {A: 3, B: 3}
    rig.registry.put_topic(Topic(name="other", workers=(A,)), was=None)
    reads.clear()
    leave(rig, A)
    rig.reconcile.turn()
    assert reads == [3]
    monkeypatch.undo()
    assert Counter(rig.owners_of(first + second)) == {B: 6}


def test_a_topic_of_its_own_workers_keeps_to_them(rig: Rig) -> None:
    rig.worker(GONE)
    rig.worker(A)
    rig.worker(B)
    ids = owned_by(rig, GONE, 6)
    topic = rig.registry.topics()[TOPIC]
    rig.registry.put_topic(replace(topic, workers=(B,)), was=topic)
    leave(rig, GONE)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {B}
