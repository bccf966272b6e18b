"""Settings of topics: what is refused, and by which name."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soraka.config import Config, override
from soraka.errors import Conflict, InvalidParams, TopicNotFound
from soraka.limits import BALANCES, DAY_MS, MAX_DELAY_MS
from soraka.message import Topic
from soraka.topics import Topics, check_settings
from soraka.wiring import open_topics


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("business", {"business": "x" * 129}),
        ("business", {"business": "two\nlines"}),
        ("balance", {"balance": "fair"}),
        ("weigh_by", {"weigh_by": "size"}),
        ("max_concurrent_dispatches", {"max_concurrent_dispatches": -1}),
        ("max_concurrent_dispatches", {"max_concurrent_dispatches": 100_001}),
        ("max_dispatches_per_second", {"max_dispatches_per_second": -1}),
        ("max_dispatches_per_second", {"max_dispatches_per_second": 1_000_001}),
        ("retention_ms", {"retention_ms": 59_999}),
        ("retention_ms", {"retention_ms": 366 * DAY_MS}),
        ("worker_num", {"worker_num": -1}),
        ("worker_num", {"worker_num": 1001}),
        ("retry", {"retry_ms": (1,) * 33}),
        ("retry.1", {"retry_ms": (0, -1)}),
        ("retry.0", {"retry_ms": (MAX_DELAY_MS + 1,)}),
        ("workers", {"workers": ("10.0.0.1:1",) * 1001}),
        ("workers.0", {"workers": ("",)}),
        ("workers.0", {"workers": ("nonsense",)}),
        ("workers.0", {"workers": ("10.0.0.1",)}),
        ("workers.0", {"workers": (":30002",)}),
        ("workers.0", {"workers": ("10.0.0.1:0",)}),
        ("workers.0", {"workers": ("10.0.0.1:65536",)}),
        ("workers.0", {"workers": ("10.0.0.1:٣",)}),
        ("workers.0", {"workers": ("10.0.0.256:30002",)}),
        ("workers.0", {"workers": ("a b:30002",)}),
        ("workers.1", {"workers": ("10.0.0.1:30002", "1::2::3:30002")}),
    ],
)
def test_a_wrong_setting_is_refused_by_name(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams) as caught:
        check_settings(dataclasses.replace(Topic(name="t"), **changes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"retry_ms": ()},
        {"retry_ms": (0, MAX_DELAY_MS)},
        {"workers": ("10.0.0.1:30002", "::1:30002", "[::1]:30002", "worker-1.example:1")},
        {"business": "Läden und Märkte", "balance": "random"},
        *({"balance": balance, "weigh_by": "load"} for balance in BALANCES),
        {"max_concurrent_dispatches": 100_000},
        {"max_dispatches_per_second": 1_000_000, "retention_ms": 60_000, "paused": True},
    ],
)
def test_a_right_setting_is_taken(changes: dict[str, Any]) -> None:
    check_settings(dataclasses.replace(Topic(name="t"), **changes))


@pytest.fixture
def topics(tmp_path: Path) -> Iterator[Topics]:
    config = override(
        Config(),
        {
            "log": {"path": str(tmp_path / "log.db")},
            "registry": {"path": str(tmp_path / "topics.json")},
        },
    )
    with open_topics(config) as made:
        yield made


def test_neither_add_nor_update_takes_what_is_wrong(topics: Topics) -> None:
    wrong = dataclasses.replace(topics.new("t"), workers=("nonsense",))
    with pytest.raises(InvalidParams, match=r"workers\.0"):
        topics.add(wrong)
    assert topics.registry.topics() == {}
    good = topics.new("t")
    assert topics.add(good)
    with pytest.raises(InvalidParams, match=r"workers\.0"):
        topics.update("t", lambda _: wrong)
    assert topics.registry.topics() == {"t": good}


def test_a_new_topic_has_the_settings_of_the_deployment(topics: Topics) -> None:
    config = override(
        Config(),
        {
            "topics": {
                "balance": "weighted_random",
                "weigh_by": "load",
                "max_concurrent_dispatches": 9,
                "retry_ms": [1],
            }
        },
    )
    topic = dataclasses.replace(topics, config=config.topics).new("t")
    assert (topic.balance, topic.weigh_by) == ("weighted_random", "load")
    assert (topic.max_concurrent_dispatches, topic.retry_ms) == (9, (1,))


def test_update_changes_what_is_there(topics: Topics) -> None:
    def no_retry(topic: Topic) -> Topic:
        return dataclasses.replace(topic, retry_ms=())

    with pytest.raises(TopicNotFound):
        topics.update("t", no_retry)
    topic = topics.new("t")
    topics.add(topic)
    assert topics.update("t", no_retry) == topics.find("t") == no_retry(topic)


def test_what_others_change_meanwhile_stays(topics: Topics) -> None:
    topics.add(topics.new("t"))

    def slow(topic: Topic) -> Topic:
        if not topic.paused:
            topics.update("t", lambda now: dataclasses.replace(now, paused=True))
        return dataclasses.replace(topic, business="shop")

    assert topics.update("t", slow) == topics.find("t")
    assert (topics.find("t").paused, topics.find("t").business) == (True, "shop")


def test_a_change_gives_up_when_others_never_stop(topics: Topics) -> None:
    topics.add(topics.new("t"))

    def overtaken(topic: Topic) -> Topic:
        topics.update("t", lambda now: dataclasses.replace(now, worker_num=now.worker_num + 1))
        return dataclasses.replace(topic, business="shop")

    with pytest.raises(Conflict, match="try again"):
        topics.update("t", overtaken)
    assert topics.find("t").business == ""


def test_a_deleted_topic_is_not_found(topics: Topics) -> None:
    topics.add(topics.new("t"))
    assert topics.delete("t")
    assert not topics.delete("t")
    with pytest.raises(TopicNotFound):
        topics.find("t")
