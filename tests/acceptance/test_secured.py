"""All connections of a deployment over TLS, with users, passwords and certificates."""

import importlib
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import idl
from soraka import tls
from soraka.config import TlsConfig
from soraka.errors import PeerUnavailable
from soraka.rpc import RpcClient
from tests.acceptance.deployments import Cluster, Process
from tests.acceptance.sink import Sink, wait_until
from tests.acceptance.test_cli import soraka
from tests.servers import PASSWORD, USER, Server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def files(redis_tls_server: Server) -> TlsConfig:
    return redis_tls_server.tls


@pytest.fixture(scope="module")
def deployment(
    redis_tls_server: Server,
    kafka_tls_server: Server,
    zookeeper_tls_server: Server,
    files: TlsConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    settings = {
        "SORAKA_TLS_CA": files.ca,
        "SORAKA_TLS_CERTIFICATE": files.certificate,
        "SORAKA_TLS_KEY": files.key,
        "SORAKA_TLS_THRIFT": "true",
        "SORAKA_PROCESS_LOG_LEVEL": "debug",
    }
    for section in ("LOG", "REGISTRY"):
        settings[f"SORAKA_{section}_TLS"] = "true"
        settings[f"SORAKA_{section}_USERNAME"] = USER
        settings[f"SORAKA_{section}_PASSWORD"] = PASSWORD
    servers = {
        "kafka": kafka_tls_server.url,
        "redis": redis_tls_server.url,
        "zookeeper": zookeeper_tls_server.url,
    }
    made = Cluster(tmp_path_factory.mktemp("secured"), servers, settings)
    made.secured = tls.client(TlsConfig(ca=files.ca), "tls.thrift")
    with closing(made):
        made.start()
        yield made


@pytest.fixture(scope="module")
def topic(deployment: Cluster) -> Iterator[str]:
    sink = Sink()
    made = deployment.new_topic()
    sink.wait(deployment.submit(made, sink.url("/first"), delay_time=0))
    yield made
    sink.close()


def test_a_message_goes_all_the_way(deployment: Cluster, sink: Sink, topic: str) -> None:
    msg_id = deployment.submit(topic, sink.url("/way"), delay_time=300)
    sink.wait(msg_id)
    deployment.wait_state(msg_id, "succeeded")


def test_center_and_workers_talk(deployment: Cluster, sink: Sink, topic: str) -> None:
    ids = [deployment.submit(topic, sink.url("/hint"), delay_time=600) for _ in range(50)]
    for msg_id in ids:
        sink.wait(msg_id)
    said = deployment.output()
    for event in ("deliver.failed", "heartbeat.failed", "worker.silent", "rpc."):
        assert event not in said


def test_messages_of_a_worker_that_is_gone(deployment: Cluster, sink: Sink, topic: str) -> None:
    ids = [deployment.submit(topic, sink.url("/gone"), delay_time=4000) for _ in range(20)]
    deployment.processes["worker0"].kill()
    for msg_id in ids:
        sink.wait(msg_id, timeout_s=60)
    deployment.processes["worker0"].start()


def test_the_official_client(
    generated: Any, deployment: Cluster, sink: Sink, topic: str, files: TlsConfig
) -> None:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.transport.TSSLSocket import TSSLSocket
    from thrift.transport.TTransport import TFramedTransport

    types = importlib.import_module("soraka_client.ttypes")
    sock = TSSLSocket(
        "127.0.0.1", deployment.thrift_port, cert_reqs=ssl.CERT_REQUIRED, ca_certs=files.ca
    )
    with closing(TFramedTransport(sock)) as transport:
        transport.open()
        client = generated.Client(TBinaryProtocol(transport))
        callback = types.Callback(request_type=types.RequestType.POST, url=sink.url("/apache"))
        submission = types.Submission(topic_name=topic, delay_time=100, callback=callback)
        sink.wait(client.submit(submission))


def test_the_command(deployment: Cluster, sink: Sink, topic: str, files: TlsConfig) -> None:
    server = f"--server=127.0.0.1:{deployment.thrift_port}"
    done = soraka("submit", server, f"--ca={files.ca}", topic, sink.url("/cli"))
    assert done.returncode == 0, done.stderr
    sink.wait(done.stdout.strip())
    shown = soraka("show", server, done.stdout.strip(), SORAKA_SERVER_CA=files.ca)
    assert shown.returncode == 0, shown.stderr
    assert deployment.soraka("rebalance", topic).startswith("moved ")


def test_the_command_without_a_ca(deployment: Cluster, files: TlsConfig) -> None:
    server = f"--server=127.0.0.1:{deployment.thrift_port}"
    plain = soraka("show", server, "x")
    assert (plain.returncode, "it speaks TLS" in plain.stderr) == (1, True)
    wrong = soraka("show", server, f"--ca={files.certificate}", "x")
    assert (wrong.returncode, "its certificate is refused" in wrong.stderr) == (1, True)
    none = soraka("show", server, "--ca=/none.pem", "x")
    assert (none.returncode, "/none.pem" in none.stderr) == (1, True)


@pytest.mark.parametrize("role", ["center", "worker"])
def test_between_roles_a_certificate_is_asked_for(
    deployment: Cluster, files: TlsConfig, role: str
) -> None:
    port = int(deployment.processes[f"{role}0"].environ[f"SORAKA_{role.upper()}_THRIFT_PORT"])
    secured = tls.client(TlsConfig(ca=files.ca), "tls.thrift")
    client = RpcClient(idl.worker.Worker, ("127.0.0.1", port), timeout_ms=3000, secured=secured)
    with closing(client), pytest.raises(PeerUnavailable, match=r"tls\.certificate"):
        client.call("heartbeat", incarnation="")


@pytest.mark.parametrize("role", ["receive", "admin", "center", "worker"])
def test_a_role_says_which_file_it_cannot_read(deployment: Cluster, role: str) -> None:
    process = Process(
        [role],
        {**deployment.environ, "SORAKA_TLS_KEY": "/none.key"},
        deployment.folder / f"{role}-refused.log",
    )
    process.start()
    try:
        wait_until(lambda: process.has_ended, 20, lambda: process.output())
    finally:
        process.kill()
    assert "Error: tls.key = '/none.key': cannot be read" in process.output()
    assert "Traceback" not in process.output()


def test_nothing_secret_is_logged(deployment: Cluster) -> None:
    """Last, after all the others; at level debug."""
    for process in deployment.processes.values():
        assert process.output()
        assert PASSWORD not in process.output()
