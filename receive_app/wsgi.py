"""The receive process: gunicorn with gevent workers, and Thrift beside HTTP in each.

The master binds both sockets and forks; everything that talks to a server is made in the
workers, after gunicorn has patched them for gevent.
"""

from typing import Any

from gunicorn.app.base import BaseApplication

from soraka.config import Config
from soraka.process import listen, new_instance


class ReceiveServer(BaseApplication):  # type: ignore[misc]
    """`run()` serves until a signal."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._http = listen(config.receive.host, config.receive.port)
        self._thrift = listen(config.receive.host, config.receive.thrift_port)
        self._stop: Any = None
        super().__init__()

    @property
    def ports(self) -> tuple[int, int]:
        """HTTP and Thrift."""
        return self._http.getsockname()[1], self._thrift.getsockname()[1]

    def load_config(self) -> None:
        receive = self._config.receive
        settings = {
            "bind": f"fd://{self._http.fileno()}",
            "workers": receive.processes,
            "worker_class": "gevent",
            "worker_connections": receive.max_connections,
            "keepalive": 15,
            "graceful_timeout": max(1, self._config.process.drain_ms // 1000),
            "timeout": 60,
            "loglevel": "warning",
            "proc_name": "soraka-receive",
            # its default path is one per home directory
            "control_socket_disable": True,
            "worker_exit": self._worker_exit,
        }
        for key, value in settings.items():
            self.cfg.set(key, value)
        http_port, _ = self.ports
        host = receive.advertise or receive.host
        self._announced = new_instance("receive", host, http_port)

    def load(self) -> Any:
        """Called in each worker, patched by now."""
        from receive_app.service import start

        app, self._stop = start(self._config, self._announced, self._thrift)
        return app

    def _worker_exit(self, _server: Any, _worker: Any) -> None:
        if self._stop is not None:
            self._stop()
