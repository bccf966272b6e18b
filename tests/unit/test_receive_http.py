"""The HTTP API: answers and codes, and requests that break the rules."""

import gzip
import json
import logging
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receive_app import rules
from soraka.limits import DEFAULT_RETRY_MS, MAX_DELAY_MS
from soraka.message import Message, State
from tests.unit.receive_kit import TOPIC, URL, Kit, exchange, serving, uuid7

SUBMIT = "/sorakaq/msg/submit"
BATCH = "/sorakaq/msg/submitBatch"
CANCEL = "/sorakaq/msg/cancel"
ADD_TIME = "/sorakaq/msg/addTime"


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path, max_body_bytes=100_000, read_timeout_ms=300, max_batch=5)
    yield made
    made.close()


def message(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "topic_name": TOPIC,
        "delay_time": 60_000,
        "callback": {"request_type": "POST", "url": URL, "params": {"order": 123}},
    }
    return {**base, **changes}


def with_callback(**changes: Any) -> dict[str, Any]:
    return message(callback={**message()["callback"], **changes})


def post(kit: Kit, path: str, data: Any) -> tuple[int, dict[str, Any]]:
    """HTTP status and body."""
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    reply = kit.client.post(path, data=body, content_type="application/json")
    answer = json.loads(reply.data)
    assert list(answer) == ["ec", "em", "result"]
    assert reply.content_type == "application/json"
    return reply.status_code, answer


def raw(fields: dict[str, Any], **texts: str) -> bytes:
    """JSON in which some values are these texts as they are."""
    body = json.dumps({**fields, **{name: f"@{name}@" for name in texts}})
    for name, text in texts.items():
        body = body.replace(f'"@{name}@"', text)
    return body.encode()


def logged(kit: Kit) -> Message:
    (found,) = kit.logged()
    assert isinstance(found, Message)
    return found


# ---------------------------------------------------------------------- answers


def test_submit_answers_with_the_id_and_counts(kit: Kit) -> None:
    status, answer = post(kit, SUBMIT, message())
    found = logged(kit)
    assert (status, answer) == (
        200,
        {"ec": 200, "em": "success", "result": {"msgId": found.msg_id}},
    )
    assert (found.ttr_ms, found.retry_ms) == (1000, DEFAULT_RETRY_MS)
    assert found.callback.params == '{"order":123}'
    assert kit.counted == {("submit", 200): 1}


def test_a_submit_with_every_field(kit: Kit) -> None:
    msg_id, moment = uuid7(kit.now_ms()), kit.now_ms() + 5000
    sent = message(deliver_at=moment, ttr=2000, retry=[1, 2], msg_id=msg_id)
    del sent["delay_time"]
    sent["callback"] = {"request_type": "get", "url": URL, "params": {"q": ["é", 1.5]}}
    status, answer = post(kit, SUBMIT, sent)
    assert (status, answer["result"]) == (200, {"msgId": msg_id})
    found = logged(kit)
    assert (found.due_at, found.ttr_ms, found.retry_ms) == (moment, 2000, (1, 2))
    assert (found.callback.method, found.callback.params) == ("GET", '{"q":["é",1.5]}')


def test_nulls_and_unknown_fields_count_as_absent(kit: Kit) -> None:
    sent = with_callback(params=None, extra=1)
    sent |= {"deliver_at": None, "ttr": None, "retry": None, "msg_id": None, "unknown": [1]}
    assert post(kit, SUBMIT, sent)[0] == 200
    found = logged(kit)
    assert (found.ttr_ms, found.retry_ms, found.callback.params) == (1000, DEFAULT_RETRY_MS, None)


def test_params_may_be_a_text_that_holds_an_object(kit: Kit) -> None:
    text = '{"a": {"b": 1}}'
    assert post(kit, SUBMIT, with_callback(params=text))[0] == 200
    assert logged(kit).callback.params == text


def test_a_form_is_flat(kit: Kit) -> None:
    form = {
        "topic_name": TOPIC,
        "delay_time": "2000",
        "ttr": "1500",
        "request_type": "POST",
        "url": URL,
        "params": '{"a":1}',
        "retry": "10, 20",
        "msg_id": "",
    }
    reply = kit.client.post(SUBMIT, data=form)
    assert reply.status_code == 200
    found = logged(kit)
    assert found.due_at == found.created_at + 2000
    assert (found.ttr_ms, found.retry_ms) == (1500, (10, 20))
    assert (found.callback.url, found.callback.params) == (URL, '{"a":1}')


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"delay_time": "1e3"}, "delay_time"),
        ({"delay_time": " 5"}, "delay_time"),
        ({"delay_time": "1_000"}, "delay_time"),
        ({"delay_time": "٣"}, "delay_time"),
        ({"delay_time": ""}, "delay_time"),
        ({"ttr": "true"}, "ttr"),
        ({"retry": "1,x"}, "retry.1"),
        ({"retry": "1,,2"}, "retry.1"),
        ({"url": ""}, "callback.url"),
        ({"params": "no json"}, "callback.params"),
    ],
)
def test_forms_that_are_wrong(kit: Kit, changes: dict[str, str], field: str) -> None:
    form = {"topic_name": TOPIC, "delay_time": "1", "request_type": "GET", "url": URL}
    reply = kit.client.post(SUBMIT, data={**form, **changes})
    answer = json.loads(reply.data)
    assert (reply.status_code, answer["ec"]) == (400, 401)
    assert answer["em"].startswith(f"{field}: ")


def test_cancel_and_add_time(kit: Kit) -> None:
    msg_id = kit.ingress.submit(_submission(kit))
    kit.deliver()
    due = kit.ingress.get(msg_id).due_at
    order = {"topic_name": TOPIC, "msg_id": msg_id}
    assert post(kit, ADD_TIME, {**order, "add_time": 5000, "command_id": "a1"})[1] == {
        "ec": 200,
        "em": "success",
        "result": True,
    }
    assert kit.ingress.get(msg_id).due_at == due + 5000
    reply = kit.client.post(CANCEL, data=order)
    assert (reply.status_code, json.loads(reply.data)["result"]) == (200, True)
    assert kit.ingress.get(msg_id).state is State.CANCELLED
    status, answer = post(kit, CANCEL, order)
    assert (status, answer["ec"]) == (409, 409)
    assert kit.counted == {("add_time", 200): 1, ("cancel", 200): 1, ("cancel", 409): 1}


def _submission(kit: Kit) -> Any:
    from receive_app.schemas import submission

    return submission(message(), 1000)


def test_a_batch_answers_each(kit: Kit) -> None:
    wrong = with_callback(url="ftp://x/")
    status, answer = post(
        kit, BATCH, {"messages": [message(), wrong, 5, message(delay_time=MAX_DELAY_MS + 1)]}
    )
    assert (status, answer["ec"], answer["em"]) == (200, 200, "success")
    first, *others = answer["result"]
    assert first == {"ec": 200, "em": "success", "msgId": logged(kit).msg_id}
    assert [item["ec"] for item in others] == [401, 401, 501]
    assert [item["em"].partition(":")[0] for item in others] == [
        "callback.url",
        "message",
        "delay_time",
    ]
    assert all(item["msgId"] == "" for item in others)
    assert kit.counted["submit_batch", 200] == 1
    assert kit.counted["submit_batch", 401] == 2


def test_a_batch_as_a_form_holds_json(kit: Kit) -> None:
    reply = kit.client.post(BATCH, data={"messages": json.dumps([message()])})
    assert [item["ec"] for item in json.loads(reply.data)["result"]] == [200]


def test_a_batch_of_which_a_part_cannot_be_accepted_now(kit: Kit) -> None:
    kit.parts.topics.add(kit.parts.topics.new("other"))
    kit.log.down.add("other")
    status, answer = post(kit, BATCH, {"messages": [message(), message(topic_name="other")]})
    assert (status, [item["ec"] for item in answer["result"]]) == (200, [200, 503])


def test_a_batch_of_which_nothing_can_be_accepted_now(kit: Kit) -> None:
    kit.log.down.add(TOPIC)
    reply = kit.client.post(BATCH, json={"messages": [message(), message()]})
    assert (reply.status_code, json.loads(reply.data)["ec"]) == (503, 503)
    assert reply.headers["Retry-After"] == "1"


@pytest.mark.parametrize("messages", [[], [{}] * 6, {}, None, "x"])
def test_batches_of_a_wrong_size_or_kind(kit: Kit, messages: Any) -> None:
    status, answer = post(kit, BATCH, {"messages": messages})
    assert (status, answer["ec"]) == (400, 401)
    assert answer["em"].startswith("messages: ")


# ---------------------------------------------------------------------- codes


def test_the_codes_of_the_table(kit: Kit) -> None:
    now = kit.now_ms()
    order = {"topic_name": TOPIC, "msg_id": uuid7(now - 700_000)}
    table = [
        (SUBMIT, message(delay_time=-1), 401, 400, "delay_time"),
        (SUBMIT, message(topic_name="admin"), 402, 400, "topic_name"),
        (CANCEL, order, 405, 404, "msg_id"),
        (ADD_TIME, {**order, "add_time": 1}, 405, 404, "msg_id"),
        (SUBMIT, message(topic_name="nowhere"), 407, 404, "topic"),
        (CANCEL, {"topic_name": "nowhere", "msg_id": uuid7(now)}, 407, 404, "topic"),
        (SUBMIT, {**message(), "x": "y" * 100_000}, 413, 413, "body"),
        (SUBMIT, message(delay_time=MAX_DELAY_MS + 1), 501, 400, "delay_time"),
        (ADD_TIME, {**order, "add_time": MAX_DELAY_MS + 1}, 501, 400, "add_time"),
    ]
    for path, data, ec, status, named in table:
        got, answer = post(kit, path, data)
        assert (got, answer["ec"]) == (status, ec), answer
        assert answer["em"].startswith(named)
        assert answer["result"] is None
    assert kit.logged() == []


def test_a_log_that_does_not_answer_is_503_with_retry_after(kit: Kit) -> None:
    kit.log.down.add(TOPIC)
    reply = kit.client.post(SUBMIT, json=message())
    assert (reply.status_code, json.loads(reply.data)["ec"]) == (503, 503)
    assert reply.headers["Retry-After"] == "1"
    assert kit.counted == {("submit", 503): 1}


def test_an_error_of_ours_is_logged_and_not_told(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(kit.log, "append", broken)
    with caplog.at_level(logging.ERROR):
        status, answer = post(kit, SUBMIT, message())
    assert (status, answer) == (500, {"ec": 500, "em": "system error", "result": None})
    assert "the secret of the house" in caplog.text
    assert "Traceback" in caplog.text
    assert kit.counted == {("submit", 500): 1}


@pytest.mark.parametrize(
    ("method", "path", "status", "named"),
    [
        ("POST", "/", 404, "path"),
        ("GET", "/sorakaq/msg/nothing", 404, "path"),
        ("POST", "/sorakaq//msg/submit", 404, "path"),
        ("POST", "/sorakaq/msg/submit/", 404, "path"),
        ("GET", SUBMIT, 405, "method"),
        ("OPTIONS", SUBMIT, 405, "method"),
        ("POST", "/healthz", 405, "method"),
    ],
)
def test_paths_and_methods_that_are_not_there(
    kit: Kit, method: str, path: str, status: int, named: str
) -> None:
    reply = kit.client.open(path, method=method, base_url="http://127.0.0.1")
    answer = json.loads(reply.data)
    assert (reply.status_code, answer["ec"], answer["result"]) == (status, 401, None)
    assert answer["em"].startswith(f"{named}: ")
    if status == 405:
        assert reply.headers["Allow"]


# ---------------------------------------------------------------------- wrong fields


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"not json", "body"),
        (b"[]", "body"),
        (b'"x"', "body"),
        (b"null", "body"),
        (b"1", "body"),
        (b"\xff\xfe{}", "body"),
        (b'{"topic_name": "\xe9"}', "body"),
        (b"\xef\xbb\xbf{}", "body"),
        (b"[" * 90_000, "body"),
        (b'{"a":' * 15_000, "body"),
        (raw(message(), x="9" * 5000), "body"),
        (b"{}", "topic_name"),
        (b'{"topic_name": "orders", "topic_name": "x"}', "topic_name"),
        (raw(message(), delay_time="NaN"), "delay_time"),
        (raw(message(), delay_time="Infinity"), "delay_time"),
        (raw(message(), delay_time="1e3"), "delay_time"),
        (raw(message(), ttr="9" * 30), "ttr"),
        (raw(message(), msg_id='"\\ud800"'), "msg_id"),
        (raw(message(), topic_name='"\\ud800"'), "topic_name"),
        (json.dumps(with_callback(params={"a": float("nan")})).encode(), "callback.params"),
        (json.dumps(with_callback(params={"a": float("inf")})).encode(), "callback.params"),
        (raw(message(), callback='{"url":"http://a","request_type":"GET","params":{"a":1e999}}'),
         "callback.params"),
        (json.dumps(with_callback(params={"a": "\ud800"})).encode(), "callback.params"),
    ],
)  # fmt: skip
def test_bodies_that_are_wrong(kit: Kit, data: bytes, named: str) -> None:
    status, answer = post(kit, SUBMIT, data)
    assert (status, answer["ec"]) == (400, 401)
    assert answer["em"].startswith(f"{named}: ")
    assert kit.logged() == []


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("topic_name", [None, 5, True, [], {}]),
        ("delay_time", [True, 1.5, 1000.0, "5", [], {}]),
        ("deliver_at", [True, 1.5, "5", [], {}]),
        ("ttr", [True, 1.5, "5", [], {}]),
        ("retry", [True, 1.5, 5, "1,2", {}]),
        ("retry.0", [[None], ["1"], [True], [1.0], [[]]]),
        ("msg_id", [True, 5, [], {}]),
        ("callback", [None, True, 5, "x", []]),
        ("callback.url", [None, 5, True, [], {}]),
        ("callback.request_type", [None, 5, True, [], {}, "", "PUT"]),
        ("callback.params", [5, True, 1.5, [], [1], "[]", "x", ""]),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_name(
    kit: Kit, field: str, values: list[Any]
) -> None:
    for value in values:
        head, _, inner = field.partition(".")
        sent = with_callback(**{inner: value}) if inner and head != "retry" else {
            **message(), head: value
        }  # fmt: skip
        status, answer = post(kit, SUBMIT, sent)
        assert (status, answer["ec"]) == (400, 401), (value, answer)
        assert answer["em"].startswith(f"{field}: "), (value, answer)


@pytest.mark.parametrize(
    "field", ["topic_name", "callback", "callback.url", "callback.request_type"]
)
def test_missing_fields_are_named(kit: Kit, field: str) -> None:
    sent = message()
    head, _, inner = field.partition(".")
    del (sent[head] if inner else sent)[inner or head]
    status, answer = post(kit, SUBMIT, sent)
    assert (status, answer["ec"]) == (400, 401)
    assert answer["em"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (CANCEL, "topic_name", None),
        (CANCEL, "msg_id", 5),
        (CANCEL, "command_id", 5),
        (CANCEL, "command_id", "a b"),
        (ADD_TIME, "add_time", None),
        (ADD_TIME, "add_time", "5"),
        (ADD_TIME, "add_time", True),
        (ADD_TIME, "add_time", 0),
    ],
)
def test_commands_that_are_wrong(kit: Kit, path: str, field: str, value: Any) -> None:
    order = {"topic_name": TOPIC, "msg_id": uuid7(kit.now_ms()), "add_time": 1, field: value}
    status, answer = post(kit, path, order)
    assert (status, answer["ec"]) == (400, 401)
    assert answer["em"].startswith(f"{field}: ")


def test_params_of_any_depth_are_accepted_or_refused(kit: Kit) -> None:
    """Also those that can be read but no longer written."""
    seen = set()
    for depth in range(300, 1100, 20):
        params = '{"a":' * depth + "1" + "}" * depth
        callback = f'{{"request_type":"POST","url":"{URL}","params":{params}}}'
        status, answer = post(kit, SUBMIT, raw(message(), callback=callback))
        assert (status, answer["ec"]) in ((200, 200), (400, 401))
        seen.add(answer["em"])
    assert len(seen) > 1


def test_crlf_in_a_url_is_refused(kit: Kit) -> None:
    status, answer = post(kit, SUBMIT, with_callback(url="http://a/\r\nX-Evil: 1"))
    assert (status, answer["ec"]) == (400, 401)
    assert answer["em"].startswith("callback.url: ")


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"Content-Type": "text/plain"}, "Content-Type"),
        ({"Content-Type": ""}, "Content-Type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "Content-Type"),
        ({"Content-Type": "application/json; charset=latin-1"}, "Content-Type"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "Content-Encoding"),
    ],
)
def test_headers_that_are_wrong(kit: Kit, headers: dict[str, str], named: str) -> None:
    body = json.dumps(message()).encode()
    if "Content-Encoding" in headers:
        body = gzip.compress(body)
    reply = kit.client.post(SUBMIT, data=body, headers=headers)
    answer = json.loads(reply.data)
    assert (reply.status_code, answer["ec"]) == (400, 401)
    assert answer["em"].startswith(f"{named}: ")


def test_a_charset_of_utf_8_is_fine(kit: Kit) -> None:
    for kind in ("application/json; charset=UTF-8", "Application/JSON;charset=utf8"):
        reply = kit.client.post(SUBMIT, data=json.dumps(message()), content_type=kind)
        assert reply.status_code == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"url=a&url=b", "url"),
        (b"topic_name=%ff", "body"),
        (b"topic_name=\xff", "body"),
        (b"&".join(b"f%d=1" % i for i in range(100)), "body"),
        (b"messages=%5B" + b"%5B" * 20_000, "messages"),
    ],
)
def test_forms_that_cannot_be_read(kit: Kit, body: bytes, named: str) -> None:
    kind = "application/x-www-form-urlencoded"
    reply = kit.client.post(BATCH, data=body, content_type=kind)
    answer = json.loads(reply.data)
    assert (reply.status_code, answer["ec"]) == (400, 401)
    assert answer["em"].startswith(f"{named}: ")


# ---------------------------------------------------------------------- over a socket

HEAD = (
    b"POST /sorakaq/msg/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n"
)
CHUNKED = HEAD % b"Transfer-Encoding: chunked"


def split(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the first answer; there must be no second one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    parsed: dict[str, Any] = json.loads(body)
    return int(head.split()[1]), parsed


def test_a_chunked_body_is_read(kit: Kit) -> None:
    body = json.dumps(message()).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
    head = HEAD % b"Transfer-Encoding: chunked\r\nConnection: close"
    with serving(kit) as address:
        status, answer = split(exchange(address, head, chunks, b"0\r\n\r\n"))
    assert (status, answer["ec"]) == (200, 200)


@pytest.mark.parametrize("size", [100_001, 150_000, 10**15])
def test_an_announced_body_over_the_limit(kit: Kit, size: int) -> None:
    sent = b"x" * min(size, 150_000)
    head = HEAD % (b"Connection: close\r\nContent-Length: %d" % size)
    with serving(kit) as address:
        status, answer = split(exchange(address, head, sent))
    assert (status, answer["ec"]) == (413, 413)
    assert answer["em"].startswith("body: ")


@pytest.mark.parametrize("size", [100_000, 100_001, 250_000])
def test_a_chunked_body_over_the_limit(kit: Kit, size: int) -> None:
    body = b'"' + b"x" * (size - 2) + b'"'
    with serving(kit) as address:
        head = HEAD % b"Transfer-Encoding: chunked\r\nConnection: close"
        status, answer = split(exchange(address, head, b"%x\r\n" % size, body, b"\r\n0\r\n\r\n"))
    assert (status, answer["ec"]) == ((400, 401) if size == 100_000 else (413, 413))
    assert answer["em"].startswith("body: ")


@pytest.mark.parametrize(
    "chunk", [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n\r\n", b"f" * 40 + b"\r\n", b"5;" + b"e" * 30_000]
)
def test_a_malformed_chunk_is_400(kit: Kit, chunk: bytes) -> None:
    with serving(kit) as address:
        status, answer = split(exchange(address, CHUNKED, chunk))
    assert (status, answer["ec"]) == (400, 401)
    assert answer["em"].startswith("body: ")


@pytest.mark.parametrize("head", [CHUNKED, HEAD % b"Content-Length: 500"])
def test_a_body_that_drips_is_cut_off(kit: Kit, head: bytes) -> None:
    started = time.monotonic()
    with serving(kit) as address:
        status, answer = split(exchange(address, head, b"5\r\n{"))
    assert (status, answer["ec"]) == (408, 401)
    assert answer["em"].startswith("body: ")
    assert 0.25 < time.monotonic() - started < 5


def test_another_transfer_encoding_is_refused(kit: Kit) -> None:
    with serving(kit) as address:
        head = HEAD % b"Transfer-Encoding: gzip, chunked"
        status, answer = split(exchange(address, head, b"POST / HTTP/1.1\r\n\r\n"))
    assert (status, answer["ec"]) == (400, 401)
    assert answer["em"].startswith("Transfer-Encoding: ")


def test_a_dripping_body_to_nowhere_is_not_waited_for(kit: Kit) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nxx"
    with serving(kit) as address:
        status, answer = split(exchange(address, head))
    assert (status, answer["em"].partition(":")[0]) == (404, "path")


def test_the_connection_serves_on_after_a_refused_request(kit: Kit) -> None:
    bad, good = b"nonsense", json.dumps(message()).encode()
    with serving(kit) as address:
        answer = exchange(
            address,
            (HEAD % (b"Content-Length: %d" % len(bad))) + bad,
            (HEAD % (b"Connection: close\r\nContent-Length: %d" % len(good))) + good,
        )
    assert answer.count(b"HTTP/1.1 400") == 1
    assert answer.count(b"HTTP/1.1 200") == 1


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Kit]:
    """Of the default size."""
    made = Kit(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("value", ["{}", "[]", "1", '{"a":1}'])
def test_a_body_of_very_many_values_is_refused_at_once(roomy: Kit, value: str) -> None:
    most = rules.max_values(roomy.config.receive)
    body = f'{{"messages":[{",".join([value] * (most + 1))}]}}'.encode()
    started = time.perf_counter()
    status, answer = post(roomy, BATCH, body)
    assert time.perf_counter() - started < 0.1
    assert (status, answer["ec"]) == (400, 401)
    assert answer["em"] == f"body: must hold at most {most} values"


def test_a_form_of_very_many_values_is_refused(roomy: Kit) -> None:
    most = rules.max_values(roomy.config.receive)
    form = roomy.client.post(BATCH, data={"messages": f"[{','.join('1' * (most + 1))}]"})
    assert json.loads(form.data)["em"] == f"messages: must hold at most {most} values"


def test_params_of_the_greatest_number_of_values_are_accepted(tmp_path: Path) -> None:
    with closing(Kit(tmp_path, max_batch=1)) as kit:
        params = {"a": [1] * 32_760}
        assert post(kit, SUBMIT, with_callback(params=params))[0] == 200


# ---------------------------------------------------------------------- operations


def test_health_and_metrics(kit: Kit) -> None:
    assert kit.client.get("/healthz").status_code == 200
    assert kit.client.get("/readyz").status_code == 200
    metrics = kit.client.get("/metrics")
    assert metrics.status_code == 200
    assert metrics.content_type.startswith("text/plain")
    assert b"# HELP soraka_requests_total" in metrics.data


def test_a_process_without_its_servers_is_not_ready_but_alive(kit: Kit) -> None:
    kit.parts.close()
    reply = kit.client.get("/readyz")
    assert (reply.status_code, json.loads(reply.data)["ec"]) == (503, 503)
    assert reply.headers["Retry-After"]
    assert json.loads(reply.data)["em"].startswith("no answer from: log")
    assert kit.client.get("/healthz").status_code == 200


def test_without_the_store_it_is_ready_for_submits(kit: Kit) -> None:
    kit.parts.store.close()
    assert kit.client.get("/readyz").status_code == 200
    assert post(kit, SUBMIT, message())[0] == 200
    order = {"topic_name": TOPIC, "msg_id": uuid7(kit.now_ms())}
    assert post(kit, CANCEL, order)[0] == 503


def test_the_openapi_document_names_every_operation_and_field(kit: Kit) -> None:
    document = json.loads(kit.client.get("/openapi.json").data)
    assert document["openapi"].startswith("3.1")
    paths = {rule.rule for rule in kit.app.url_map.iter_rules()}
    assert set(document["paths"]) == paths
    schemas = document["components"]["schemas"]
    assert set(schemas["Submission"]["properties"]) == {
        "topic_name", "delay_time", "deliver_at", "ttr", "callback", "retry", "msg_id",
        "idempotency_key",
    }  # fmt: skip
    for operation in document["paths"][SUBMIT].values():
        assert set(operation["responses"]) == {
            "200", "400", "401", "403", "404", "408", "409", "413", "500", "503"
        }  # fmt: skip
