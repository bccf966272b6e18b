"""Idempotency keys across the processes of a deployment."""

import uuid
from typing import Any

import gevent
import pytest
import requests

import idl
from soraka.rpc import RpcClient
from tests.acceptance.deployments import Cluster, Deployment
from tests.acceptance.sink import Sink, wait_until
from tests.servers import Server

pytestmark = pytest.mark.timeout(120)
t = idl.soraka


def body(topic: str, url: str, key: str | None, delay_ms: int = 300) -> dict[str, Any]:
    callback = {"request_type": "POST", "url": url, "params": {"a": 1, "b": 2}}
    return {
        "topic_name": topic,
        "delay_time": delay_ms,
        "callback": callback,
        "idempotency_key": key,
    }


def over_http(port: int, topic: str, url: str, key: str) -> str:
    where = f"http://127.0.0.1:{port}/sorakaq/msg/submit"
    answer = requests.post(where, json=body(topic, url, key), timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"]["msgId"])


def over_thrift(port: int, topic: str, url: str, key: str) -> str:
    callback = t.Callback(request_type=t.RequestType.POST, url=url, params='{ "b": 2, "a": 1 }')
    sent = t.Submission(topic_name=topic, delay_time=300, callback=callback, idempotency_key=key)
    client = RpcClient(t.Soraka, ("127.0.0.1", port), timeout_ms=30_000)
    try:
        return str(client.call("submit", submission=sent))
    finally:
        client.close()


def _with_a_second_receive(deployment: Deployment) -> None:
    if not isinstance(deployment, Cluster) or len(deployment.receives) > 1:
        return
    process = deployment.add("receive", "receive1")
    process.start()
    ready = f"http://127.0.0.1:{process.environ['SORAKA_RECEIVE_PORT']}/readyz"

    def is_ready() -> bool:
        try:
            return requests.get(ready, timeout=5).ok
        except requests.ConnectionError:
            return False

    wait_until(is_ready, 30, process.output)


def test_many_at_once_are_one_message(deployment: Deployment, sink: Sink, topic: str) -> None:
    _with_a_second_receive(deployment)
    path, key = f"/{uuid.uuid4().hex}", uuid.uuid4().hex
    asking = []
    for _, http_port, thrift_port in deployment.receives * 20:
        asking.append(gevent.spawn(over_http, http_port, topic, sink.url(path), key))
        asking.append(gevent.spawn(over_thrift, thrift_port, topic, sink.url(path), key))
    (msg_id,) = {one.get() for one in asking}
    sink.wait(msg_id)
    deployment.wait_state(msg_id, "succeeded")
    # later, and when it has ended: still the same
    assert over_http(deployment.http_port, topic, sink.url(path), key) == msg_id
    gevent.sleep(1)
    assert [call.msg_id for call in sink.calls if call.path == path] == [msg_id]
    other = body(topic, sink.url(path), key, delay_ms=301)
    status, answer = deployment.post("submit", json=other)
    assert (status, answer["ec"]) == (409, 414)


def test_without_the_store_only_submits_with_a_key_are_refused(
    deployment: Deployment, sink: Sink, topic: str, request: pytest.FixtureRequest
) -> None:
    if not isinstance(deployment, Cluster):
        pytest.skip("its store is a file")
    redis: Server = request.getfixturevalue("redis_server")
    key = uuid.uuid4().hex
    with redis.outage():
        status, answer = deployment.post("submit", json=body(topic, sink.url("/a"), key))
        assert (status, answer["ec"]) == (503, 503)
        status, answer = deployment.post("submit", json=body(topic, sink.url("/b"), None))
        assert status == 200
    plain = answer["result"]["msgId"]
    keyed = deployment.post("submit", json=body(topic, sink.url("/a"), key))[1]["result"]["msgId"]
    sink.wait(plain, timeout_s=30)
    sink.wait(keyed, timeout_s=30)
