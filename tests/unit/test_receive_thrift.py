"""The public Thrift service over a real socket."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import idl
from soraka.limits import DEFAULT_RETRY_MS, MAX_DELAY_MS
from soraka.message import Message, State
from soraka.rpc import RpcClient, RpcServer
from tests.unit.receive_kit import TOPIC, URL, Kit, uuid7

t = idl.soraka


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path, max_batch=200)
    yield made
    made.close()


@pytest.fixture
def client(kit: Kit) -> Iterator[RpcClient]:
    server = RpcServer(t.Soraka, kit.handler, socket.create_server(("127.0.0.1", 0)))
    server.start()
    made = RpcClient(t.Soraka, ("127.0.0.1", server.port), timeout_ms=10_000)
    yield made
    made.close()
    server.stop(1)


def struct(**changes: Any) -> Any:
    fields = {"topic_name": TOPIC, "delay_time": 60_000, "callback": callback(), **changes}
    return t.Submission(**fields)


def callback(**changes: Any) -> Any:
    fields = {"request_type": t.RequestType.POST, "url": URL, "params": '{"a":1}', **changes}
    return t.Callback(**fields)


def test_submit_and_get(kit: Kit, client: RpcClient) -> None:
    msg_id = client.call("submit", submission=struct(ttr=1500))
    with pytest.raises(t.MessageNotFound):
        client.call("get", msg_id=msg_id)
    kit.deliver(owner="10.0.0.1:30002")
    info = client.call("get", msg_id=msg_id)
    assert (info.msg_id, info.topic_name, info.ttr) == (msg_id, TOPIC, 1500)
    assert (info.state, info.attempt, info.owner) == (t.MessageState.PENDING, 0, "10.0.0.1:30002")
    assert info.due_at == info.created_at + 60_000
    assert info.callback == callback()
    assert (info.lease_until, info.finished_at) == (None, None)
    assert kit.counted == {("submit", 200): 1, ("get", 405): 1, ("get", 200): 1}


def test_a_message_that_ended_says_when(kit: Kit, client: RpcClient) -> None:
    msg_id = client.call("submit", submission=struct())
    kit.deliver()
    assert client.call("cancel", topic_name=TOPIC, msg_id=msg_id, command_id="c")
    info = client.call("get", msg_id=msg_id)
    assert info.state == t.MessageState.CANCELLED
    assert info.finished_at >= info.created_at


def test_submit_keeps_the_optional_fields(kit: Kit, client: RpcClient) -> None:
    msg_id, moment = uuid7(kit.now_ms()), kit.now_ms() + 5000
    sent = struct(delay_time=None, deliver_at=moment, retry_delays=[], msg_id=msg_id)
    assert client.call("submit", submission=sent) == msg_id
    client.call("submit", submission=struct(callback=callback(params=None)))
    first, second = kit.logged()
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    assert (first.msg_id, first.due_at, first.retry_ms) == (msg_id, moment, ())
    assert (second.ttr_ms, second.retry_ms) == (1000, DEFAULT_RETRY_MS)
    assert second.callback.params is None


@pytest.mark.parametrize(
    ("sent", "ec", "field"),
    [
        (None, 401, "submission"),
        (struct(topic_name=None), 401, "topic_name"),
        (struct(topic_name="center"), 402, "topic_name"),
        (struct(topic_name=b"\xff"), 401, "topic_name"),
        (struct(delay_time=None), 401, "delay_time"),
        (struct(delay_time=-1), 401, "delay_time"),
        (struct(delay_time=MAX_DELAY_MS + 1), 501, "delay_time"),
        (struct(delay_time=(1 << 63) - 1), 501, "delay_time"),
        (struct(deliver_at=1), 401, "deliver_at"),
        (struct(ttr=0), 401, "ttr"),
        (struct(retry_delays=[1, -1]), 401, "retry_delays.1"),
        (struct(retry_delays=[1] * 33), 401, "retry_delays"),
        (struct(msg_id="x"), 401, "msg_id"),
        (struct(msg_id=b"\xff"), 401, "msg_id"),
        (struct(callback=None), 401, "callback"),
        (struct(callback=callback(request_type=None)), 401, "callback.request_type"),
        (struct(callback=callback(request_type=9)), 401, "callback.request_type"),
        (struct(callback=callback(url=None)), 401, "callback.url"),
        (struct(callback=callback(url="http://a/\r\n")), 401, "callback.url"),
        (struct(callback=callback(url=b"\xff")), 401, "callback.url"),
        (struct(callback=callback(params="[]")), 401, "callback.params"),
        (struct(callback=callback(params=b"\xff")), 401, "callback.params"),
    ],
)
def test_wrong_submissions(kit: Kit, client: RpcClient, sent: Any, ec: int, field: str) -> None:
    with pytest.raises(t.InvalidRequest) as caught:
        client.call("submit", submission=sent)
    assert (caught.value.ec, caught.value.field) == (ec, field)
    assert caught.value.em.startswith(f"{field}: ")
    assert kit.logged() == []
    assert kit.counted == {("submit", ec): 1}


def test_an_unknown_topic(client: RpcClient) -> None:
    with pytest.raises(t.TopicNotFound):
        client.call("submit", submission=struct(topic_name="nowhere"))
    with pytest.raises(t.TopicNotFound):
        client.call("cancel", topic_name="nowhere", msg_id=uuid7(2**40), command_id=None)


def test_a_log_that_does_not_answer(kit: Kit, client: RpcClient) -> None:
    kit.log.down.add(TOPIC)
    with pytest.raises(t.Unavailable) as caught:
        client.call("submit", submission=struct())
    assert caught.value.retry_after == 1000
    (result,) = client.call("submitBatch", submissions=[struct()])
    assert (result.ec, result.msg_id) == (503, None)


def test_an_error_of_ours_means_unknown(
    kit: Kit,
    client: RpcClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(kit.log, "append", broken)
    with caplog.at_level(logging.ERROR), pytest.raises(t.Unavailable) as caught:
        client.call("submit", submission=struct())
    assert caught.value.em == "system error"
    assert "the secret of the house" in caplog.text
    assert kit.counted == {("submit", 500): 1}


def test_a_batch_answers_each(kit: Kit, client: RpcClient) -> None:
    good = [struct() for _ in range(150)]
    wrong = [struct(retry_delays=[-1]), struct(topic_name="nowhere"), struct(callback=None)]
    results = client.call("submitBatch", submissions=[*good, *wrong])
    assert [r.ec for r in results] == [200] * 150 + [401, 407, 401]
    assert [r.em.partition(":")[0] for r in results[150:]] == [
        "retry_delays.0",
        "topic 'nowhere' does not exist",
        "callback",
    ]
    assert [m.msg_id for m in kit.logged()] == [r.msg_id for r in results[:150]]
    assert kit.counted["submit_batch", 200] == 150
    assert kit.counted["submit_batch", 401] == 2


@pytest.mark.parametrize("submissions", [None, [], [struct()] * 201])
def test_batches_of_a_wrong_size(client: RpcClient, submissions: Any) -> None:
    with pytest.raises(t.InvalidRequest) as caught:
        client.call("submitBatch", submissions=submissions)
    assert caught.value.field == "submissions"


def test_cancel_and_add_time(kit: Kit, client: RpcClient) -> None:
    msg_id = client.call("submit", submission=struct())
    kit.deliver()
    order = {"topic_name": TOPIC, "msg_id": msg_id}
    due = client.call("get", msg_id=msg_id).due_at
    for _ in range(2):
        assert client.call("addTime", **order, add_time=5000, command_id="a-1") is True
    assert client.call("get", msg_id=msg_id).due_at == due + 5000
    for _ in range(2):
        assert client.call("cancel", **order, command_id="c-1") is True
    assert kit.ingress.get(msg_id).state is State.CANCELLED
    with pytest.raises(t.TooLate):
        client.call("addTime", **order, add_time=1, command_id=None)


@pytest.mark.parametrize(
    ("changes", "ec", "field"),
    [
        ({"topic_name": None}, 401, "topic_name"),
        ({"topic_name": "lock"}, 402, "topic_name"),
        ({"msg_id": None}, 401, "msg_id"),
        ({"msg_id": b"\xff"}, 401, "msg_id"),
        ({"command_id": "a b"}, 401, "command_id"),
        ({"command_id": b"\xff"}, 401, "command_id"),
        ({"add_time": None}, 401, "add_time"),
        ({"add_time": 0}, 401, "add_time"),
        ({"add_time": MAX_DELAY_MS + 1}, 501, "add_time"),
    ],
)
def test_wrong_commands(
    kit: Kit, client: RpcClient, changes: dict[str, Any], ec: int, field: str
) -> None:
    order = {"topic_name": TOPIC, "msg_id": uuid7(kit.now_ms()), "command_id": None, "add_time": 5}
    with pytest.raises(t.InvalidRequest) as caught:
        client.call("addTime", **{**order, **changes})
    assert (caught.value.ec, caught.value.field) == (ec, field)
    assert kit.logged() == []


def test_commands_for_messages_that_are_not_there(kit: Kit, client: RpcClient) -> None:
    for msg_id in ("x", uuid7(kit.now_ms() - 700_000)):
        with pytest.raises(t.MessageNotFound):
            client.call("cancel", topic_name=TOPIC, msg_id=msg_id, command_id=None)
    with pytest.raises(t.MessageNotFound):
        client.call("get", msg_id="x")
    with pytest.raises(t.InvalidRequest):
        client.call("get", msg_id=None)
