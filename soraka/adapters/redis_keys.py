"""Idempotency keys in Redis, each a string of its own that expires by itself."""

from collections.abc import Sequence

from soraka.adapters.redis_scripts import OwnArg
from soraka.adapters.redis_shards import RedisShards
from soraka.ports import KeptKey


class RedisKeys(RedisShards):
    """Implements StoreKeys. A key is in the shard that its own hash names."""

    def keep_keys(self, keys: Sequence[KeptKey], window_ms: Sequence[int]) -> list[KeptKey]:
        """A full Redis takes none."""
        asked = list(zip(keys, window_ms, strict=True))
        names = [kept.key for kept in keys]
        found = self._each("keep_keys", ("",), asked, names, _args)
        return [
            KeptKey(kept.key, *value.decode().split(" "))
            for kept, value in zip(keys, found, strict=True)
        ]


def _args(asked: tuple[KeptKey, int]) -> tuple[OwnArg, ...]:
    kept, window_ms = asked
    return kept.key, f"{kept.msg_id} {kept.digest}", window_ms
