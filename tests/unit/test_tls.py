"""The files of [tls], and what is said of wrong ones."""

import os
import socket
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import pytest
from gevent.socket import create_connection

from soraka import tls
from soraka.config import TlsConfig
from soraka.errors import ConfigError
from tests.certificates import Authority


@pytest.fixture
def settings(tmp_path: Path) -> TlsConfig:
    return Authority(tmp_path).issue("own")


def test_good_files(settings: TlsConfig) -> None:
    tls.check(settings)
    assert all(tls.between_roles(settings))
    assert tls.between_roles(replace(settings, thrift=False)) == (None, None)


def test_none_at_all() -> None:
    tls.check(TlsConfig())


def test_without_a_ca_those_of_the_system_count(settings: TlsConfig) -> None:
    system = tls.client(TlsConfig(), "log.tls").cert_store_stats()["x509_ca"]
    assert tls.client(settings, "log.tls").cert_store_stats()["x509_ca"] == 1
    assert system != 1


@pytest.mark.parametrize("key", ["ca", "certificate", "key"])
def test_a_file_that_is_not_there_is_named(settings: TlsConfig, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        tls.check(replace(settings, **{key: "/none.pem"}))
    assert str(refused.value).startswith(f"tls.{key} = '/none.pem': cannot be read: No such file")


@pytest.mark.parametrize("key", ["ca", "certificate", "key"])
def test_a_file_that_holds_something_else_is_named(
    settings: TlsConfig, key: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("no certificate, and no key")
    with pytest.raises(ConfigError, match=rf"tls\.{key} = .*other'"):
        tls.check(replace(settings, **{key: str(other)}))


def test_a_key_of_another_certificate(settings: TlsConfig, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").issue("other")
    with pytest.raises(ConfigError, match=r"tls\.key = .*mismatch"):
        tls.check(replace(settings, key=other.key))


def test_a_key_with_a_passphrase_is_refused_without_asking(
    settings: TlsConfig, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", settings.key, "-aes256", "-passout", "pass:hush"]
    subprocess.run([*command, "-out", str(locked)], check=True)
    with pytest.raises(ConfigError, match=r"tls\.key = .*without a passphrase"):
        tls.check(replace(settings, key=str(locked)))


def test_a_socket_that_was_closed_before_is_an_error_like_others(settings: TlsConfig) -> None:
    made = socket.socket()
    made.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        tls.connected(made, tls.client(settings, "log.tls"), "127.0.0.1")


def test_a_connection_that_was_reset_before_is_closed(settings: TlsConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = create_connection(server.getsockname())
        other, _ = server.accept()
        other.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
    number = made.fileno()
    with pytest.raises(ConnectionResetError):
        tls.connected(made, tls.client(settings, "log.tls"), "127.0.0.1")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
