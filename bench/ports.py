"""Free ports on loopback."""

import random
import socket

# Below the range from which the kernel gives ports to outgoing connections: a port inside it
# may be taken by a client before its server listens.
_LOWEST, _HIGHEST = 10_000, 32_000


def free_port() -> int:
    """A port that was free just now."""
    for _ in range(1000):
        port = random.randint(_LOWEST, _HIGHEST)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found")
