"""Percentiles, and what the machine does at this moment."""

import socket
import threading
import time
from collections.abc import Sequence

import psutil


def percentile(ordered: Sequence[float], p: float) -> float:
    """The value at rank `p` (0 to 1) of a sorted sequence; 0 of an empty one."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(p * len(ordered)))]


def wait_quiet(limit_s: float, cores: float = 0.2) -> bool:
    """Waits until the machine has less than `cores` busy for two seconds, at most `limit_s`."""
    deadline = time.monotonic() + limit_s
    quiet = 0
    while quiet < 4 and time.monotonic() < deadline:
        busy = psutil.cpu_percent(0.5) / 100 * (psutil.cpu_count() or 1)
        quiet = quiet + 1 if busy < cores else 0
    return quiet >= 4


def calibration() -> dict[str, float]:
    """How fast this machine is now, with nothing of ours running.

    `loop_mops`: million turns of a bare Python loop per second, best of five short tries.
    `echo_us`: median round trip of 100 bytes over loopback between two threads.
    """
    return {"loop_mops": round(_loop_mops(), 1), "echo_us": round(_echo_us(), 1)}


def _loop_mops() -> float:
    turns = 1_000_000
    best = 1e9
    for _ in range(5):
        began = time.perf_counter()
        total = 0
        for i in range(turns):
            total += i
        best = min(best, time.perf_counter() - began)
    return turns / best / 1e6


def _echo_us() -> float:
    here, there = socket.socketpair()
    with here, there:
        server = threading.Thread(target=_echo, args=(there,), daemon=True)
        server.start()
        times = []
        for _ in range(2000):
            began = time.perf_counter()
            here.sendall(b"x" * 100)
            here.recv(100)
            times.append(time.perf_counter() - began)
        here.shutdown(socket.SHUT_WR)
        server.join(5)
    return sorted(times)[len(times) // 2] * 1e6


def _echo(sock: socket.socket) -> None:
    while data := sock.recv(100):
        sock.sendall(data)
