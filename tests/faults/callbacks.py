"""The server that gets the callbacks, a process of its own so that nothing delays it: a call is
seen when it comes. python -m tests.faults.callbacks FILE BASE_MS ADDRESS

Prints its port at ADDRESS; writes a line of a history for each call to FILE. BASE_MS is what the
moments of the history count from, beyond the monotonic clock. Ends when its standard input does.
"""

import asyncio
import gc
import sys
import time
from collections import deque
from typing import TextIO
from urllib.parse import parse_qs, urlsplit

from tests.faults.history import Call, to_line

LOOK_EVERY_S = 0.02
REMEMBERED_S = 3.0
ANSWERS = {
    status: f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    "\r\n{}".encode()
    for status in (200, 500)
}


class Server:
    """In the URL, `failures`: so many first attempts fail; `wait_ms`: before each answer."""

    def __init__(self, file: TextIO, base_ms: float, address: str) -> None:
        self._file = file
        self._base_ms = base_ms
        self._address = address
        self._late: deque[tuple[float, float]] = deque()

    def now_ms(self) -> float:
        return self._base_ms + time.monotonic() * 1000

    async def serve(self) -> None:
        """Until standard input ends."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), self._address, 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        ended = loop.run_in_executor(None, sys.stdin.read)
        while not ended.done():
            await self._look_behind()

    async def answer(self, target: str, headers: dict[str, str], begin: float) -> bytes:
        query = parse_qs(urlsplit(target).query)
        attempt = int(headers["soraka-attempt"])
        if wait_ms := int(query["wait_ms"][0]):
            await asyncio.sleep(wait_ms / 1000)
        status = 500 if attempt <= int(query["failures"][0]) else 200
        call = Call(
            begin=begin,
            end=self.now_ms(),
            msg_id=headers["soraka-message-id"],
            attempt=attempt,
            due_at=int(headers["soraka-due-at"]),
            status=status,
            lag_ms=max((late for _, late in self._late), default=0.0),
        )
        self._file.write(to_line(call))
        return ANSWERS[status]

    async def _look_behind(self) -> None:
        """How far behind this process is: requests wait in its sockets as long."""
        asleep = self.now_ms()
        await asyncio.sleep(LOOK_EVERY_S)
        now = self.now_ms()
        self._file.flush()
        if (late := now - asleep - LOOK_EVERY_S * 1000) > 1:
            self._late.append((now, late))
        while self._late and self._late[0][0] < now - REMEMBERED_S * 1000:
            self._late.popleft()


class _Connection(asyncio.Protocol):
    """One request at a time, as soraka's workers send them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        if len(body) >= int(headers.get("content-length", 0)):
            self._received.clear()
            begin = self._server.now_ms()
            self._answering = asyncio.create_task(self._answer(first.split()[1], headers, begin))

    async def _answer(self, target: str, headers: dict[str, str], begin: float) -> None:
        answer = await self._server.answer(target, headers, begin)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


def main() -> None:
    gc.disable()  # a few hundred small objects per second, none in cycles that last
    with open(sys.argv[1], "w") as file:
        asyncio.run(Server(file, float(sys.argv[2]), sys.argv[3]).serve())


if __name__ == "__main__":
    main()
