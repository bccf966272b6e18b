"""The admin process: gunicorn with gevent workers."""

from admin_app.server import make_first_account
from soraka.config import Config
from soraka.serving import HttpServer, Started


class AdminServer(HttpServer):
    """`run()` serves until a signal. Makes the first account, if there is none, and prints its
    password."""

    role = "admin"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        make_first_account(config.admin)

    def start(self) -> Started:
        from admin_app.server import start

        return start(self._config, self._announced, self.metrics())
