"""Admin, put together from the adapters of a process: what gunicorn and standalone serve."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from admin_app.accounts import FIRST, Accounts
from admin_app.app import create_app
from admin_app.audit import Audit
from admin_app.service import Service
from soraka import logs, process
from soraka.config import AdminConfig, Config
from soraka.flusher import Flusher
from soraka.launch import Background, Late
from soraka.message import Instance
from soraka.metrics import Metrics
from soraka.stats import Tally
from soraka.wiring import Parts


class Admin:
    """`app` is the WSGI application; it answers Unavailable until `open`."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        healthy: Callable[[], tuple[bool, dict[str, Any]]] = lambda: process.turning(()),
    ) -> None:
        self._metrics = metrics
        self._late = Late()
        self._service: Service | None = None
        self._flusher: Flusher | None = None
        self.app: Any = create_app(
            cast(Service, self._late),
            Accounts(Path(config.admin.accounts)),
            Audit(Path(config.admin.audit)),
            config=config.admin,
            ready=self.down,
            metrics=metrics.render,
            healthy=healthy,
        )

    def open(self, parts: Parts) -> None:
        """From now on it serves. The clock of `parts` must be known."""
        self._metrics.show_skew(parts.clock.skew_ms)
        tally = Tally()
        self._flusher = Flusher(parts.store, tally)
        self._flusher.start()
        self._service = Service(parts, tally.counter(parts.clock.now_ms))
        self._late.is_(self._service)

    def waiting_for(self, port: str) -> None:
        self._late.waiting_for(port)

    def down(self) -> list[str]:
        """What it needs and cannot reach now."""
        return [self._late.waits_for] if self._service is None else self._service.down()

    def close(self) -> None:
        """Bulk jobs stop, and the last of its statistics is written. Safe to repeat."""
        if self._service is not None:
            self._service.bulk.close()
        if self._flusher is not None:
            self._flusher.stop()


def start(
    config: Config, instance: Instance, metrics: Metrics
) -> tuple[Any, Callable[[], None], Callable[[], None]]:
    """In a gunicorn worker: the WSGI application, what to call when the worker is told to end,
    and what to call when it has."""
    logs.configure(config.process)
    admin = Admin(config, metrics)
    coming = Background(config, instance, metrics, admin.waiting_for, admin.open)
    return admin.app, lambda: coming.leave(admin.close), coming.close


def make_first_account(config: AdminConfig) -> None:
    """At the very first start: prints its password, at once and this once, since it is kept
    nowhere. Raises ConfigError, OSError."""
    password = Accounts(Path(config.accounts)).first_start()
    if password is not None:
        print(
            f"Log in to admin as {FIRST!r} with the password {password}\n"
            "It is shown this once; `soraka admin set-password` sets another.",
            flush=True,
        )
