"""Does a server really answer? One question each, in the server's own protocol.

An open port is not enough: Redis accepts while it still loads its file, Kafka while its broker is
not registered yet, ZooKeeper while it does not serve.
"""

import socket
import struct

ASK_SECONDS = 1.0
KAFKA_METADATA, KAFKA_METADATA_VERSION = 3, 1
# Redis must not take the probe for a client error, ZooKeeper wants the four letters alone.
REDIS_PING = b"*1\r\n$4\r\nPING\r\n"
ZOOKEEPER_SRVR = b"srvr"
NGINX_ALIVE = b"GET /nginx-alive HTTP/1.0\r\n\r\n"


def ask(port: int, question: bytes) -> bytes:
    """Send `question` and return the first piece of the answer, empty when there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), ASK_SECONDS) as connection:
            connection.sendall(question)
            return connection.recv(4096)
    except OSError:
        return b""


def redis(port: int) -> bool:
    """PONG, and not LOADING."""
    return ask(port, REDIS_PING).startswith(b"+PONG")


def zookeeper(port: int) -> bool:
    """The `srvr` report, and not "is not currently serving requests"."""
    return ask(port, ZOOKEEPER_SRVR).startswith(b"Zookeeper version")


def nginx(port: int) -> bool:
    """Its own 204, which needs no upstream."""
    return ask(port, NGINX_ALIVE).startswith(b"HTTP/1.1 204")


def kafka(port: int) -> bool:
    """A Metadata answer that lists a broker, that is one which is registered and unfenced."""
    header = struct.pack(">hhih", KAFKA_METADATA, KAFKA_METADATA_VERSION, 1, -1)
    request = header + struct.pack(">i", 0)  # no client id above, no topics here
    answer = ask(port, struct.pack(">i", len(request)) + request)
    if len(answer) < 12:
        return False
    _size, _correlation, brokers = struct.unpack_from(">iii", answer)
    return int(brokers) > 0
