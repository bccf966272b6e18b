"""The callback sink, a process of its own: `python -m bench.sink [MS]`.

A bare HTTP/1.1 server on one epoll loop, about 15 µs per callback. It answers each request 200,
after so many ms, and notes the id and due time of its headers and when it came. Standard input
takes commands, one a line, each answered by one JSON line: `count`, `take` (the calls so far, and
forget them),
`usage`. The first line it prints is its port; it ends when its input does.
"""

import gc
import json
import os
import select
import socket
import sys
import time
from collections import deque

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_ID = b"soraka-message-id:"
_DUE = b"soraka-due-at:"


class Sink:
    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._unanswered: deque[tuple[float, int]] = deque()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._epoll.register(0, select.EPOLLIN)
        self._sockets: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}
        self._calls: list[tuple[str, int, float]] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            events = self._epoll.poll(self._answer_late())
            # all these bytes lie here already: one moment for all is the nearest to the truth
            at = time.time() * 1000
            for fd, _ in events:
                if fd in self._sockets:
                    self._read(fd, at)
                elif fd == 0:
                    if not self._command(os.read(0, 4096)):
                        return
                else:
                    self._accept()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, fd: int, at: float) -> None:
        try:
            data = self._sockets[fd].recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(fd)
            return
        if fd in self._partial:
            data = self._partial.pop(fd) + data
        if (call := parse(data)) is None:
            self._partial[fd] = data
            return
        self._calls.append((*call, at))
        if self._delay_s:
            self._unanswered.append((time.monotonic() + self._delay_s, fd))
        else:
            self._answer(fd)

    def _answer_late(self) -> float | None:
        """Answers whose time has come; how long until the next, or None. A connection waits for its
        answer, so its number is no other's meanwhile, unless it is broken off."""
        now = time.monotonic()
        while self._unanswered and self._unanswered[0][0] <= now:
            self._answer(self._unanswered.popleft()[1])
        return max(0.0005, self._unanswered[0][0] - now) if self._unanswered else None

    def _answer(self, fd: int) -> None:
        if fd not in self._sockets:
            return
        try:
            self._sockets[fd].send(ANSWER)
        except OSError:
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._sockets.pop(fd).close()
        self._partial.pop(fd, None)

    def _command(self, line: bytes) -> bool:
        if not line:
            return False
        match line.strip():
            case b"count":
                answer: object = len(self._calls)
            case b"take":
                answer, self._calls = self._calls, []
            case _:
                answer = {"cpu_s": time.process_time()}
        print(json.dumps(answer), flush=True)
        return True


def parse(data: bytes) -> tuple[str, int] | None:
    """Id and due time of a whole request; None when more of it must come."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower() + b"\r\n"
    at = head.find(b"content-length:")
    if at >= 0 and len(data) < end + 4 + int(head[at + 15 : head.index(b"\r\n", at)]):
        return None
    return _value(head, _ID).decode(), int(_value(head, _DUE))


def _value(head: bytes, name: bytes) -> bytes:
    at = head.index(name) + len(name)
    return head[at : head.index(b"\r\n", at)].strip()


def main() -> None:
    gc.disable()
    sink = Sink(int(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.0)
    print(sink.port, flush=True)
    sink.run()


if __name__ == "__main__":
    main()
