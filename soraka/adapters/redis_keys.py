"""Idempotency keys in Redis, each a string of its own that expires by itself."""

from collections.abc import Sequence

from soraka.adapters.redis_scripts import prefix
from soraka.adapters.redis_shards import RedisShards
from soraka.ports import KeptKey


class RedisKeys(RedisShards):
    """Implements StoreKeys."""

    def keep_keys(self, keys: Sequence[KeptKey], window_ms: Sequence[int]) -> list[KeptKey]:
        """One command each. It counts against maxmemory: a full Redis takes no new key."""
        commands = []
        for kept, ms in zip(keys, window_ms, strict=True):
            shard = self._shard_of(kept.key)
            name, value = f"{prefix(shard)}k:{kept.key}", f"{kept.msg_id} {kept.digest}"
            commands.append((shard, ("SET", name, value, "NX", "GET", "PX", ms)))
        before = self._redis.read(commands) if commands else []
        return [
            kept if found is None else KeptKey(kept.key, *found.decode().split(" "))
            for kept, found in zip(keys, before, strict=True)
        ]
