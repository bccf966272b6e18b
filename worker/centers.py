"""A line to whichever center answers."""

from typing import Any

import idl
from soraka.errors import PeerUnavailable
from soraka.ports import DueId, Registry
from soraka.rpc import RpcClient, parse_address
from soraka.tls import Context


class Centers:
    """Follows the registry."""

    def __init__(
        self,
        registry: Registry,
        owner: str,
        *,
        rpc_timeout_ms: int,
        secured: Context | None = None,
    ) -> None:
        self._registry = registry
        self._owner = owner
        self._timeout_ms = rpc_timeout_ms
        self._secured = secured
        self._clients: dict[str, RpcClient] = {}

    def hand_back(self, messages: list[tuple[str, DueId]]) -> list[str]:
        """Offers (topic, message) pairs to be balanced anew; returns the ids that went to another
        worker. When no center answers, none did, or it is not known."""
        live = self._registry.live("center")
        for address in [a for a in self._clients if a not in live]:
            self._clients.pop(address).close()
        structs = [_struct(topic, due) for topic, due in messages]
        for address in sorted(live):
            try:
                moved = self._client(address).call("hand_back", owner=self._owner, messages=structs)
            except PeerUnavailable:
                continue
            return list(moved)
        return []

    def close(self) -> None:
        """Safe to repeat."""
        while self._clients:
            self._clients.popitem()[1].close()

    def _client(self, address: str) -> RpcClient:
        if address not in self._clients:
            self._clients[address] = RpcClient(
                idl.center.Center,
                parse_address(address),
                timeout_ms=self._timeout_ms,
                secured=self._secured,
            )
        return self._clients[address]


def _struct(topic: str, due: DueId) -> Any:
    return idl.center.HandBack(
        topic=topic, due=idl.worker.Due(msg_id=due.msg_id, due_at=due.due_at)
    )
