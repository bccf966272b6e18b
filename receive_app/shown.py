"""A message and where it is, as the HTTP API shows it."""

import json
from typing import Any

from soraka.message import Stored


def shown(stored: Stored) -> dict[str, Any]:
    """Moments that have not come yet are left out, as are params and a reason where there are
    none."""
    message, callback = stored.message, stored.message.callback
    call: dict[str, Any] = {"request_type": callback.method, "url": callback.url}
    if callback.params is not None:
        call["params"] = json.loads(callback.params)
    fields = {
        "msg_id": message.msg_id,
        "topic_name": message.topic,
        "state": stored.state.value,
        "created_at": message.created_at,
        "due_at": stored.due_at,
        "attempt": stored.attempt,
        "owner": stored.owner,
        "ttr": message.ttr_ms,
        "callback": call,
    }
    for name in ("lease_until", "finished_at", "reason"):
        if value := getattr(stored, name):
            fields[name] = value
    return fields
