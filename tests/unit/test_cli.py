"""The `soraka` command without its processes; `tests/acceptance/test_cli.py` has those."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import idl
from soraka import cli, cli_rebalance, cli_topic
from soraka.adapters.local_registry import LocalRegistry
from soraka.adapters.sqlite_log import SqliteLog
from soraka.config import TopicsConfig
from soraka.message import Topic
from soraka.process import listen
from soraka.rpc import RpcServer
from soraka.signing import new_secret
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

    monkeypatch.setattr(cli_topic, "open_topics_of", opened)
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
    put = topics.registry.put_topic

    def gone(topic: Topic, *, was: Topic | None) -> bool:
        topics.registry.delete_topic("orders")
        return put(topic, was=was)

    monkeypatch.setattr(topics.registry, "put_topic", gone)
    done = CliRunner().invoke(cli.main, ["topic", "update", "orders", "--business", "shop"])
    assert (done.exit_code, done.output) == (1, "Error: topic 'orders' does not exist\n")
    assert topics.registry.topics() == {}


def test_all_settings_can_be_given_and_are_shown(topics: Topics) -> None:
    settings = ["--balance=weighted_random", "--weigh-by=load", "--max-concurrent-dispatches=5"]
    done = CliRunner().invoke(cli.main, ["topic", "add", "orders", *settings])
    assert (done.exit_code, done.output) == (0, "created orders\n")
    shown = json.loads(CliRunner().invoke(cli.main, ["topic", "get", "orders"]).output)
    assert (shown["balance"], shown["weigh_by"]) == ("weighted_random", "load")
    assert (shown["name"], shown["max_concurrent_dispatches"]) == ("orders", 5)
    done = CliRunner().invoke(
        cli.main,
        ["topic", "update", "orders", "--weigh-by=instance", "--max-concurrent-dispatches=0"],
    )
    assert done.exit_code == 0
    listed = json.loads(CliRunner().invoke(cli.main, ["topic", "list"]).output)
    assert listed == shown | {"weigh_by": "instance", "max_concurrent_dispatches": 0}


def test_a_secret_is_printed_once_and_counted_after_that(topics: Topics) -> None:
    topics.add(Topic(name="orders"))
    made = CliRunner().invoke(cli.main, ["topic", "add-secret", "orders"]).output.strip()
    assert topics.find("orders").secrets == (made,)
    own = new_secret()
    done = CliRunner().invoke(cli.main, ["topic", "add-secret", "orders", "--given"], input=own)
    assert (done.exit_code, done.output) == (0, "added to orders\n")
    assert topics.find("orders").secrets == (own, made)
    for command in (["get", "orders"], ["list"]):
        shown = CliRunner().invoke(cli.main, ["topic", *command]).output
        assert json.loads(shown)["secret_num"] == 2
        assert "whsec_" not in shown
    done = CliRunner().invoke(cli.main, ["topic", "add-secret", "orders"])
    assert done.output == "Error: topic_name: topic 'orders' has two secrets already; remove one\n"
    done = CliRunner().invoke(cli.main, ["topic", "remove-secret", "orders", "older"])
    assert (done.exit_code, done.output) == (0, "removed from orders\n")
    assert topics.find("orders").secrets == (own,)
    done = CliRunner().invoke(
        cli.main, ["topic", "add-secret", "orders", "--given"], input="secret"
    )
    assert done.exit_code == 1
    assert done.output == "Error: secret: must be whsec_ and 24 to 64 bytes in base64\n"


def test_get_of_a_topic_that_is_not_there(topics: Topics) -> None:
    done = CliRunner().invoke(cli.main, ["topic", "get", "orders"])
    assert (done.exit_code, done.output) == (1, "Error: topic 'orders' does not exist\n")
    assert topics.registry.topics() == {}


class FakeCenter:
    """A center's Thrift service: so many pages of ten messages, of which it moves three each. Of
    each page the answer gets lost `losses` times at first."""

    def __init__(self, pages: int, losses: int = 0) -> None:
        self.cursors: list[str] = []
        self._pages = pages
        self._left = self._losses = losses
        self._server = RpcServer(idl.center.Center, self, listen("127.0.0.1", 0))
        self._server.start()
        self.address = f"127.0.0.1:{self._server.port}"

    def rebalance(self, topic: str, cursor: str) -> Any:
        assert topic == "orders"
        if cursor and self._left:
            self._left -= 1
            raise RuntimeError("on purpose")
        self._left = self._losses
        self.cursors.append(cursor)
        done = len(self.cursors)
        after = f"page {done}" if done < self._pages else ""
        return idl.center.Rebalanced(looked_at=10, moved=3, cursor=after)

    def close(self) -> None:
        self._server.stop(0)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_rebalance, "PAUSE_S", 0.01)
    monkeypatch.setattr(cli_rebalance, "TELL_EVERY_S", 0)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("losses", [0, 2])
def test_rebalance_goes_on_until_the_end_and_tells_how_far_it_is(losses: int) -> None:
    center = FakeCenter(pages=3, losses=losses)
    done = CliRunner().invoke(cli.main, ["rebalance", "orders", "--center", center.address])
    center.close()
    assert done.exit_code == 0, done.output
    assert done.stdout == "moved 9 messages of orders\n"
    assert done.stderr.splitlines()[-1] == "looked at 30 messages, moved 9"
    assert center.cursors == ["", "page 1", "page 2"]


@pytest.mark.usefixtures("hurried")
def test_rebalance_gives_up_in_one_line() -> None:
    center = FakeCenter(pages=3, losses=1000)
    done = CliRunner().invoke(cli.main, ["rebalance", "orders", "--center", center.address])
    center.close()
    assert done.exit_code == 1
    assert f"Error: {center.address}: " in done.output
    after = CliRunner().invoke(cli.main, ["rebalance", "orders", "--center", center.address])
    assert after.exit_code == 1
    assert after.output.count("\n") == 1
    assert "Connection refused: is a center running there?" in after.output


def test_rebalance_without_zookeeper_asks_the_center_of_this_machine() -> None:
    center = FakeCenter(pages=1)
    port = center.address.rpartition(":")[2]
    environ = {"SORAKA_CENTER_THRIFT_PORT": port}
    done = CliRunner().invoke(cli.main, ["rebalance", "orders"], env=environ)
    center.close()
    assert done.output == "moved 3 messages of orders\n"
    done = CliRunner().invoke(
        cli.main, ["rebalance", "orders"], env={"SORAKA_CENTER_THRIFT_PORT": "0"}
    )
    assert "--center" in done.output
    done = CliRunner().invoke(cli.main, ["rebalance", "orders", "--center", "nowhere"])
    assert "Invalid value for --center: must be host:port" in done.output
