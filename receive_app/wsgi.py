"""The receive process: gunicorn with gevent workers, and Thrift beside HTTP in each."""

from soraka.config import Config
from soraka.serving import HttpServer, Started


class ReceiveServer(HttpServer):
    """`run()` serves until a signal."""

    role = "receive"
    listeners = 2

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._thrift = self._listen("thrift_port")

    def start(self) -> Started:
        from receive_app.service import start

        return start(self._config, self._announced, self.metrics(), self._thrift)
