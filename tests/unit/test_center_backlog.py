"""What a center shows of all that waits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from center.backlog import BacklogFigures
from soraka.timed import TimedStore
from tests.unit.test_center import DAY_MS, TOPIC, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_it_shows_what_is_pending_overdue_and_parked(rig: Rig) -> None:
    figures = BacklogFigures(store=rig.store, clock=rig.store, metrics=rig.metrics)
    figures.turn()
    shown = rig.metrics.registry.get_sample_value
    assert shown("soraka_oldest_overdue_seconds") == 0
    rig.worker("127.0.0.1:1")
    rig.append(3, due_in_ms=-5000)
    rig.append(4)
    rig.read()
    topic = rig.registry.topics()[TOPIC]
    rig.registry.put_topic(replace(topic, paused=True), was=topic)
    rig.append(2, due_in_ms=-DAY_MS)
    rig.read()
    figures.turn()
    assert shown("soraka_pending_messages") == 9
    assert shown("soraka_overdue_messages") == 3
    assert shown("soraka_parked_messages") == 2
    oldest = shown("soraka_oldest_overdue_seconds")
    assert oldest is not None
    assert 5 <= oldest < 60


def test_the_store_is_timed_by_operation_also_when_it_fails(rig: Rig) -> None:
    timed = TimedStore(rig.store, rig.metrics.store_timer)
    assert timed.positions("p") == (-1,)
    timed.positions("p")
    rig.store.away = 1
    with pytest.raises(Exception, match="told so"):
        timed.schedule("p", (-1,), 0, [])
    shown = rig.metrics.registry.get_sample_value
    counts = {
        name: shown("soraka_store_seconds_count", {"operation": name})
        for name in ("positions", "schedule", "claim")
    }
    assert counts == {"positions": 2, "schedule": 1, "claim": None}
