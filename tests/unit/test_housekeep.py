"""When center tells the store how long to keep what, and that it tidies."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from center.housekeep import TELL_AGAIN_S, Housekeep
from soraka.adapters.local_registry import LocalRegistry
from soraka.adapters.sqlite_store import SqliteStore
from soraka.errors import StoreUnavailable
from soraka.limits import DAY_MS
from soraka.message import Topic


class Listening(SqliteStore):
    """Notes what it is told."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path=path,
            retention_ms=DAY_MS,
            dead_retention_ms=DAY_MS,
            lease_margin_ms=2000,
            early_ms=60_000,
        )
        self.told: list[Mapping[str, int]] = []
        self.tidied = 0
        self.away = False

    def keep(self, retention_ms: Mapping[str, int]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.told.append(retention_ms)

    def tidy(self) -> int:
        self.tidied += 1
        return 0


class Rig:
    def __init__(self, folder: Path) -> None:
        self.store = Listening(folder / "store.db")
        self.registry = LocalRegistry(path=folder / "registry.db")
        self.now_s = 0.0
        self.keeping = Housekeep(
            store=self.store, registry=self.registry, clock_s=lambda: self.now_s
        )

    def put_topic(self, name: str, retention_ms: int) -> None:
        topic = Topic(name=name, retention_ms=retention_ms)
        self.registry.put_topic(topic, was=self.registry.topics().get(name))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.store.close()
    made.registry.close()


def test_the_store_is_told_at_first_and_when_topics_have_changed(rig: Rig) -> None:
    rig.put_topic("orders", 5000)
    rig.keeping.turn()
    rig.keeping.turn()
    assert rig.store.told == [{"orders": 5000}]
    rig.put_topic("orders", 6000)
    rig.put_topic("bills", 0)
    rig.keeping.turn()
    assert rig.store.told[1:] == [{"orders": 6000, "bills": 0}]


def test_the_store_is_told_again_once_a_minute(rig: Rig) -> None:
    rig.put_topic("orders", 5000)
    for rig.now_s in (0.0, TELL_AGAIN_S - 1, TELL_AGAIN_S, TELL_AGAIN_S + 1):
        rig.keeping.turn()
    assert rig.store.told == [{"orders": 5000}] * 2


def test_what_the_store_did_not_hear_is_told_again(rig: Rig) -> None:
    rig.put_topic("orders", 5000)
    rig.store.away = True
    with pytest.raises(StoreUnavailable):
        rig.keeping.turn()
    rig.store.away = False
    rig.keeping.turn()
    assert rig.store.told == [{"orders": 5000}]


def test_each_turn_tidies(rig: Rig) -> None:
    for _ in range(3):
        rig.keeping.turn()
    assert rig.store.tidied == 3
