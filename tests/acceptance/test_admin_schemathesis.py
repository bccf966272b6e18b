"""The admin API against its own OpenAPI document: generated requests, right and wrong, by an
operator. schemathesis runs as a process of its own, with a fixed seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Response, request

from soraka.http import make_server
from soraka.process import listen
from tests.unit.admin_kit import TOPIC, Kit

# Where a value is of the right form it becomes one that exists, so that generated requests get
# past the first checks; wrong values stay as they are.
HOOKS = """
import re

import schemathesis

KNOWN = {known!r}


@schemathesis.hook
def map_body(ctx, body):
    if not isinstance(body, dict):
        return body
    body = dict(body)
    ours = ctx.operation is None or not ctx.operation.path.endswith(("/add", "/delete"))
    if ours and re.fullmatch("[A-Za-z0-9._-]{{1,128}}", str(body.get("topic_name", ""))):
        body["topic_name"] = "{topic}"
    detail = ctx.operation is not None and ctx.operation.path.endswith("/detail")
    if isinstance(body.get("msg_id"), str) and (detail or len(body["msg_id"]) % 2):
        body["msg_id"] = KNOWN[len(body["msg_id"]) % len(KNOWN)]
    return body
"""
# All checks, but: right by the schema is not all (a filter or ids, as many workers as live), and a
# login is given with every request.
CONFIG = """
[checks]
positive_data_acceptance.enabled = false
ignored_auth.enabled = false
"""


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_no_generated_request_breaks_the_api(tmp_path: Path) -> None:
    kit = Kit(tmp_path, max_body_bytes=200_000)
    outcomes: dict[str, set[int]] = {}

    @kit.app.after_request
    def note(response: Response) -> Response:
        outcomes.setdefault(str(request.endpoint), set()).add(response.status_code)
        return response

    server = make_server(listen("127.0.0.1", 0), kit.app)
    server.start()
    try:
        token = kit.script("operator").headers["Authorization"]
        url = f"http://127.0.0.1:{server.server_port}/openapi.json"
        done = _schemathesis(url, token, kit.put(20), tmp_path)
    finally:
        server.stop(timeout=1)
        kit.close()
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    called = {name: codes for name, codes in outcomes.items() if name.startswith("api.")}
    assert len(called) > 35
    assert not [name for name, codes in called.items() if 500 in codes]
    # it did get through
    for name in ("topic_add", "topic_list", "msg_query", "msg_detail", "token_add"):
        assert 200 in called[f"api.{name}"], (name, called)


def _schemathesis(
    url: str, token: str, known: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    (folder / "soraka_hooks.py").write_text(HOOKS.format(known=known, topic=TOPIC))
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", url),
        *("--header", f"Authorization: {token}"),
        *("--max-examples", "6", "--seed", "1", "--phases", "examples,coverage,fuzzing"),
        *("--generation-database", "none", "--suppress-health-check", "all", "--no-color"),
        *("--request-timeout", "20"),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "soraka_hooks", "PYTHONPATH": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )
