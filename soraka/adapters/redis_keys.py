"""Idempotency keys in Redis, each a string of its own that expires by itself."""

from collections.abc import Sequence

from soraka.adapters.redis_ids import full, short
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
        return [_kept(key.key, value) for key, value in zip(keys, found, strict=True)]


def _args(asked: tuple[KeptKey, int]) -> tuple[OwnArg, ...]:
    kept, window_ms = asked
    return kept.key, f"{short(kept.msg_id).decode()} {kept.digest}", window_ms


def _kept(key: str, value: bytes) -> KeptKey:
    short_id, _, digest = value.rpartition(b" ")
    return KeptKey(key, full(short_id), digest.decode())
