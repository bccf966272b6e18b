"""The Thrift edge of center."""

from typing import Any

from center.reconcile import Reconcile
from soraka.ports import DueId


class Handler:
    """`idl/center.thrift`."""

    def __init__(self, reconcile: Reconcile) -> None:
        self._reconcile = reconcile

    def hand_back(self, owner: str, messages: list[Any]) -> list[str]:
        pairs = [(m.topic, DueId(m.due.due_at, m.due.msg_id)) for m in messages]
        return self._reconcile.hand_back(owner, pairs)
