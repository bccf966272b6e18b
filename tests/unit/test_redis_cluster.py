"""Where the shards of a Redis Cluster are, when its servers know only a part of it."""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import gevent
import pytest

from soraka.adapters import redis_lookup
from soraka.adapters.redis_cluster import ClusterTopology
from soraka.adapters.redis_node import Command, Limits, Node
from soraka.adapters.redis_send import send

SHARDS = range(8)
WHOLE = [
    [0, 5460, [b"127.0.0.1", 1]],
    [5461, 10922, [b"127.0.0.1", 2]],
    [10923, 16383, [b"127.0.0.1", 3]],
]
PART = WHOLE[:1]


class Servers:
    """What each says of the slots, by port, and after how long."""

    def __init__(self) -> None:
        self.say: dict[str, list[Any]] = {f"127.0.0.1:{port}": WHOLE for port in (1, 2, 3)}
        self.wait_s: dict[str, float] = {}
        self.looks = 0

    def send(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        if commands[0][0] != "CLUSTER":
            return [b"OK"] * len(commands)
        self.looks += 1
        gevent.sleep(self.wait_s.get(node.address, 0))
        return [self.say[node.address]]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = Servers()
    monkeypatch.setattr(Node, "send", lambda node, commands: made.send(node, commands))
    monkeypatch.setattr(redis_lookup, "SECONDS_BETWEEN", 0)
    return made


def topology(*ports: int) -> ClusterTopology:
    seeds = [{"host": "127.0.0.1", "port": port} for port in ports]
    return ClusterTopology(seeds, Limits(timeout_ms=100, max_connections=2))


@pytest.fixture
def one_seed(servers: Servers) -> Iterator[ClusterTopology]:
    with closing(topology(1)) as made:
        yield made


def lacking(where: ClusterTopology) -> int:
    """Shards that no server has."""
    replies = send(where, [(shard, ("PING",)) for shard in SHARDS])
    return sum(reply != b"OK" for reply in replies)


def test_a_seed_that_is_just_joining_is_asked_again(
    servers: Servers, one_seed: ClusterTopology
) -> None:
    servers.say["127.0.0.1:1"] = PART
    assert 0 < lacking(one_seed) < len(SHARDS)
    servers.say["127.0.0.1:1"] = WHOLE
    assert lacking(one_seed) == 0
    looks = servers.looks
    assert lacking(one_seed) == 0
    assert servers.looks == looks


def test_the_fullest_answer_counts_and_not_the_first(servers: Servers) -> None:
    servers.say["127.0.0.1:1"] = PART
    servers.say["127.0.0.1:2"] = WHOLE[:2]
    servers.wait_s = {"127.0.0.1:2": 0.02, "127.0.0.1:3": 0.04}
    with closing(topology(1, 2, 3)) as where:
        assert lacking(where) == 0
    servers.say["127.0.0.1:3"] = PART
    with closing(topology(1, 2, 3)) as where:
        lacking(where)
        assert len(where._slots) == 2


def test_those_that_a_partial_answer_leaves_out_are_still_asked(
    servers: Servers, one_seed: ClusterTopology
) -> None:
    assert lacking(one_seed) == 0
    servers.say = dict.fromkeys(servers.say, PART)
    one_seed.look_again()
    assert lacking(one_seed) > 0
    servers.say["127.0.0.1:3"] = WHOLE
    assert lacking(one_seed) == 0


def test_a_look_that_was_cut_short_is_made_again(
    servers: Servers, one_seed: ClusterTopology
) -> None:
    servers.wait_s["127.0.0.1:1"] = 5
    with suppress(gevent.Timeout), gevent.Timeout(0.05):
        lacking(one_seed)
    servers.wait_s.clear()
    assert lacking(one_seed) == 0


def test_who_comes_during_the_first_look_waits_for_it(
    servers: Servers, one_seed: ClusterTopology
) -> None:
    servers.wait_s["127.0.0.1:1"] = 0.05
    asking = [gevent.spawn(lacking, one_seed) for _ in range(3)]
    gevent.joinall(asking, raise_error=True)
    assert [one.value for one in asking] == [0, 0, 0]
    assert servers.looks == 1
