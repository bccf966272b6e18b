"""soraka.client over TLS: receive's own Thrift, and both ways behind nginx, where TLS ends."""

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from soraka.client import Client, MessageNotFound, NewMessage, SorakaError, State, Unavailable
from tests.acceptance.deployments import Standalone, free_port
from tests.acceptance.sink import Sink, wait_until
from tests.certificates import Authority

pytestmark = pytest.mark.timeout(120)

CONF = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid "{folder}/nginx.pid";
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path "{folder}";
    server {{
        listen 127.0.0.1:{https} ssl;
        ssl_certificate "{certificate}";
        ssl_certificate_key "{key}";
        location / {{ proxy_pass http://127.0.0.1:{http_port}; }}
    }}
}}
stream {{
    server {{
        listen 127.0.0.1:{thrifts} ssl;
        ssl_certificate "{certificate}";
        ssl_certificate_key "{key}";
        proxy_pass 127.0.0.1:{thrift_port};
    }}
}}
"""
WAYS = ("https", "thrifts", "thrifts behind nginx")
TOPIC = "secured"


class Nginx:
    """Where TLS ends, in front of a deployment; can be killed and started again."""

    def __init__(self, folder: Path, conf: str) -> None:
        self._folder = folder
        (folder / "nginx.conf").write_text(conf)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert nginx, "not installed: run dev/stack install"
        command = [nginx, "-c", str(self._folder / "nginx.conf"), "-p", str(self._folder)]
        with (self._folder / "nginx.log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)


class Secured:
    """`urls` by way; `tls` trusts the authority of their certificates, `other` another."""

    def __init__(self, folder: Path) -> None:
        ours = Authority(folder / "ca").issue("host")
        other = Authority(folder / "other").issue("host")
        self.ca = ours.ca
        self.tls = ssl.create_default_context(cafile=ours.ca)
        self.other = ssl.create_default_context(cafile=other.ca)
        own = {"CERTIFICATE": ours.certificate, "KEY": ours.key, "CA": ours.ca, "THRIFT": "true"}
        secured = {f"SORAKA_TLS_{key}": value for key, value in own.items()}
        self.direct = Standalone(_made(folder / "direct"), secured)
        self.behind = Standalone(_made(folder / "behind"))
        https, thrifts = free_port(), free_port()
        conf = CONF.format(
            folder=folder,
            https=https,
            thrifts=thrifts,
            certificate=ours.certificate,
            key=ours.key,
            http_port=self.behind.http_port,
            thrift_port=self.behind.thrift_port,
        )
        self.nginx = Nginx(folder, conf)
        ports = (https, self.direct.thrift_port, thrifts)
        self.urls = {
            way: f"{way.split()[0]}://127.0.0.1:{port}"
            for way, port in zip(WAYS, ports, strict=True)
        }

    def start(self) -> None:
        self.nginx.start()
        self.direct.start()
        self.behind.start()

    def close(self) -> None:
        self.direct.close()
        self.behind.close()
        self.nginx.stop()

    def client(self, way: str, **other: object) -> Client:
        return Client(self.urls[way], **{"tls": self.tls, "retry_for": 10, **other})  # type: ignore[arg-type]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("tls"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("way", WAYS)
def test_every_call(secured: Secured, way: str, sink: Sink) -> None:
    with secured.client(way) as client:
        called = client.submit(TOPIC, sink.url("/tls"), params={"é": 1})
        later = client.submit(TOPIC, sink.url("/tls"), delay=timedelta(hours=1))
        message = NewMessage(topic=TOPIC, url=sink.url("/tls"), params={"text": "x" * 30_000})
        # many records of TLS in one body
        batch = client.submit_batch([message] * 50)
        assert [one.error for one in batch] == [None] * 50
        client.postpone(TOPIC, later, timedelta(hours=1))
        client.cancel(TOPIC, later)
        wait_until(lambda: _state(client, later) is State.CANCELLED, 15)
        assert sink.wait(called)[0].json() == {"é": 1}
        for one in batch:
            sink.wait(one.msg_id)


def _state(client: Client, msg_id: str) -> State | None:
    with suppress(MessageNotFound):
        return client.get(msg_id).state
    return None


def test_a_profile_names_the_authority(secured: Secured, tmp_path: Path) -> None:
    file = tmp_path / "soraka.toml"
    url = secured.urls["https"]
    file.write_text(
        f'[direct]\nserver = "127.0.0.1:{secured.direct.thrift_port}"\nca = "{secured.ca}"\n'
        f'[web]\nurl = "{url}"\nca = "{secured.ca}"\n'
    )
    for name in ("direct", "web"):
        with Client.from_profile(name, file) as client:
            client.submit(TOPIC, "http://127.0.0.1:9/", delay=timedelta(days=1))
    environ = {**os.environ, "SORAKA_PROFILES": str(file), "SORAKA_PROFILE": "direct"}
    done = subprocess.run(
        [sys.executable, "-m", "soraka", "submit", TOPIC, "http://127.0.0.1:9/", "--delay=99999"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("way", WAYS)
def test_another_authority_or_name_is_not_believed(secured: Secured, way: str) -> None:
    for context, url in (
        (secured.other, secured.urls[way]),
        (None, secured.urls[way]),  # the system's authorities
        (secured.tls, secured.urls[way].replace("127.0.0.1", "127.1")),
    ):
        with Client(url, tls=context, retry_for=0) as client, pytest.raises(Unavailable) as told:
            client.get("x")
        assert "certificate verify failed" in str(told.value)


@pytest.mark.parametrize(
    ("way", "told"), [("https", "HTTP 400"), ("thrifts", "over TLS the URL is thrifts://")]
)
def test_without_tls_there_is_no_answer(secured: Secured, way: str, told: str) -> None:
    plain = secured.urls[way].replace("s://", "://")
    with Client(plain, retry_for=0) as client, pytest.raises(SorakaError, match=told):
        client.get("x")


@pytest.mark.parametrize("way", WAYS[::2])
def test_connections_that_ended_while_idle_are_replaced(
    secured: Secured, way: str, sink: Sink
) -> None:
    with secured.client(way, retry_for=0) as client:
        client.submit(TOPIC, sink.url("/tls"))
        for _ in range(3):
            secured.nginx.stop()
            secured.nginx.start()
            wait_until(lambda: _answers(secured, way), 15)
            client.submit(TOPIC, sink.url("/tls"))


def _answers(secured: Secured, way: str) -> bool:
    with secured.client(way, retry_for=0) as client:
        try:
            client.submit(TOPIC, "http://127.0.0.1:9/", delay=timedelta(days=1))
        except Unavailable:
            return False
    return True
