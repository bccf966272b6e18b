"""API tokens from the command that makes them to the command that uses them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from soraka.client import Client, NotAllowed, NotAuthenticated
from tests.acceptance.deployments import Standalone
from tests.acceptance.sink import Sink, wait_until

ANY_PORTS = ("--receive-port=0", "--admin-port=0", "--thrift-port=0")
pytestmark = pytest.mark.timeout(120)


def soraka(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited: Mapping[str, str] = {**os.environ, "XDG_CONFIG_HOME": "/nonexistent", **environ}
    return subprocess.run(
        [sys.executable, "-m", "soraka", *arguments],
        env=inherited,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_deployment_that_asks_for_tokens(tmp_path: Path, sink: Sink) -> None:
    file = str(tmp_path / "tokens.json")
    setting = {"SORAKA_RECEIVE_TOKENS": file}
    for role in (("standalone", f"--data-dir={tmp_path}", *ANY_PORTS), ("receive",)):
        cluster = {
            "SORAKA_REGISTRY_ADAPTER": "zookeeper",
            "SORAKA_LOG_ADAPTER": "kafka",
            "SORAKA_STORE_ADAPTER": "redis",
        }
        refused = soraka(*role, **setting, **(cluster if role == ("receive",) else {}))
        assert refused.returncode == 1
        assert f"receive.tokens = {file}: No such file or directory" in refused.stderr
        assert "Traceback" not in refused.stderr
    made = soraka("token", "add", "shop", "--submit=shop.*", "--command=shop.*", **setting)
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    running = Standalone(tmp_path, setting)
    try:
        running.start()
        server = f"--server=127.0.0.1:{running.thrift_port}"
        denied = soraka("submit", server, "shop.a", sink.url("/"))
        assert (denied.returncode, denied.stderr) == (1, "Error: token: is missing\n")
        profiles = tmp_path / "soraka.toml"
        profiles.write_text(
            f'[default]\nserver = "127.0.0.1:{running.thrift_port}"\ntoken = "{token}"\n'
            f'[web]\nurl = "{running.url}"\ntoken = "{token}"\n'
        )
        profiles.chmod(0o600)
        mine = {"SORAKA_PROFILES": str(profiles)}
        done = soraka("submit", "shop.a", sink.url("/cli"), "--key=k", **mine)
        assert done.returncode == 0, done.stderr
        again = soraka("submit", "shop.a", sink.url("/cli"), "--key=k", **mine)
        assert again.stdout == done.stdout
        sink.wait(done.stdout.strip())
        denied = soraka("submit", "ops", sink.url("/"), **mine)
        assert denied.stderr == "Error: token: 'shop' lacks the right to submit here\n"
        by_environment = soraka("submit", server, "shop.a", sink.url("/"), SORAKA_TOKEN=token)
        assert by_environment.returncode == 0, by_environment.stderr
        for name in ("default", "web"):
            with Client.from_profile(name, profiles) as client:
                sink.wait(client.submit("shop.b", sink.url("/client")))
                with pytest.raises(NotAllowed):
                    client.submit("ops", sink.url("/"))
        assert soraka("token", "list", **setting).stdout == "shop  submit shop.*  command shop.*\n"
        assert soraka("token", "remove", "shop", **setting).returncode == 0

        def is_refused() -> bool:
            with Client(running.url, token=token) as client:
                try:
                    client.submit("shop.a", sink.url("/"))
                except NotAuthenticated:
                    return True
            return False

        wait_until(is_refused, 10, lambda: "the removed token is refused")
    finally:
        running.close()
