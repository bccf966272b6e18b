"""The Thrift edge of center."""

import logging
from typing import Any

import idl
from center.rebalance import Rebalance
from center.reconcile import Reconcile
from soraka.ports import DueId

log = logging.getLogger(__name__)


class Handler:
    """`idl/center.thrift`. What a method raises closes the connection of its caller."""

    def __init__(self, reconcile: Reconcile, rebalance: Rebalance) -> None:
        self._reconcile = reconcile
        self._rebalance = rebalance

    def hand_back(self, owner: str, messages: list[Any]) -> list[str]:
        pairs = [(m.topic, DueId(m.due.due_at, m.due.msg_id)) for m in messages]
        return self._reconcile.hand_back(owner, pairs)

    def rebalance(self, topic: str | None, cursor: str | None) -> Any:
        # thriftpy2 leaves None where a required field is missing
        looked_at, moved, after = self._rebalance.page(topic or "", cursor or "")
        if moved:
            log.info("topic.rebalanced", extra={"topic": topic, "messages": moved})
        return idl.center.Rebalanced(looked_at=looked_at, moved=moved, cursor=after)
