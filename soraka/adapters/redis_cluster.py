"""The masters of a Redis Cluster, and the slots that they hold."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import MovedError, RedisError

from soraka.adapters.redis_lookup import Lookup, first_answer
from soraka.adapters.redis_node import Limits, Node, Options

ASKED = 5
"""Servers asked at once for the slots."""
Address = tuple[str, int]
Slots = list[tuple[range, Address]]


class ClusterTopology:
    """Asks for the slots at the first use and after each failure; follows MOVED in between.

    What is known goes on to serve while no server can be asked.
    """

    together = False

    def __init__(self, seeds: Sequence[Options], limits: Limits) -> None:
        self._options = seeds[0]
        self._limits = limits
        self._seeds = [_address(seed) for seed in seeds]
        self._nodes: dict[Address, Node] = {}
        self._slots: Slots = []
        self._where: dict[int, Node] = {}
        self._lookup = Lookup(self._look)

    def locate(self, shards: Iterable[int]) -> Mapping[int, Node]:
        try:
            self._lookup.ensure()
        except RedisError:
            if not self._slots:
                raise
        where = self._where
        for shard in shards:
            if shard not in where:
                self._find(shard, where)
        return where

    def moved(self, shard: int, by: Node, error: MovedError) -> None:
        # An empty host is that of the server which says so.
        self._where[shard] = self._node((error.host or by.host, error.port))

    def look_again(self) -> None:
        self._lookup.expire()

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()

    def _find(self, shard: int, where: dict[int, Node]) -> None:
        slot = key_slot(str(shard).encode())
        for slots, address in self._slots:
            if slot in slots:
                where[shard] = self._node(address)

    def _look(self) -> None:
        known = [self._node(address) for address in {*self._seeds, *self._nodes}]
        random.shuffle(known)
        known.sort(key=lambda node: node.resting)
        self._slots = first_answer(known[:ASKED], ("CLUSTER", "SLOTS"), _slots, _share)
        self._where = {}
        if _share(self._slots) < 1:  # those it leaves out may be the ones that know
            return
        for address in {*self._nodes} - {address for _, address in self._slots}:
            self._nodes.pop(address).retire()

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            host, port = address
            self._nodes[address] = Node({**self._options, "host": host, "port": port}, self._limits)
        return self._nodes[address]


def _address(options: Options) -> Address:
    return options.get("host", "localhost"), options.get("port", 6379)


def _share(slots: Slots) -> float:
    """Of all slots: a server that joins a cluster knows only some of them at first."""
    return sum(len(some) for some, _ in slots) / REDIS_CLUSTER_HASH_SLOTS


def _slots(node: Node, reply: Sequence[Any]) -> Slots:
    """Source: CLUSTER SLOTS. A host it does not name is that of the server asked."""
    if not reply:
        raise RedisError("knows of no slots")
    found = []
    for first, last, (host, port, *_), *_replicas in reply:
        name = host.decode() if host not in (None, b"", b"?") else node.host
        found.append((range(first, last + 1), (name, port)))
    return found
