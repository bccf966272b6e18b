"""What is left of a client of Kafka that was closed."""

import socket
from typing import Any

import pytest
from kafka.net.connection import KafkaConnection
from kafka.net.transport import KafkaTCPTransport

from soraka.adapters.kafka_client import _Network


@pytest.mark.parametrize("unsent", [[], [b"a request"]])
def test_no_socket_is(unsent: list[bytes]) -> None:
    network: Any = _Network(bootstrap_servers="127.0.0.1:1", api_version=(3, 0))
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        connection = KafkaConnection(network._net, node_id="1")
        connection.transport = KafkaTCPTransport(network._net, ours, host="there")
        connection._init_future.success(True)
        connection.transport.set_protocol(connection)
        connection.transport.writelines(unsent)
        network._manager._conns["1"] = connection
        network.close()
        assert ours.fileno() == -1
        assert theirs.recv(100) in (b"", b"a request")
