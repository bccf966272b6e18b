"""An HTTP role as a process: gunicorn with gevent workers.

The master binds the sockets and forks; everything that talks to a server is made in the workers,
after gunicorn has patched them for gevent.
"""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from gunicorn.app.base import BaseApplication

from soraka import logs, tls
from soraka.config import Config
from soraka.connections import fitting
from soraka.metrics import Metrics, forget_process, share
from soraka.process import TAKEN_PORT_S, listen, new_instance

SPARE_S = 5
"""From the end of the drain until the master kills its workers: they see a signal only once a
second, and the log is flushed last."""
LOOK_S = 0.1
Started = tuple[Any, Callable[[], None], Callable[[], None]]
"""The WSGI application, what to call when the worker is told to end, and when it has."""


class HttpServer(BaseApplication):  # type: ignore[misc]
    """`run()` serves until a signal. The settings are those of the section `role`; `listeners` is
    how many sockets share the open files of a process."""

    role = ""
    listeners = 1

    def __init__(self, config: Config) -> None:
        self._config = config
        self._section: Any = getattr(config, self.role)
        logs.configure(config.process)
        tls.check(config.tls)  # what the workers find wrong ends them only one after another
        self._http = self._listen("port")
        self._drain: Callable[[], None] = _nothing
        self._close: Callable[[], None] = _nothing
        self._draining: Any = None
        # what the workers count, so that any of them can tell for all
        self._counted = Path(mkdtemp(prefix="soraka-")) if self._section.processes > 1 else None
        super().__init__()

    def start(self) -> Started:
        """Called in each worker, patched by now; `self._announced` is how it announces itself."""
        raise NotImplementedError

    def metrics(self) -> Metrics:
        """Of this process; to be made in each worker, once."""
        if self._counted is not None:
            share(self._counted)
        return Metrics(self._counted)

    def _listen(self, key: str) -> socket.socket:
        port, setting = getattr(self._section, key), f"{self.role}.{key}"
        return listen(self._section.host, port, setting, patience_s=TAKEN_PORT_S)

    def load_config(self) -> None:
        section, most = self._section, f"{self.role}.max_connections"
        settings = {
            "bind": f"fd://{self._http.fileno()}",
            "workers": section.processes,
            "worker_class": "soraka.gunicorn_worker.DoorWorker",
            "worker_connections": fitting(section.max_connections, self.listeners, most),
            "graceful_timeout": self._drain_s + SPARE_S,
            "timeout": 60,
            "loglevel": "warning",
            "proc_name": f"soraka-{self.role}",
            # its default path is one per home directory
            "control_socket_disable": True,
            "post_worker_init": self._worker_up,
            "worker_exit": self._worker_exit,
            "child_exit": self._child_exit,
            "on_exit": self._master_exit,
        }
        for key, value in settings.items():
            self.cfg.set(key, value)
        host = section.advertise or section.host
        self._announced = new_instance(self.role, host, self._http.getsockname()[1])

    def load(self) -> Any:
        app, self._drain, self._close = self.start()
        return app

    @property
    def read_limit_s(self) -> float:
        return float(self._section.read_timeout_ms / 1000)

    @property
    def _drain_s(self) -> int:
        return max(1, self._config.process.drain_ms // 1000)

    def _worker_up(self, worker: Any) -> None:
        """HTTP gets less than the master waits; the rest leaves beside it."""
        import gevent

        worker.cfg.set("graceful_timeout", self._drain_s)
        self._draining = gevent.spawn(self._drain_when_told, worker)

    def _drain_when_told(self, worker: Any) -> None:
        import gevent

        while worker.alive:
            gevent.sleep(LOOK_S)
        gevent.spawn(worker.close_idle)
        self._drain()

    def _worker_exit(self, _server: Any, worker: Any) -> None:
        if self._draining is not None:
            worker.alive = False  # not told by a signal, it is still True
            self._draining.join(self._drain_s + 1)
        self._close()

    def _child_exit(self, _server: Any, worker: Any) -> None:
        if self._counted is not None:
            forget_process(worker.pid, self._counted)

    def _master_exit(self, _server: Any) -> None:
        if self._counted is not None:
            shutil.rmtree(self._counted, ignore_errors=True)


def _nothing() -> None:
    """Before a worker is up."""
