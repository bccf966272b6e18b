"""Which port each server gets, on 127.0.0.1."""

import random
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import StackError

LOWEST = 10_000
TRIES = 1_000


@dataclass(frozen=True)
class Choice:
    """What the command line says about ports.

    `single` wins, then `base`; what the stack used before comes next, so that `up` twice with
    `auto` is one stack; then `auto`, else the usual number.
    """

    single: Mapping[str, int] = field(default_factory=dict)
    base: int | None = None
    auto: bool = False


def choose(
    names: Iterable[str], usual: Mapping[str, int], before: Mapping[str, int], choice: Choice
) -> dict[str, int]:
    """Give a port to each of `names`; `usual` lists all that exist, in order, for `base`."""
    order = list(usual)
    chosen: dict[str, int] = {}
    for name in names:
        if name in choice.single:
            chosen[name] = choice.single[name]
        elif choice.base is not None:
            chosen[name] = choice.base + order.index(name)
        elif name in before:
            chosen[name] = before[name]
        elif choice.auto:
            chosen[name] = pick({*chosen.values(), *before.values(), *choice.single.values()})
        else:
            chosen[name] = usual[name]
    return chosen


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port`; connections in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def pick(avoid: Collection[int]) -> int:
    """Find a free port below the kernel's range for outgoing connections.

    A port inside that range may be lost while its server is down: a client that keeps connecting
    can be given the very port as its own, connect to itself and so keep the server from returning.
    """
    highest = _ephemeral_start() - 1
    for _ in range(TRIES):
        port = random.randint(LOWEST, highest)
        if port not in avoid and is_free(port):
            return port
    raise StackError(f"no free port found between {LOWEST} and {highest}")


def _ephemeral_start() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        return max(int(text.split()[0]), LOWEST + TRIES)
    except (OSError, ValueError, IndexError):
        return 32_768
