"""What msgspec reads of a schema is what marshmallow would take."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from receive_app import schemas
from soraka.errors import InvalidParams
from soraka.fields import Fields
from tests.unit.receive_kit import URL

values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800")
lists = st.lists(st.integers() | values, max_size=3)
callbacks = st.fixed_dictionaries(
    {"request_type": st.just("POST") | values, "url": st.just(URL) | values},
    optional={"params": st.dictionaries(st.text(), values, max_size=2) | values},
)
submissions = st.fixed_dictionaries(
    {"topic_name": st.just("orders") | values, "callback": callbacks | values},
    optional={
        "delay_time": st.integers() | values,
        "deliver_at": st.integers() | values,
        "ttr": st.integers() | values,
        "retry": lists | values,
        "msg_id": st.text() | values,
        "idempotency_key": st.text() | values,
        "unknown": values,
    },
)


def loaded(schema: Fields, data: Any) -> dict[str, Any] | None:
    try:
        fields: dict[str, Any] = schema.load(data)
    except ValidationError:
        return None
    return fields


def halves(value: Any) -> Any:
    """Half of a surrogate pair is for the rules to refuse."""
    if isinstance(value, dict):
        return {halves(key): halves(inner) for key, inner in value.items()}
    return "half" if value == "\ud800" else value


@given(submissions)
def test_what_is_read_is_what_marshmallow_takes(data: dict[str, Any]) -> None:
    try:
        got = schemas.SUBMISSION.read(data)
    except InvalidParams:
        assert loaded(schemas.SUBMISSION, data) is None
        return
    assert loaded(schemas.SUBMISSION, halves(data)) is not None
    for name in schemas.SUBMISSION.fields:
        if name != "callback":
            assert getattr(got, name) == data.get(name)
    for name in schemas.CallbackSchema().fields:
        assert getattr(got.callback, name) == data["callback"].get(name)


def test_plain_submissions_need_no_marshmallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each would take ten times as long."""
    monkeypatch.setattr(Fields, "load", None)
    callback = {"request_type": "POST", "url": URL, "params": {"name": "é"}}
    data = {
        "topic_name": "orders",
        "delay_time": 1,
        "callback": callback,
        "retry": [1],
        "ttr": None,
    }
    got = schemas.SUBMISSION.read(data)
    assert (got.callback.params, got.retry, got.ttr, got.msg_id) == ({"name": "é"}, [1], None, None)
    assert schemas.BATCH.read({"messages": [data, 1]}).messages == [data, 1]
    assert schemas.CANCEL.read({"topic_name": "orders", "msg_id": "x"}).msg_id == "x"


@pytest.mark.parametrize("wrong", [{"topic_name": "orders"}, [], None, "x"])
def test_what_is_wrong_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidParams):
        schemas.CANCEL.read(wrong)
