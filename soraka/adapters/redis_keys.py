"""Idempotency keys in Redis, each a string of its own that expires by itself."""

from collections.abc import Sequence

from soraka.adapters.redis_node import Arg
from soraka.adapters.redis_shards import RedisShards
from soraka.ports import KeptKey


class RedisKeys(RedisShards):
    """Implements StoreKeys. A key is in the shard that its own hash names."""

    def keep_keys(self, keys: Sequence[KeptKey], window_ms: Sequence[int]) -> list[KeptKey]:
        """A full Redis takes none."""
        asked = list(zip(keys, window_ms, strict=True))
        found = self._each("keep_keys", ("",), asked, _args)
        return [
            KeptKey(kept.key, *value.decode().split(" "))
            for kept, value in zip(keys, found, strict=True)
        ]


def _args(asked: tuple[KeptKey, int]) -> tuple[Arg, ...]:
    kept, window_ms = asked
    return kept.key, f"{kept.msg_id} {kept.digest}", window_ms
