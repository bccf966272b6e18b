"""What the parts of the Redis store share: which shard holds what, and calls on shards."""

import math
from binascii import crc32
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

from soraka.adapters.redis_args import in_order
from soraka.adapters.redis_node import Arg
from soraka.adapters.redis_scripts import OwnArg, RedisScripts, prefix

T = TypeVar("T")


class RedisShards:
    """`now_ms` replaces the clock of Redis in tests."""

    def __init__(
        self, scripts: RedisScripts, shards: int, now_ms: Callable[[], int] | None
    ) -> None:
        self._redis = scripts
        self._shards = range(shards)
        self._now_ms = now_ms

    def _clock(self) -> str:
        return "" if self._now_ms is None else str(self._now_ms())

    def _on_all(self, *args: Arg) -> list[tuple[int, Sequence[Arg]]]:
        """The calls of a script on every shard."""
        return [(shard, args) for shard in self._shards]

    def _everywhere(self, command: str, key: str, *rest: Arg) -> list[tuple[int, Sequence[Arg]]]:
        """A plain command on a key of every shard."""
        return [(shard, (command, prefix(shard) + key, *rest)) for shard in self._shards]

    def _shard_of(self, name: str) -> int:
        """Of the id of a message, as `ports.Store` has it; of other names likewise."""
        return crc32(name.encode()) % len(self._shards)

    def _by_shard(self, names: Iterable[str]) -> dict[int, list[int]]:
        """Shard -> indexes of its names."""
        by_shard: dict[int, list[int]] = defaultdict(list)
        shards = len(self._shards)
        for index, name in enumerate(names):
            by_shard[crc32(name.encode()) % shards].append(index)
        return by_shard

    def _each(
        self,
        script: str,
        head: Sequence[Arg],
        items: Sequence[T],
        names: Iterable[str],
        args: Callable[[T], tuple[OwnArg, ...]],
    ) -> list[Any]:
        """Runs a script that answers once for each item. Their names say in which shards they
        are."""
        by_shard = self._by_shard(names)
        own = {
            shard: list(chain.from_iterable([args(items[i]) for i in at]))
            for shard, at in by_shard.items()
        }
        return in_order(by_shard, self._redis.run_each(script, head, own)) if own else []

    def _quota(self, limit: int) -> int:
        """How many of `limit` to ask one shard for: ids fall evenly on them, so its share and a
        bit, not everything."""
        share = limit / len(self._shards)
        return min(limit, int(share + 4 * math.sqrt(max(0.0, share))) + 8)
