"""A session with ZooKeeper that is renewed for ever, and the edge at which kazoo's errors stop."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoAuthError
from kazoo.handlers.gevent import SequentialGeventHandler
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry
from kazoo.security import make_digest_acl

from soraka.adapters.zookeeper_tls import TlsHandler
from soraka.errors import RegistryUnavailable
from soraka.tls import Context

log = logging.getLogger(__name__)

RENEW_AFTER = 3
"""In session timeouts without a connection: by then the server has given the session up."""
RECONNECT_MAX_S = 2.0
"""kazoo's own limit is an hour: after a long outage a process would stay unannounced."""


class ZookeeperClient:
    """`kazoo` is the client itself; every use of it stands inside `with calls()`.

    With a `username` all that it makes is open to that user alone.
    """

    def __init__(
        self,
        hosts: str,
        session_timeout_s: float,
        timeout_s: float,
        *,
        secured: Context | None = None,
        username: str = "",
        password: str = "",
    ) -> None:
        self._hosts = hosts
        self._secured = secured
        self._timeout_s = timeout_s
        self._renew_after_s = RENEW_AFTER * session_timeout_s
        self._lost_at: float | None = None
        self._closing = False
        self.kazoo = KazooClient(
            hosts=hosts,
            timeout=session_timeout_s,
            handler=SequentialGeventHandler() if secured is None else TlsHandler(secured),
            connection_retry=KazooRetry(
                max_tries=-1, delay=0.1, max_delay=RECONNECT_MAX_S, sleep_func=gevent.sleep
            ),
            **digest(username, password),
        )

    def connect(self, connected: Callable[[], None]) -> None:
        """Waits for the first connection, up to the timeout; then `calls` raises.

        `connected` is called at each connection, on a greenlet that must not block.
        """

        def listener(state: str) -> None:
            # On the connection's own greenlet: a call to ZooKeeper here would wait for itself.
            if not self._closing:
                log.info("registry.connection", extra={"state": str(state)})
            if state == KazooState.CONNECTED:
                self._lost_at = None
                connected()
            elif self._lost_at is None:
                self._lost_at = time.monotonic()

        self.kazoo.add_listener(listener)
        self.kazoo.start_async().wait(self._timeout_s)

    @property
    def connected(self) -> bool:
        return bool(self.kazoo.connected)

    def session(self) -> int:
        """The id of the present session; -1, which no node has, while there is none."""
        present = self.kazoo.client_id
        return present[0] if present else -1

    def renew(self) -> None:
        """Begins a new session when the old one has long been out of reach; else does nothing.

        A ZooKeeper that lost data (its disk, or a restore) refuses for ever a client that has
        seen more than it knows of. Only a new session forgets what it has seen.
        """
        now = time.monotonic()
        if self._lost_at is None or now - self._lost_at < self._renew_after_s:
            return
        self._lost_at = now
        log.warning("registry.session_renewed")
        gevent.with_timeout(self._timeout_s, self._restart, timeout_value=None)

    @contextmanager
    def calls(self) -> Iterator[None]:
        """No longer than the timeout, and RegistryUnavailable for all of kazoo's errors.

        Refuses at once while there is no connection: kazoo would queue the call and carry it
        out much later.
        """
        if not self.connected:
            why = f": {self._secured.refused}" if self._secured and self._secured.refused else ""
            raise RegistryUnavailable(f"not connected to ZooKeeper at {self._hosts}{why}")
        late = RegistryUnavailable(
            f"ZooKeeper at {self._hosts} did not answer within {self._timeout_s:g} s"
        )
        try:
            with gevent.Timeout(self._timeout_s, late):
                yield
        except NoAuthError as exc:
            raise RegistryUnavailable(
                f"ZooKeeper at {self._hosts}: below registry.root is what only another than this "
                "registry.username, with its registry.password, may see or change"
            ) from exc
        except KazooException as exc:
            raise RegistryUnavailable(f"ZooKeeper at {self._hosts}: {exc!r}") from exc

    def close(self) -> None:
        """Ends the session, which takes its ephemeral nodes away.

        When ZooKeeper is not there to be told, they go at the session timeout.
        """
        self._closing = True
        gevent.with_timeout(self._timeout_s, self._stop, timeout_value=None)

    def _restart(self) -> None:
        with suppress(KazooException):
            self.kazoo.stop()
            self.kazoo.start_async()

    def _stop(self) -> None:
        with suppress(KazooException):
            self.kazoo.stop()
            self.kazoo.close()


def digest(username: str, password: str) -> dict[str, Any]:
    """Settings of kazoo for such a user; none for ''."""
    if not username:
        return {}
    return {
        "auth_data": [("digest", f"{username}:{password}")],
        "default_acl": [make_digest_acl(username, password, all=True)],
    }
