"""What passes a schema is what marshmallow would take as it is."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from receive_app import schemas
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


@given(submissions)
def test_what_passes_is_taken_as_it_is(data: dict[str, Any]) -> None:
    if schemas.SUBMISSION.passes(data):
        known = {name: value for name, value in data.items() if name in schemas.SUBMISSION.fields}
        assert loaded(schemas.SUBMISSION, data) == known


def test_plain_submissions_pass() -> None:
    """Or each would take ten times as long."""
    callback = {"request_type": "POST", "url": URL, "params": {"name": "é"}}
    data = {
        "topic_name": "orders",
        "delay_time": 1,
        "callback": callback,
        "retry": [1],
        "ttr": None,
    }
    assert schemas.SUBMISSION.passes(data)
    assert schemas.BATCH.passes({"messages": [data, 1]})
    assert schemas.CANCEL.passes({"topic_name": "orders", "msg_id": "x"})
    assert not schemas.CANCEL.passes({"topic_name": "orders"})
    assert not schemas.SUBMISSION.passes([data])
