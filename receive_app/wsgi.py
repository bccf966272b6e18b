"""The receive process: gunicorn with gevent workers, and Thrift beside HTTP in each."""

from receive_app.access import access_of
from soraka.config import Config
from soraka.serving import HttpServer, Started


class ReceiveServer(HttpServer):
    """`run()` serves until a signal."""

    role = "receive"
    listeners = 2

    def __init__(self, config: Config) -> None:
        access_of(config.receive)  # a file that cannot be used is told of before anything forks
        super().__init__(config)
        self._thrift = self._listen("thrift_port")

    def start(self) -> Started:
        from receive_app.service import start

        return start(self._config, self._announced, self.metrics(), self._thrift)
