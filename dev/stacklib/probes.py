"""Does a server really answer? One question each, in the server's own protocol.

An open port is not enough: Redis accepts while it still loads its file, Kafka while its broker is
not registered yet, ZooKeeper while it does not serve.
"""

import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from . import secured

ASK_SECONDS = 1.0
KAFKA_METADATA, KAFKA_METADATA_VERSION = 3, 1
# Redis must not take the probe for a client error, ZooKeeper wants the four letters alone.
REDIS_PING = b"*1\r\n$4\r\nPING\r\n"
ZOOKEEPER_SRVR = b"srvr"
NGINX_ALIVE = b"GET /nginx-alive HTTP/1.0\r\n\r\n"


def ask(port: int, question: bytes, tls: Path | None = None) -> bytes:
    """Send `question`, over TLS with the certificates in `tls` if given, and return the first piece
    of the answer, empty when there is none."""
    try:
        with ExitStack() as opened:
            address = ("127.0.0.1", port)
            connection = opened.enter_context(socket.create_connection(address, ASK_SECONDS))
            if tls is not None:
                wrapped = secured.client(tls).wrap_socket(connection, server_hostname=address[0])
                connection = opened.enter_context(wrapped)
            connection.sendall(question)
            return connection.recv(4096)
    except OSError:
        return b""


def redis(port: int, _tls: Path) -> bool:
    """PONG, and not LOADING."""
    return ask(port, REDIS_PING).startswith(b"+PONG")


def redis_tls(port: int, tls: Path) -> bool:
    """Refused without a user, and not LOADING, which comes before."""
    return ask(port, REDIS_PING, tls).startswith(b"-NOAUTH")


def zookeeper(port: int, _tls: Path) -> bool:
    """The `srvr` report, and not "is not currently serving requests"."""
    return ask(port, ZOOKEEPER_SRVR).startswith(b"Zookeeper version")


def zookeeper_tls(port: int, tls: Path) -> bool:
    """The same."""
    return ask(port, ZOOKEEPER_SRVR, tls).startswith(b"Zookeeper version")


def nginx(port: int, _tls: Path) -> bool:
    """Its own 204, which needs no upstream."""
    return ask(port, NGINX_ALIVE).startswith(b"HTTP/1.1 204")


def kafka(port: int, _tls: Path) -> bool:
    """A Metadata answer that lists a broker, that is one which is registered and unfenced."""
    header = struct.pack(">hhih", KAFKA_METADATA, KAFKA_METADATA_VERSION, 1, -1)
    request = header + struct.pack(">i", 0)  # no client id above, no topics here
    answer = ask(port, struct.pack(">i", len(request)) + request)
    if len(answer) < 12:
        return False
    _size, _correlation, brokers = struct.unpack_from(">iii", answer)
    return int(brokers) > 0
