"""Tokens at the edges of receive: who is let in, and to which topics."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import idl
from soraka import tokens
from soraka.rpc import RpcClient, RpcServer
from soraka.tokens import Right, Tokens
from tests.unit.receive_kit import TOPIC, URL, Kit, exchange, serving, uuid7

t = idl.soraka


class Guarded(Kit):
    """With a topic `other`, and tokens: `shop` may submit to and command `orders`, `reader` read
    everything, `all` everything."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.json"
        self.shop = self._add("shop", submit=[TOPIC], command=[TOPIC])
        self.reader = self._add("reader", read=["*"])
        self.all = self._add("all", submit=["*"], command=["*"], read=["*"])
        super().__init__(folder, tokens=Tokens(self.path), max_body_bytes=100_000)
        self.parts.topics.add(self.parts.topics.new("other"))

    def _add(self, name: str, **rights: list[str]) -> str:
        return tokens.add(self.path, name, {Right(right): p for right, p in rights.items()})

    def post(self, token: str | None, path: str, data: Any) -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        reply = self.client.post(f"/sorakaq/msg/{path}", json=data, headers=headers)
        answer = json.loads(reply.data)
        return reply.status_code, answer["result"] if answer["ec"] == 200 else answer["ec"]


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    monkeypatch.setattr(tokens, "LOOK_S", 0.0)
    made = Guarded(tmp_path)
    yield made
    made.close()


def message(topic: str = TOPIC) -> dict[str, Any]:
    callback = {"request_type": "POST", "url": URL}
    return {"topic_name": topic, "delay_time": 60_000, "callback": callback}


NOBODY, NOT_HERE = (401, 406), (403, 410)


def test_without_a_token_nothing_is_done(kit: Guarded) -> None:
    order = {"topic_name": TOPIC, "msg_id": uuid7(kit.now_ms()), "add_time": 1}
    sent = {"submit": message(), "submitBatch": {"messages": [message()]}}
    sent |= {"cancel": order, "addTime": order, "get": order}
    for path, data in sent.items():
        for token in (None, "", "soraka_wrong", f"{kit.all}x"):
            assert kit.post(token, path, data) == NOBODY
    assert kit.logged() == []


def test_the_answer_says_what_is_needed(kit: Guarded) -> None:
    reply = kit.client.post("/sorakaq/msg/submit", json=message())
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert json.loads(reply.data)["em"] == "token: is missing"
    basic = {"Authorization": f"Basic {kit.all}"}
    assert kit.client.post("/sorakaq/msg/submit", json=message(), headers=basic).status_code == 401
    small = {"Authorization": f"bearer  {kit.all} "}
    assert kit.client.post("/sorakaq/msg/submit", json=message(), headers=small).status_code == 200


def test_what_shows_health_is_open(kit: Guarded) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert kit.client.get(path).status_code == 200


def test_each_right_is_for_its_topics(kit: Guarded) -> None:
    status, made = kit.post(kit.shop, "submit", message())
    assert status == 200
    _, other = kit.post(kit.all, "submit", message("other"))
    kit.deliver()
    assert kit.post(kit.shop, "submit", message("other")) == NOT_HERE
    assert kit.post(kit.reader, "submit", message()) == NOT_HERE
    order = {"topic_name": TOPIC, "msg_id": made["msgId"], "add_time": 1}
    assert kit.post(kit.shop, "addTime", order) == (200, True)
    assert kit.post(kit.reader, "cancel", order) == NOT_HERE
    assert kit.post(kit.shop, "get", order) == NOT_HERE
    assert kit.post(kit.reader, "get", order)[1]["msg_id"] == made["msgId"]
    assert kit.post(kit.shop, "cancel", {**order, "topic_name": "other"}) == NOT_HERE
    # a message of another topic is not reached by naming one's own
    assert kit.post(kit.shop, "cancel", {**order, "msg_id": other["msgId"]}) == (404, 405)
    assert kit.post(kit.shop, "cancel", order) == (200, True)
    # whether a topic exists is told to nobody who may not use it
    assert kit.post(kit.shop, "submit", message("nowhere")) == NOT_HERE
    assert kit.post(kit.all, "submit", message("nowhere")) == (404, 407)


def test_each_message_of_a_batch_needs_the_right(kit: Guarded) -> None:
    sent = {"messages": [message(), message("other"), message()]}
    _, results = kit.post(kit.shop, "submitBatch", sent)
    assert [one["ec"] for one in results] == [200, 410, 200]
    assert len(kit.logged()) == 2


def test_a_right_that_is_lacking_makes_no_topic(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    made = tokens.add(path, "shop", {Right.SUBMIT: ["shop.*"]})
    kit = Kit(tmp_path, auto_create=True, tokens=Tokens(path))
    try:
        headers = {"Authorization": f"Bearer {made}"}
        for topic, status in (("shop.a", 200), ("ops.a", 403)):
            sent = message(topic)
            reply = kit.client.post("/sorakaq/msg/submit", json=sent, headers=headers)
            assert reply.status_code == status
        assert set(kit.parts.topics.registry.topics()) == {TOPIC, "shop.a"}
    finally:
        kit.close()


def test_a_removed_token_is_refused_from_then_on(kit: Guarded) -> None:
    assert kit.post(kit.shop, "submit", message())[0] == 200
    tokens.remove(kit.path, "shop")
    assert kit.post(kit.shop, "submit", message()) == NOBODY


def test_a_refused_request_leaves_the_connection_usable(kit: Guarded) -> None:
    body = json.dumps({**message(), "pad": "x" * 90_000}).encode()

    def request(token: str, end: str = "") -> bytes:
        return (
            f"POST /sorakaq/msg/submit HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{end}\r\n"
        ).encode() + body

    with serving(kit) as address:
        answer = exchange(address, request("wrong"), request(kit.all, "Connection: close\r\n"))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"HTTP/1.1 200 OK" in answer
    assert len(kit.logged()) == 1


# ------------------------------------------------------------------------- Thrift


@pytest.fixture
def address(kit: Guarded) -> Iterator[tuple[str, int]]:
    server = RpcServer(t.Soraka, kit.handler, socket.create_server(("127.0.0.1", 0)))
    server.start()
    yield "127.0.0.1", server.port
    server.stop(1)


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[RpcClient]:
    made = RpcClient(t.Soraka, address, timeout_ms=10_000)
    yield made
    made.close()


def struct(topic: str = TOPIC) -> Any:
    callback = t.Callback(request_type=t.RequestType.POST, url=URL)
    return t.Submission(topic_name=topic, delay_time=60_000, callback=callback)


def test_a_connection_says_once_who_it_is(
    kit: Guarded, client: RpcClient, address: tuple[str, int]
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("submit", {"submission": struct()}),
        ("submitBatch", {"submissions": [struct()]}),
        ("cancel", {"topic_name": TOPIC, "msg_id": "x", "command_id": None}),
        ("addTime", {"topic_name": TOPIC, "msg_id": "x", "add_time": 1, "command_id": None}),
        ("get", {"msg_id": "x"}),
    ]
    for method, arguments in calls:
        with pytest.raises(t.NotAuthenticated):
            client.call(method, **arguments)
    with pytest.raises(t.NotAuthenticated):
        client.call("authenticate", token="soraka_wrong")
    for nothing in (None, b"\xff"):
        with pytest.raises(t.InvalidRequest):
            client.call("authenticate", token=nothing)
    client.call("authenticate", token=kit.shop)
    msg_id = client.call("submit", submission=struct())
    assert client.call("cancel", topic_name=TOPIC, msg_id=msg_id, command_id=None)
    with pytest.raises(t.NotAllowed):
        client.call("submit", submission=struct("other"))
    with pytest.raises(t.NotAllowed):
        client.call("cancel", topic_name="other", msg_id=msg_id, command_id=None)
    results = client.call("submitBatch", submissions=[struct(), struct("other")])
    assert [result.ec for result in results] == [200, 410]
    kit.deliver()
    with pytest.raises(t.NotAllowed):
        client.call("get", msg_id=msg_id)
    # another connection is another caller
    second = RpcClient(t.Soraka, address, timeout_ms=10_000)
    with pytest.raises(t.NotAuthenticated):
        second.call("submit", submission=struct())
    second.call("authenticate", token=kit.reader)
    assert second.call("get", msg_id=msg_id).msg_id == msg_id
    second.close()


def test_a_refused_token_leaves_the_connection_as_it_was(kit: Guarded, client: RpcClient) -> None:
    client.call("authenticate", token=kit.all)
    with pytest.raises(t.NotAuthenticated):
        client.call("authenticate", token="soraka_wrong")
    assert client.call("submit", submission=struct())


def test_a_token_removed_meanwhile_counts_no_more(kit: Guarded, client: RpcClient) -> None:
    client.call("authenticate", token=kit.all)
    assert client.call("submit", submission=struct())
    tokens.remove(kit.path, "all")
    with pytest.raises(t.NotAuthenticated):
        client.call("submit", submission=struct())


def test_where_no_token_is_needed_any_will_do(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    try:
        assert kit.handler.authenticate("anything") is None
        assert kit.handler.submit(struct())
        headers = {"Authorization": "Bearer anything"}
        reply = kit.client.post("/sorakaq/msg/submit", json=message(), headers=headers)
        assert reply.status_code == 200
    finally:
        kit.close()
