"""receive on the SQLite adapters, with a topic `orders`, for the tests of its edges."""

import socket
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from receive_app.access import Access
from receive_app.app import create_app
from receive_app.ingress import Ingress
from receive_app.keys import Keys, longest_window_ms
from receive_app.rpc import Handler
from receive_app.service import log_down
from soraka import config as settings
from soraka import wire
from soraka.errors import LogUnavailable
from soraka.http import make_server
from soraka.message import Command, Message
from soraka.metrics import Metrics
from soraka.ports import Entry, NewCommand, NewMessage, Record
from soraka.process import listen
from soraka.tokens import Tokens
from soraka.wiring import Parts

TOPIC = "orders"
URL = "http://127.0.0.1:9/hook"


def uuid7(at_ms: int) -> str:
    """A UUIDv7 with that time."""
    low = uuid.uuid4().int & ((1 << 62) - 1)
    return str(uuid.UUID(int=at_ms << 80 | 0x7 << 76 | 0xABC << 64 | 0b10 << 62 | low))


class FlakyLog:
    """A log whose `down` topics cannot be appended to; the rest is the real one."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.down: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, topic: str, records: Sequence[Record]) -> None:
        if topic in self.down:
            raise LogUnavailable("the log does not answer")
        self._log.append(topic, records)


class Kit:
    """`counted` is (operation, ec) -> n, as told to the metrics; `tallied` is
    (topic, name) -> n, as told to the statistics."""

    def __init__(
        self,
        folder: Path,
        *,
        auto_create: bool = False,
        tokens: Tokens | None = None,
        **receive: Any,
    ) -> None:
        self.config = settings.override(
            settings.Config(),
            {
                "log": {"path": str(folder / "log.db")},
                "store": {"path": str(folder / "store.db")},
                "registry": {"path": str(folder / "topics.json")},
                "topics": {"auto_create": auto_create},
                "receive": receive,
            },
        )
        self.parts = Parts(self.config)
        self.parts.clock.sync()
        self.log = FlakyLog(self.parts.log)
        self.counted: Counter[tuple[str, int]] = Counter()
        self.tallied: Counter[tuple[str, str]] = Counter()
        self.parts.topics.add(self.parts.topics.new(TOPIC))
        self.ingress = Ingress(
            log=self.log,
            store=self.parts.store,
            reader=self.parts.store,
            keys=Keys(self.parts.store, self.parts.store, longest_window_ms(self.config)),
            topics=self.parts.topics.get,
            known_topics=self.parts.topics.find,
            clock=self.parts.clock,
            encode=wire.encode,
            new_id=uuid7,
            limits=self.config.receive,
            early_ms=self.config.store.early_ms,
            why_denied=self.config.outbound.destinations().why_host_denied,
            counted=lambda topic, name, n: self.tallied.update({(topic, name): n}),
        )
        access = Access(tokens)
        self.app = create_app(
            self.ingress,
            access,
            limits=self.config.receive,
            ready=lambda: log_down(self.parts.log),
            metrics=Metrics().render,
            count=self._count,
        )
        self.client = self.app.test_client()
        self.handler = Handler(self.ingress, access, limits=self.config.receive, count=self._count)
        self._consumer = self.parts.log.consumer("test")
        self._position = -1

    def now_ms(self) -> int:
        return self.parts.clock.now_ms()

    def close(self) -> None:
        self.parts.close()

    def logged(self) -> list[Message | Command]:
        """What was appended since the last call."""
        batches = self._consumer.poll(0)
        return [wire.decode(record.value) for batch in batches for record in batch.records]

    def deliver(self, owner: str = "-") -> None:
        """Does center's part: from the log to the store."""
        for batch in self._consumer.poll(0):
            entries: list[Entry] = []
            for record in batch.records:
                decoded = wire.decode(record.value)
                if isinstance(decoded, Message):
                    entries.append(NewMessage(record.position, decoded, owner))
                else:
                    entries.append(NewCommand(record.position, decoded))
            store = self.parts.store
            before = store.positions(batch.partition)
            store.schedule(batch.partition, before, batch.last, entries)

    def _count(self, operation: str, ec: int, n: int) -> None:
        self.counted[operation, ec] += n


@contextmanager
def serving(kit: Kit) -> Iterator[tuple[str, int]]:
    """Its HTTP API on a real socket: (host, port)."""
    server = make_server(listen("127.0.0.1", 0), kit.app)
    server.start()
    try:
        yield "127.0.0.1", int(server.server_port or 0)
    finally:
        server.stop(timeout=1)


def exchange(address: tuple[str, int], *pieces: bytes, timeout_s: float = 10) -> bytes:
    """Sends the pieces; everything the server says until it closes the connection."""
    with socket.create_connection(address, timeout=timeout_s) as sock:
        for piece in pieces:
            sock.sendall(piece)
        answer = bytearray()
        while chunk := sock.recv(65536):
            answer += chunk
    return bytes(answer)
