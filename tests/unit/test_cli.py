"""The `soraka` command without its processes; `tests/acceptance/test_cli.py` has those."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from soraka import cli
from soraka.adapters.local_registry import LocalRegistry
from soraka.adapters.sqlite_log import SqliteLog
from soraka.config import TopicsConfig
from soraka.message import Topic
from soraka.topics import Topics

CLUSTER = {
    "SORAKA_REGISTRY_ADAPTER": "zookeeper",
    "SORAKA_LOG_ADAPTER": "kafka",
    "SORAKA_STORE_ADAPTER": "redis",
}


@pytest.mark.parametrize("role", ["receive", "center", "worker"])
@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ("SORAKA_REGISTRY_ADAPTER", "registry.adapter = 'local'"),
        ("SORAKA_LOG_ADAPTER", "log.adapter = 'sqlite'"),
        ("SORAKA_STORE_ADAPTER", "store.adapter = 'sqlite'"),
    ],
)
def test_a_role_of_its_own_needs_shared_servers(role: str, left_out: str, told: str) -> None:
    environ = {**CLUSTER, left_out: None}
    done = CliRunner().invoke(cli.main, [role], env=environ)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {told}: ")
    assert "soraka standalone" in done.output
    assert "dev/stack" in done.output


def test_a_wrong_setting_is_told_first() -> None:
    done = CliRunner().invoke(cli.main, ["worker"], env={"SORAKA_STORE_SHARDS": "none"})
    assert "SORAKA_STORE_SHARDS" in done.output
    assert "standalone" not in done.output


@pytest.fixture
def topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Topics]:
    """Those that `soraka topic` opens, with `topics.auto_create` on."""
    registry = LocalRegistry(path=None)
    log = SqliteLog(
        path=tmp_path / "log.db", retention_ms=0, append_timeout_ms=3000, max_inflight_bytes=1 << 20
    )
    made = Topics(log, registry, TopicsConfig(auto_create=True), lambda: 1)

    @contextmanager
    def opened(_: Any) -> Iterator[Topics]:
        yield made

    monkeypatch.setattr(cli, "_topics", opened)
    yield made
    log.close()


def test_update_changes_a_topic(topics: Topics) -> None:
    topics.add(Topic(name="orders"))
    done = CliRunner().invoke(cli.main, ["topic", "update", "orders", "--business", "shop"])
    assert (done.exit_code, done.output) == (0, "updated orders\n")
    assert topics.find("orders").business == "shop"


def test_update_makes_no_topic(topics: Topics) -> None:
    done = CliRunner().invoke(cli.main, ["topic", "update", "orders", "--business", "shop"])
    assert (done.exit_code, done.output) == (1, "Error: topic 'orders' does not exist\n")
    assert topics.registry.topics() == {}


def test_update_of_a_topic_that_goes_meanwhile(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.add(Topic(name="orders"))
    stale = dict(topics.registry.topics())
    put = topics.registry.put_topic

    def gone(topic: Topic, *, create: bool) -> bool:
        return put(replace(topic, name="elsewhere"), create=create)

    monkeypatch.setattr(topics.registry, "put_topic", gone)
    done = CliRunner().invoke(cli.main, ["topic", "update", "orders", "--business", "shop"])
    assert (done.exit_code, done.output) == (1, "Error: topic 'orders' does not exist\n")
    assert topics.registry.topics() == stale
