"""TLS of callbacks: whom they believe, and what they show of themselves, against real servers."""

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from soraka.errors import ConfigError
from tests.unit.sinks import Sink, sink
from tests.unit.test_ssrf import request
from worker.callback import Caller
from worker.dns import Resolver
from worker.judge import Answer, Failure
from worker.trust import Trust

KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"


class Files(NamedTuple):
    """PEM: two authorities; of the first a server's and a client's certificate with their keys; an
    authority's key; a key that needs a password."""

    authority: Path
    stranger: Path
    server: Path
    client: Path
    key: Path
    locked: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")

    def openssl(command: str) -> None:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=folder)

    def whole(name: str) -> Path:
        path = folder / f"{name}.both.pem"
        path.write_text((folder / f"{name}.crt").read_text() + (folder / f"{name}.key").read_text())
        return path

    for name in ("authority", "stranger"):
        openssl(f"req -x509 {KEY} -subj /CN={name} -keyout {name}.key -out {name}.crt")
    for name in ("server", "client"):
        openssl(
            f"req -x509 {KEY} -subj /CN={name} -addext subjectAltName=DNS:hooks.example"
            f" -CA authority.crt -CAkey authority.key -keyout {name}.key -out {name}.crt"
        )
    openssl("ec -in client.key -aes128 -passout pass:secret -out locked.key")
    (folder / "locked.pem").write_text(
        (folder / "client.crt").read_text() + (folder / "locked.key").read_text()
    )
    return Files(
        folder / "authority.crt",
        folder / "stranger.crt",
        whole("server"),
        whole("client"),
        folder / "authority.key",
        folder / "locked.pem",
    )


@pytest.fixture
def server(files: Files) -> Iterator[Sink]:
    """Asks for the client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server)
    context.load_verify_locations(files.authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    with sink(tls=context) as made:
        yield made


@pytest.fixture
def strict(files: Files) -> Iterator[Sink]:
    """Insists on it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server)
    context.load_verify_locations(files.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    with sink(tls=context) as made:
        yield made


def called(server: Sink, trust: Trust, host: str = "hooks.example") -> Answer | Failure:
    def look_up(*_: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    made = Caller(max_response_bytes=4096, resolver=Resolver(look_up=look_up), trust=trust)
    with closing(made):
        return made(request(f"https://{host}:{server.port}/"))


def test_a_bundle_is_trusted_in_place_of_the_systems(server: Sink, files: Files) -> None:
    assert called(server, Trust(str(files.authority))) == Answer(200, b"{}")
    for trust in (Trust(), Trust(str(files.stranger))):
        result = called(server, trust)
        assert isinstance(result, Failure)
        assert result.reason.startswith("TLS: ")
    assert len(server.seen) == 1


def test_the_narrowest_pattern_decides(server: Sink, files: Files) -> None:
    many = f"{files.stranger}, *.example={files.authority}, *={files.stranger}"
    assert called(server, Trust(many)) == Answer(200, b"{}")
    exact = f"*.example={files.authority}, hooks.example={files.stranger}"
    assert isinstance(called(server, Trust(exact)), Failure)


def test_a_name_that_the_certificate_has_not_is_refused(server: Sink, files: Files) -> None:
    result = called(server, Trust(str(files.authority)), "other.example")
    assert isinstance(result, Failure)
    assert "other.example" in result.reason
    assert server.seen == []


def test_a_client_certificate_is_shown_to_its_hosts_alone(strict: Sink, files: Files) -> None:
    shown = Trust(str(files.authority), f"hooks.example={files.client}")
    assert called(strict, shown) == Answer(200, b"{}")
    for kept in (
        Trust(str(files.authority)),
        Trust(str(files.authority), f"other.example={files.client}"),
    ):
        assert isinstance(called(strict, kept), Failure)
    assert len(strict.seen) == 1


@pytest.mark.parametrize(
    ("setting", "which"),
    [
        ("ca_files", "missing"),
        ("ca_files", "key"),
        ("ca_files", "nothing"),
        ("client_certificates", "missing"),
        ("client_certificates", "key"),
        ("client_certificates", "locked"),
        ("client_certificates", "nothing"),
    ],
)
def test_a_file_of_no_use_is_refused_at_the_start(
    files: Files, tmp_path: Path, setting: str, which: str
) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("")
    path = {
        "missing": tmp_path / "missing.pem",
        "key": files.key,
        "locked": files.locked,
        "nothing": nothing,
    }[which]
    with pytest.raises(ConfigError, match=rf"^outbound\.{setting}: {re.escape(str(path))}: "):
        Trust(**{setting: f"*.example={path}"})
