"""Idempotency keys: one message for one key, whatever happens in between."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from msgspec.structs import replace

import idl
from receive_app import rules
from receive_app.access import Caller
from receive_app.keys import digest, longest_window_ms
from receive_app.rpc import _submission
from receive_app.schemas import submission as of_json
from soraka.config import Config, override
from soraka.errors import InvalidParams, KeyReused, LogUnavailable, StoreUnavailable, Unavailable
from soraka.message import Callback, Message, State, Submission
from soraka.ports import ClaimKind, Ended, Outcome, Query
from soraka.tokens import Token
from tests.unit.receive_kit import TOPIC, URL, Kit, uuid7

SUBMIT = "/sorakaq/msg/submit"


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    yield made
    made.close()


def keyed(key: str = "k1", **changes: Any) -> Submission:
    base = Submission(
        topic=TOPIC,
        callback=Callback(method="POST", url=URL, params='{"a":1}'),
        delay_ms=60_000,
        idempotency_key=key,
    )
    return replace(base, **changes)


def caller(name: str) -> Caller:
    return Caller(Token(name=name, hash="", submit=("*",)))


def ids(kit: Kit) -> list[str]:
    return [record.msg_id for record in kit.logged()]


def stored(kit: Kit) -> list[str]:
    page, _ = kit.parts.store.search(Query([TOPIC], list(State)), "", 100)
    return [one.message.msg_id for one in page]


def test_sent_again_it_is_one_message(kit: Kit) -> None:
    msg_id = kit.ingress.submit(keyed())
    kit.deliver()
    assert kit.ingress.submit(keyed()) == msg_id
    assert ids(kit) == []  # the store has it: nothing is appended again
    assert stored(kit) == [msg_id]
    assert kit.tallied[TOPIC, "accepted"] == 1
    assert kit.ingress.submit(keyed("k2")) != msg_id


def test_sent_again_before_center_has_read_the_first(kit: Kit) -> None:
    msg_id = kit.ingress.submit(keyed())
    assert kit.ingress.submit(keyed()) == msg_id
    kit.deliver()
    assert stored(kit) == [msg_id]


def test_a_first_that_did_not_get_into_the_log(kit: Kit) -> None:
    kit.log.down.add(TOPIC)
    with pytest.raises(LogUnavailable):
        kit.ingress.submit(keyed())
    kit.log.down.clear()
    msg_id = kit.ingress.submit(keyed())
    (message,) = kit.logged()
    assert isinstance(message, Message)
    assert message.msg_id == msg_id


def test_many_at_once_are_one_message(kit: Kit) -> None:
    """With a center that reads meanwhile, over all there is to be read."""
    asking = [gevent.spawn(kit.ingress.submit, keyed()) for _ in range(50)]
    while not all(one.ready() for one in asking):
        kit.deliver()
        gevent.sleep(0)
    answers = {one.get() for one in asking}
    kit.deliver()
    assert len(answers) == 1
    assert stored(kit) == list(answers)


@pytest.mark.parametrize("ended", [Ended.SUCCEEDED, Ended.DEAD])
def test_a_finished_message_does_not_come_back(kit: Kit, ended: Ended) -> None:
    msg_id = kit.ingress.submit(keyed(delay_ms=0))
    kit.deliver()
    while (claim := kit.parts.store.claim([msg_id])[0]).kind is ClaimKind.LATER:
        gevent.sleep(0.001)
    assert claim.kind is ClaimKind.FIRE
    kit.parts.store.settle([Outcome(msg_id, claim.lease, ended)])
    assert kit.ingress.submit(keyed(delay_ms=0)) == msg_id
    kit.deliver()
    assert kit.ingress.get(msg_id).state.value == ended.value
    assert kit.parts.store.claim([msg_id])[0].kind is ClaimKind.GONE


def test_a_cancelled_message_does_not_come_back(kit: Kit) -> None:
    msg_id = kit.ingress.submit(keyed())
    kit.ingress.cancel(TOPIC, msg_id, None)  # before center has read it
    assert kit.ingress.submit(keyed()) == msg_id
    kit.deliver()
    assert kit.ingress.submit(keyed()) == msg_id
    kit.deliver()
    assert kit.ingress.get(msg_id).state is State.CANCELLED


@pytest.mark.parametrize(
    "changes",
    [
        {"delay_ms": 60_001},
        {"delay_ms": None, "deliver_at": 1},
        {"ttr_ms": 2000},
        {"retry_ms": ()},
        {"callback": Callback(method="GET", url=URL, params='{"a":1}')},
        {"callback": Callback(method="POST", url=f"{URL}/2", params='{"a":1}')},
        {"callback": Callback(method="POST", url=URL, params='{"a":2}')},
        {"callback": Callback(method="POST", url=URL)},
    ],
)
def test_another_message_under_the_key_is_refused(kit: Kit, changes: dict[str, Any]) -> None:
    kit.ingress.submit(keyed())
    kit.logged()
    with pytest.raises(KeyReused, match="idempotency_key"):
        kit.ingress.submit(keyed(**changes))
    assert kit.logged() == []


def test_an_own_id_belongs_to_the_message(kit: Kit) -> None:
    own = uuid7(kit.now_ms())
    assert kit.ingress.submit(keyed(msg_id=own)) == own
    assert kit.ingress.submit(keyed(msg_id=own)) == own
    with pytest.raises(KeyReused):
        kit.ingress.submit(keyed(msg_id=uuid7(kit.now_ms())))


def test_keys_are_of_one_topic_and_caller(kit: Kit) -> None:
    kit.parts.topics.add(kit.parts.topics.new("other"))
    found = {
        kit.ingress.submit(keyed(topic=topic), who)
        for topic in (TOPIC, "other")
        for who in (Caller(), caller("shop"), caller("ops"))
        for _ in range(2)
    }
    assert len(found) == 6


def test_params_are_the_same_in_any_order_and_over_both_edges() -> None:
    fields = {"topic_name": TOPIC, "delay_time": 5, "idempotency_key": "k"}
    params = {"b": [1, "é"], "a": {"y": None, "x": 1.5}}
    json_form = of_json(
        {**fields, "callback": {"request_type": "post", "url": URL, "params": params}}, 1000
    )
    text = json.dumps(dict(sorted(params.items())), indent=1)
    t = idl.soraka
    callback = t.Callback(request_type=t.RequestType.POST, url=URL, params=text)
    thrift_form = _submission(t.Submission(**fields, callback=callback), 1000)
    assert json_form.callback.params != thrift_form.callback.params
    assert digest(json_form) == digest(thrift_form)


def test_params_nested_as_deep_as_allowed_have_a_digest() -> None:
    deepest = 0
    for depth in range(100, 3000, 50):
        text = '{"a":' + "[" * depth + "]" * depth + "}"
        try:
            rules.params_text(text, "POST", 1 << 20)
        except InvalidParams:
            break
        deepest = depth
        digest(keyed(callback=Callback(method="POST", url=URL, params=text)))
    assert deepest > 0


@pytest.mark.parametrize("key", ["", "a" * 129, "a\n", "é", "a\x7f"])
def test_wrong_keys(kit: Kit, key: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        kit.ingress.submit(keyed(key))
    assert refused.value.field == "idempotency_key"


# ------------------------------------------------------------------------- windows


def test_a_key_holds_for_its_window(kit: Kit) -> None:
    first, later = kit.ingress.submit(keyed()), kit.now_ms() + 590_000
    store: Any = kit.parts.store
    store.now_ms = lambda: later
    assert kit.ingress.submit(keyed()) == first
    store.now_ms = lambda: later + 20_000
    assert kit.ingress.submit(keyed()) != first


def test_no_longer_than_the_topic_keeps_its_messages(kit: Kit) -> None:
    kit.parts.topics.update(TOPIC, lambda topic: dataclasses.replace(topic, retention_ms=60_000))
    first, later = kit.ingress.submit(keyed()), kit.now_ms() + 61_000
    store: Any = kit.parts.store
    store.now_ms = lambda: later
    assert kit.ingress.submit(keyed()) != first


def test_a_retention_made_shorter_brings_no_message_back(kit: Kit) -> None:
    store: Any = kit.parts.store
    forgotten, waiting = (kit.ingress.submit(keyed(key)) for key in ("forgotten", "waiting"))
    kit.ingress.cancel(TOPIC, forgotten, None)
    kit.log.down.add(TOPIC)
    with pytest.raises(Unavailable):
        kit.ingress.submit(keyed("never there"))
    kit.log.down.clear()
    kit.parts.topics.update(TOPIC, lambda topic: dataclasses.replace(topic, retention_ms=60_000))
    store.keep({TOPIC: 60_000})
    kit.deliver()
    assert kit.ingress.submit(keyed("forgotten")) == forgotten
    later = kit.now_ms() + 61_000
    store.now_ms = lambda: later
    kit.parts.clock.sync()
    assert kit.ingress.submit(keyed("waiting")) == waiting
    for key in ("forgotten", "never there"):
        with pytest.raises(Unavailable, match="older than finished messages are kept"):
            kit.ingress.submit(keyed(key))
    assert ids(kit) == []
    later += 600_000
    assert kit.ingress.submit(keyed("forgotten")) != forgotten


@pytest.mark.parametrize(
    ("section", "name", "ms"),
    [
        ("receive", "idempotency_ms", 60_000),
        ("store", "retention_ms", 60_000),
        ("store", "dead_retention_ms", 60_000),
        ("store", "early_ms", 60_000),
    ],
)
def test_the_longest_window(section: str, name: str, ms: int) -> None:
    assert longest_window_ms(Config()) == 600_000
    assert longest_window_ms(override(Config(), {section: {name: ms}})) == ms


# ------------------------------------------------------------------------- batches


def test_a_batch_uses_keys(kit: Kit) -> None:
    first = kit.ingress.submit(keyed("old"))
    kit.deliver()
    plain = keyed()
    plain = replace(plain, idempotency_key=None)
    wrong = InvalidParams("callback", "is missing")
    sent = [keyed("new"), plain, keyed("old"), wrong, keyed("new"), keyed("old", ttr_ms=5)]
    new, other, old, same, again, reused = kit.ingress.submit_batch(sent)
    assert (old, same, again) == (first, wrong, new)
    assert isinstance(reused, KeyReused)
    assert set(ids(kit)) == {new, other}
    assert kit.ingress.submit_batch([keyed("old"), keyed("new")]) == [old, new]


def test_a_store_that_is_away_refuses_what_has_a_key(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(kit.parts.store, "keep_keys", away)
    with pytest.raises(StoreUnavailable):
        kit.ingress.submit(keyed())
    assert kit.logged() == []
    plain = replace(keyed(), idempotency_key=None)
    first, second, third = kit.ingress.submit_batch([keyed(), plain, keyed("k2")])
    assert isinstance(first, StoreUnavailable)
    assert isinstance(third, StoreUnavailable)
    assert ids(kit) == [second]
    assert kit.ingress.submit(plain) in ids(kit)


# ------------------------------------------------------------------------- edges


def body(**changes: Any) -> dict[str, Any]:
    callback = {"request_type": "POST", "url": URL}
    return {"topic_name": TOPIC, "delay_time": 60_000, "callback": callback, **changes}


def post(kit: Kit, path: str, data: dict[str, Any], **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = kit.client.post(f"/sorakaq/msg/{path}", json=data, headers=named)
    answer = json.loads(reply.data)
    return reply.status_code, answer["result"] if answer["ec"] == 200 else answer["ec"]


def test_the_header_and_the_field_are_one(kit: Kit) -> None:
    status, first = post(kit, "submit", body(idempotency_key="a b"))
    assert status == 200
    assert post(kit, "submit", body(), Idempotency_Key="a b") == (200, first)
    assert post(kit, "submit", body(idempotency_key=None), Idempotency_Key='"a b"') == (200, first)
    assert post(kit, "submit", body(idempotency_key="a b"), Idempotency_Key="a b") == (200, first)
    assert post(kit, "submit", body(idempotency_key="c"), Idempotency_Key="a b") == (400, 401)
    assert post(kit, "submit", body(ttr=5), Idempotency_Key="a b") == (409, 414)
    assert post(kit, "submit", body(), Idempotency_Key="") == (400, 401)
    form = {"topic_name": TOPIC, "delay_time": "60000", "request_type": "POST", "url": URL}
    reply = kit.client.post(SUBMIT, data={**form, "idempotency_key": "a b"})
    assert json.loads(reply.data)["result"] == first


def test_the_header_is_refused_where_it_would_do_nothing(kit: Kit) -> None:
    order = {"topic_name": TOPIC, "msg_id": uuid7(kit.now_ms()), "add_time": 5}
    sent = {"submitBatch": {"messages": [body()]}, "cancel": order, "addTime": order}
    for path, data in sent.items():
        assert post(kit, path, data, Idempotency_Key="a") == (400, 401)
    assert kit.logged() == []


def test_a_batch_over_http_answers_each(kit: Kit) -> None:
    messages = [body(idempotency_key="a"), body(idempotency_key="a"), body(idempotency_key="")]
    messages.append(body(idempotency_key="a", ttr=5))
    _, results = post(kit, "submitBatch", {"messages": messages})
    assert [one["ec"] for one in results] == [200, 200, 401, 414]
    assert results[0]["msgId"] == results[1]["msgId"]


def test_the_store_away_is_503_over_http(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(kit.parts.store, "keep_keys", away)
    assert post(kit, "submit", body(idempotency_key="a")) == (503, 503)
    assert post(kit, "submit", body())[0] == 200


def test_over_thrift(kit: Kit) -> None:
    t = idl.soraka

    def struct(**changes: Any) -> Any:
        callback = t.Callback(request_type=t.RequestType.POST, url=URL)
        fields = {"topic_name": TOPIC, "delay_time": 60_000, "idempotency_key": "a", **changes}
        return t.Submission(**fields, callback=callback)

    first = kit.handler.submit(struct())
    assert kit.handler.submit(struct()) == first
    with pytest.raises(t.KeyReused):
        kit.handler.submit(struct(ttr=5))
    with pytest.raises(t.InvalidRequest) as refused:
        kit.handler.submit(struct(idempotency_key=b"\xff"))
    assert refused.value.field == "idempotency_key"
    again, reused = kit.handler.submitBatch([struct(), struct(ttr=5)])
    assert (again.msg_id, reused.ec) == (first, 414)
    assert kit.counted["submit", 414] == 1
