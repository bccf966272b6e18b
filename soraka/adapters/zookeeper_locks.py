"""Locks that are one ephemeral node each: tried for once, gone with the session.

Not kazoo's recipe: that leaves a lasting directory behind for every name, and a contender's node
behind when the answer to its making is lost.
"""

import logging
from contextlib import suppress

from kazoo.exceptions import NodeExistsError, NoNodeError

from soraka.adapters.zookeeper_client import ZookeeperClient
from soraka.errors import RegistryUnavailable

log = logging.getLogger(__name__)


class Locks:
    """The locks of one session, by path. Never raises for an outage, but for `mend`."""

    def __init__(self, client: ZookeeperClient) -> None:
        self._client = client
        self._held: dict[str, int] = {}
        self._unsure: set[str] = set()

    def take(self, path: str) -> bool:
        """Whether it was had; without waiting, and False while ZooKeeper is away."""
        try:
            made = self._create(path)
        except RegistryUnavailable as exc:
            _warn(path, exc)
            self._unsure.add(path)  # it may be made yet, and would then stay locked
            return False
        if made is not None:
            self._held[path] = made
        return made is not None

    def release(self, path: str) -> None:
        del self._held[path]
        self._unsure.add(path)
        try:
            self._drop(path)
        except RegistryUnavailable as exc:
            _warn(path, exc)  # left to mend

    def mend(self) -> None:
        """Drops what calls without an answer may have left. Raises RegistryUnavailable."""
        for path in list(self._unsure):
            self._drop(path)

    def _create(self, path: str) -> int | None:
        """The id of the node made; None when there is one."""
        with self._client.calls(), suppress(NodeExistsError):
            made = self._client.kazoo.create(path, ephemeral=True, makepath=True, include_data=True)
            return int(made[1].czxid)
        return None

    def _drop(self, path: str) -> None:
        """Deletes the node if it is of this session and nobody in this process holds it."""
        with self._client.calls(), suppress(NoNodeError):
            stat = self._client.kazoo.exists(path)
            ours = stat is not None and stat.ephemeralOwner == self._client.session()
            if ours and stat.czxid != self._held.get(path):
                self._client.kazoo.delete(path)
        self._unsure.discard(path)


def _warn(path: str, exc: RegistryUnavailable) -> None:
    log.warning("registry.lock_unavailable", extra={"lock": path, "reason": str(exc)})
