"""TLS for kazoo, on sockets of gevent."""

from collections.abc import Sequence
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

from gevent.socket import create_connection
from kazoo.handlers.gevent import SequentialGeventHandler

from soraka.address import at
from soraka.tls import Context, connected


class TlsHandler(SequentialGeventHandler):  # type: ignore[misc]
    """kazoo's own TLS makes a context for each connection, which takes long and trusts the CAs of
    the system beside the one it is given, and leaves the sockets of refused connections open. And
    it waits for what has come already: an answer that arrived together with another would be seen
    with the next."""

    def __init__(self, secured: Context) -> None:
        super().__init__()
        self._secured = secured

    def create_connection(
        self, address: tuple[str, int], hostname: str, timeout: float, **_: Any
    ) -> Any:
        try:
            sock = create_connection(address, timeout)
        except OSError:
            self._secured.refusals.pop(at(*address), None)
            raise
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        return connected(sock, self._secured, hostname)

    def select(
        self, rlist: Sequence[Any], wlist: Sequence[Any], xlist: Sequence[Any], timeout: Any = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        pending = [sock for sock in rlist if getattr(sock, "pending", int)()]
        if pending:
            timeout = 0
        readable, writable, _ = super().select(rlist, wlist, xlist, timeout)
        return [*readable, *(s for s in pending if s not in readable)], writable, []
