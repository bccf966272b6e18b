"""soraka for Python programs: schedule callbacks, take them back, postpone them, look at them.

    from datetime import timedelta
    from soraka.client import Client

    with Client("http://127.0.0.1:9088") as soraka:
        msg_id = soraka.submit(
            "orders",
            "http://127.0.0.1:8000/remind",
            delay=timedelta(minutes=15),
            params={"order": 123},
        )
        soraka.postpone("orders", msg_id, by=timedelta(hours=1))
        soraka.cancel("orders", msg_id)

Plain blocking code on the standard library's sockets: good in threads, and under gevent once that
has patched the process. What is raised is in `soraka.errors`; the most common are here too.
"""

from soraka.client.calls import Client
from soraka.client.messages import MessageInfo, NewMessage, Submitted
from soraka.errors import (
    InvalidParams,
    KeyReused,
    MessageNotFound,
    NotAllowed,
    NotAuthenticated,
    SorakaError,
    TooLate,
    TopicNotFound,
    Unavailable,
)
from soraka.message import State

__all__ = [
    "Client",
    "InvalidParams",
    "KeyReused",
    "MessageInfo",
    "MessageNotFound",
    "NewMessage",
    "NotAllowed",
    "NotAuthenticated",
    "SorakaError",
    "State",
    "Submitted",
    "TooLate",
    "TopicNotFound",
    "Unavailable",
]
