"""gunicorn's gevent worker, with our HTTP server in the place of its own."""

import socket
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker

from soraka.connections import SPARE, Connections
from soraka.http import Door

IDLE_S = 0.5
"""Shorter ones may have a request on its way: gunicorn accepts for up to a second after it was
told to end."""
LOOK_S = 0.1


class DoorWorker(GeventWorker):  # type: ignore[misc]
    """`close_idle` is for a greenlet, started when the worker is told to end."""

    app: Any
    wsgi: Any
    alive: bool

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.door = Door(
            self.wsgi,
            Connections(self.worker_connections),
            self.app.read_limit_s,
            is_closing=lambda: not self.alive,
        )
        self.worker_connections += SPARE

    def handle(self, _listener: Any, client: socket.socket, addr: Any) -> None:
        self.door.handle(client, addr)

    def close_idle(self) -> None:
        """Never returns."""
        while True:
            self.door.connections.cut_waiting(IDLE_S)
            gevent.sleep(LOOK_S)
