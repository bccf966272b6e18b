"""Receive before it is up, and how it tells of its loops."""

from collections.abc import Iterator

import pytest

import idl
from receive_app.service import Service
from soraka import process
from soraka.config import Config
from soraka.metrics import Metrics
from soraka.rpc import RpcClient

SUBMIT = "/sorakaq/msg/submit"


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service(Config(), Metrics(), process.listen("127.0.0.1", 0))
    made.thrift.start()
    yield made
    made.thrift.stop(0)


def test_until_it_is_open_it_says_so(service: Service) -> None:
    service.waiting_for("store")
    web = service.app.test_client()
    assert web.get("/healthz").status_code == 200
    ready = web.get("/readyz")
    assert (ready.status_code, ready.json["em"]) == (503, "no answer from: store")
    message = {
        "topic_name": "t",
        "delay_time": 1,
        "callback": {"request_type": "GET", "url": "http://x"},
    }
    for path, body in ((SUBMIT, message), (f"{SUBMIT}Batch", {"messages": [message]})):
        answer = web.post(path, json=body)
        assert (answer.status_code, answer.json["ec"]) == (503, 503)
        assert answer.headers["Retry-After"]
        assert "waiting for the store" in answer.json["em"]


def test_thrift_says_so_too(service: Service) -> None:
    client = RpcClient(idl.soraka.Soraka, ("127.0.0.1", service.thrift.port), timeout_ms=5000)
    with pytest.raises(idl.soraka.Unavailable, match="starting"):
        client.call("get", msg_id="x")
    client.close()


def test_a_loop_that_stands_still_makes_it_unhealthy() -> None:
    report = {"last_turn_ms": {"center": {"consume": 12_345}}}
    listener = process.listen("127.0.0.1", 0)
    web = Service(Config(), Metrics(), listener, lambda: (False, report)).app.test_client()
    answer = web.get("/healthz")
    assert answer.status_code == 503
    assert "12345" in answer.json["em"]
    assert "consume" in answer.json["em"]
    listener.close()
