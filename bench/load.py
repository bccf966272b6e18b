"""The load generator, a process of its own: `python -m bench.load` with a `Spec` as JSON on
standard input, a `Result` as JSON on standard output.

Requests are prebuilt bytes on keep-alive sockets over one epoll loop, about 20 µs per request,
so the generator is not what is measured. Either closed (each connection sends when it has its
answer) or paced (requests leave at their slots; what waits for a free connection is late, and
its latency counts from its slot).
"""

import dataclasses
import gc
import json
import re
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from bench.messages import Template, template
from bench.numbers import percentile

_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
STALLED_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What to send. Ends after `count` messages or `seconds`, whichever is first.

    `rate` (messages/s) 0 is the closed loop. The due time is `deliver_at` (epoch ms), or, when
    that is 0, `lead_ms` after the message's slot; slots of one batch are spread over its
    interval.
    """

    protocol: str
    port: int
    topic: str
    url: str
    batch: int = 100
    connections: int = 8
    count: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    deliver_at: int = 0
    lead_ms: int = 0
    keep_ids: bool = False


@dataclass(kw_only=True)
class Result:
    """`latency_ms` are p50, p99, max of a request; `lag_ms` how far the slots were missed."""

    accepted: int = 0
    refused: int = 0
    broken: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    latency_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lag_ms: float = 0.0
    cpu_s: float = 0.0
    ids: list[str] = field(default_factory=list)
    first_error: str = ""


class _Connection:
    """One request at a time. `began` is when its latency starts to count, 0 when idle."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.began = 0.0
        self.unsent = memoryview(b"")
        self.got = b""


class Load:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._template: Template = template(
            spec.protocol, topic=spec.topic, url=spec.url, batch=spec.batch
        )
        self._thrift = spec.protocol == "thrift"
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._latencies: list[float] = []
        self._ids: list[bytes] = []
        self._begun = 0
        self.result = Result()
        for _ in range(spec.connections):
            self._connect()

    def run(self) -> Result:
        spec, result = self._spec, self.result
        cpu = time.process_time()
        self._start = time.monotonic()
        self._start_ms = time.time() * 1000
        last_answer = self._start
        while True:
            wait = self._send_due()
            busy = len(self._connections) - len(self._idle)
            if wait is None and not busy:
                break
            events = self._epoll.poll(STALLED_S if wait is None else wait)
            now = time.monotonic()
            for fd, event in events:
                self._handle(self._connections[fd], event, now)
            if events or not busy:
                last_answer = now
            elif now - last_answer > STALLED_S:
                result.first_error = result.first_error or f"no answer for {STALLED_S} s"
                break
        result.seconds = time.monotonic() - self._start
        result.cpu_s = time.process_time() - cpu
        result.rate = result.accepted / result.seconds
        self._latencies.sort()
        result.latency_ms = tuple(  # type: ignore[assignment]
            round(percentile(self._latencies, p) * 1000, 2) for p in (0.5, 0.99, 1.0)
        )
        result.ids = [i.decode() for i in self._ids] if spec.keep_ids else []
        return result

    # ------------------------------------------------------------------ sending

    def _send_due(self) -> float | None:
        """Sends what may be sent now; s until the next slot, or None when all were begun."""
        spec = self._spec
        while True:
            elapsed = time.monotonic() - self._start
            if (spec.count and self._begun >= spec.count) or (
                spec.seconds and self._slot_s() >= spec.seconds
            ):
                return None
            if spec.rate and self._slot_s() > elapsed:
                # an epoll wait has a granularity of 1 ms
                return max(0.0, self._slot_s() - elapsed)
            if not self._idle:
                return STALLED_S
            self._send(self._idle.popleft(), elapsed)

    def _slot_s(self) -> float:
        """When the next request is due to leave, s since the start."""
        if self._spec.rate:
            return self._begun / self._spec.rate
        return time.monotonic() - self._start

    def _send(self, connection: _Connection, elapsed: float) -> None:
        spec = self._spec
        slot = self._slot_s()
        if spec.rate:
            self.result.lag_ms = max(self.result.lag_ms, (elapsed - slot) * 1000)
        connection.began = self._start + slot
        connection.unsent = memoryview(self._template.fill(self._dues(slot)))
        self._begun += spec.batch
        self._flush(connection)

    def _dues(self, slot: float) -> list[int]:
        spec = self._spec
        if spec.deliver_at:
            return [spec.deliver_at] * spec.batch
        first = self._start_ms + slot * 1000 + spec.lead_ms
        step = 1000 / spec.rate if spec.rate else 0.0
        return [int(first + i * step) for i in range(spec.batch)]

    def _flush(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            self._broken(connection, exc)
            return
        connection.unsent = connection.unsent[sent:]
        interest = select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0)
        self._epoll.modify(connection.sock.fileno(), interest)

    # ------------------------------------------------------------------ answers

    def _handle(self, connection: _Connection, event: int, now: float) -> None:
        if event & select.EPOLLOUT:
            self._flush(connection)
        if not event & ~select.EPOLLOUT:
            return
        try:
            data = connection.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as exc:
            self._broken(connection, exc)
            return
        if not data:
            self._broken(connection, ConnectionError("closed by the server"))
            return
        connection.got += data
        if self._whole(connection.got):
            self._answered(connection, now)

    def _whole(self, got: bytes) -> bool:
        if self._thrift:
            return len(got) >= 4 and len(got) >= 4 + int.from_bytes(got[:4], "big")
        end = got.find(b"\r\n\r\n")
        if end < 0:
            return False
        at = got[:end].lower().find(b"content-length:")
        assert at >= 0, got[:end]
        length = int(got[at + 15 : end].split(b"\r\n", 1)[0])
        return len(got) >= end + 4 + length

    def _answered(self, connection: _Connection, now: float) -> None:
        got, result, batch = connection.got, self.result, self._spec.batch
        self._latencies.append(now - connection.began)
        ids = _ID.findall(got)
        accepted = len(ids)
        if self._spec.protocol == "bare":
            accepted = int(got.startswith(b"HTTP/1.1 200"))
        result.accepted += accepted
        result.refused += batch - accepted
        if accepted < batch and not result.first_error:
            result.first_error = got[-500:].decode("utf-8", "replace")
        if self._spec.keep_ids:
            self._ids += ids
        connection.got, connection.began = b"", 0.0
        if got[:4] == b"HTTP" and b"connection: close" in got[:500].lower():
            self._reconnect(connection)
        else:
            self._idle.append(connection)

    # ------------------------------------------------------------------ connections

    def _connect(self) -> None:
        connection = _Connection(self._spec.port)
        self._epoll.register(connection.sock.fileno(), select.EPOLLIN)
        self._connections[connection.sock.fileno()] = connection
        self._idle.append(connection)

    def _reconnect(self, connection: _Connection) -> None:
        del self._connections[connection.sock.fileno()]
        connection.sock.close()  # leaves the epoll by itself
        self._connect()

    def _broken(self, connection: _Connection, exc: OSError) -> None:
        """One that lay idle may be closed by the server; under a request it is an error."""
        if connection.began:
            self.result.broken += self._spec.batch
            self.result.first_error = self.result.first_error or repr(exc)
        else:
            self._idle.remove(connection)
        self._reconnect(connection)


def main() -> None:
    gc.disable()  # collections over many latencies would show as latencies
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    result = Load(Spec(**given)).run()
    print(json.dumps(dataclasses.asdict(result)), flush=True)


if __name__ == "__main__":
    main()
