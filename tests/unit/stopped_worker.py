"""A worker process that stops itself (SIGSTOP) at a point of its first call, for a test.

Writes a line of JSON for each attempt that ended; ends when its standard input does. The caller
patches first.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from gevent.fileobject import FileObject

from soraka.config import WorkerConfig
from tests.contract.store_kit import redis_store
from worker import callback
from worker.callback import Caller
from worker.calls import Done
from worker.dns import Resolver
from worker.loop import Loop

stopped: list[str] = []


def stop() -> None:
    """Once."""
    if not stopped:
        stopped.append("")
        os.kill(os.getpid(), signal.SIGSTOP)


def then_stop(what: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        found = what(*args, **options)
        stop()
        return found

    return wrapped


def stop_then(what: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        stop()
        return what(*args, **options)

    return wrapped


def main(url: str, owner: str, point: str, then: str, margin_ms: str) -> None:
    def told(done: Done) -> None:
        print(json.dumps([done.ended.value, done.reason]), flush=True)
        if then == "stop_again":  # before it can settle, or claim anew
            os.kill(os.getpid(), signal.SIGSTOP)

    resolver = Resolver(
        look_up=then_stop(socket.getaddrinfo) if point == "resolved" else socket.getaddrinfo
    )
    caller: Any = Caller(max_response_bytes=4096, resolver=resolver)
    if point == "connected":  # and, with https, past the handshake
        caller._hosts.open = then_stop(caller._hosts.open)
    if point == "first_piece":
        callback._first_piece = then_stop(callback._first_piece)
    with redis_store(url, flush=False, lease_margin_ms=int(margin_ms)) as real:
        store: Any = real
        if point == "claimed":
            store.claim = then_stop(store.claim)
        loop = Loop(
            owner=owner,
            store=store,
            clock=real,
            call=stop_then(caller) if point == "leaving" else caller,
            config=WorkerConfig(page_ms=50, horizon_ms=1000),
            on_done=told,
        )
        loop.start()
        FileObject(sys.stdin.buffer, "rb").read()
        loop.stop()
