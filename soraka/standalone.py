"""All roles in one process, on SQLite: the embedded default. The role code is the same."""

import logging

from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from center.main import Center
from receive_app.service import Service
from soraka import process
from soraka.config import Config
from soraka.metrics import Metrics
from soraka.wiring import Parts
from worker.main import Worker

log = logging.getLogger(__name__)


class Receive:
    """A `process.Role`: receive without gunicorn."""

    name = "receive"

    def __init__(self, parts: Parts, metrics: Metrics) -> None:
        config = parts.config.receive
        self._config = config
        self._registry = parts.registry
        self._service = Service(parts, metrics, process.listen(config.host, config.thrift_port))
        self._http = WSGIServer(
            process.listen(config.host, config.port),
            self._service.app,
            log=None,
            spawn=Pool(config.max_connections),
        )

    def start(self) -> None:
        self._http.start()
        self._service.thrift.start()
        self._instance = process.new_instance("receive", self._config.host, self.port)
        process.announce(self._registry, self._instance)

    @property
    def port(self) -> int:
        return int(self._http.server_port or 0)

    @property
    def thrift_port(self) -> int:
        return self._service.thrift.port

    def drain(self, limit_s: float) -> bool:
        self._registry.unregister(self._instance)
        self._http.close()
        self._service.thrift.stop(limit_s)
        self._http.stop(timeout=min(limit_s, 1.0))
        return True

    def stop(self) -> None:
        self._http.stop(timeout=0)
        self._service.thrift.stop(0)

    def turn_ages_ms(self) -> dict[str, int]:
        return {}

    def down(self) -> list[str]:
        return []


def run(config: Config) -> None:
    """Runs until a signal. Raises OSError when a port is taken."""
    process.configure_logging(config.process)
    parts = Parts(config)
    process.follow_clock(parts.clock.sync)
    metrics = Metrics()
    worker, center = Worker(parts, metrics), Center(parts, metrics)
    receive = Receive(parts, metrics)
    roles: list[process.Role] = [receive, center, worker]
    try:
        for role in reversed(roles):
            role.start()
        print(_greeting(config, receive), flush=True)
        process.run(roles, config.process)
    finally:
        parts.close()


def _greeting(config: Config, receive: Receive) -> str:
    http = f"http://{config.receive.host}:{receive.port}"
    return f"""\
soraka standalone, everything in {config.store.path.rpartition("/")[0] or "."}
  HTTP    {http}   (OpenAPI: {http}/openapi.json)
  Thrift  {config.receive.host}:{receive.thrift_port}
Try it: a POST to http://127.0.0.1:8000/hello in 3 seconds
  curl {http}/sorakaq/msg/submit -H 'Content-Type: application/json' -d '{{
    "topic_name": "greetings", "delay_time": 3000,
    "callback": {{"request_type": "POST", "url": "http://127.0.0.1:8000/hello",
                 "params": {{"name": "soraka"}}}}}}'"""
