"""The fields of the HTTP API: their names and types, for checking and for OpenAPI.

Ranges and forms are checked by `rules`, for Thrift too; here they are only described.
"""

from collections.abc import Mapping
from typing import Any

from marshmallow import fields

from receive_app.rules import params_text
from soraka.errors import InvalidParams
from soraka.fields import Anything, Fields, Int, Text, about
from soraka.limits import DEFAULT_TTR_MS, MAX_DELAY_MS, MAX_RETRIES
from soraka.message import Callback, Submission

_UUID7 = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"


class Params(fields.Field[Any]):
    """A JSON object, or a text that holds one."""

    KIND: Any = dict | str

    default_error_messages = {"invalid": "Not a valid object."}  # noqa: RUF012 as the base has it

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, dict | str):
            raise self.make_error("invalid")
        return value


def _topic_name() -> Text:
    return Text(
        required=True,
        metadata=about("An existing topic.", pattern="^[A-Za-z0-9._-]+$", maxLength=128),
    )


def _msg_id() -> Text:
    # no pattern: any text is a question, answered with ec 405
    return Text(required=True, metadata=about("The message.", example=EXAMPLE_ID))


def _command_id() -> Text:
    return Text(
        allow_none=True,
        metadata=about(
            "Makes the command idempotent. Send it again, with the same id, after a 503.",
            pattern="^[A-Za-z0-9_-]+$",
            minLength=1,
            maxLength=64,
        ),
    )


EXAMPLE_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class CallbackSchema(Fields):
    request_type = Text(
        required=True,
        metadata=about("GET or POST.", pattern="^([Gg][Ee][Tt]|[Pp][Oo][Ss][Tt])$"),
    )
    url = Text(
        required=True,
        metadata=about(
            "http or https, ASCII, without user name and password.",
            pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
            r"(:[0-9]{1,5})?([/?#][!-~]*)?$",
            example="http://127.0.0.1:8000/hello",
        ),
    )
    params = Params(
        allow_none=True,
        metadata=about(
            "A JSON object, or a text that holds one: the body of a POST, the query of a GET."
        ),
    )


class SubmissionSchema(Fields):
    """One message to be called back later: delay_time or deliver_at, not both."""

    topic_name = _topic_name()
    delay_time = Int(
        allow_none=True,
        metadata=about("ms from now on", minimum=0, maximum=MAX_DELAY_MS),
    )
    deliver_at = Int(
        allow_none=True,
        metadata=about(
            "ms since the epoch, at most 7 days from now. One in the past means at once.",
            minimum=0,
        ),
    )
    ttr = Int(
        allow_none=True,
        metadata=about(
            "Time to respond, ms: the deadline of a call.", minimum=1, default=DEFAULT_TTR_MS
        ),
    )
    callback = fields.Nested(CallbackSchema, required=True)
    retry = fields.List(
        Int(metadata={"minimum": 0, "maximum": MAX_DELAY_MS}),
        allow_none=True,
        metadata=about(
            "ms before the next attempts; empty: one attempt. Default: the topic's.",
            maxItems=MAX_RETRIES,
        ),
    )
    msg_id = Text(
        allow_none=True,
        metadata=about(
            "A UUIDv7 of your own, made just now: by default at most 10 minutes ago. Sent again, "
            "the message is still one.",
            pattern=_UUID7,
        ),
    )
    idempotency_key = Text(
        allow_none=True,
        metadata=about(
            "Sent again under the same key, by default within 10 minutes, the message is still "
            "one. Also as the header Idempotency-Key.",
            pattern="^[ -~]+$",
            minLength=1,
            maxLength=128,
        ),
    )


class BatchSchema(Fields):
    messages = fields.List(
        Anything(allow_none=True), required=True, metadata=about("Submissions.", minItems=1)
    )


class CancelSchema(Fields):
    topic_name = _topic_name()
    msg_id = _msg_id()
    command_id = _command_id()


class AddTimeSchema(Fields):
    topic_name = _topic_name()
    msg_id = _msg_id()
    add_time = Int(
        required=True,
        metadata=about("ms to postpone it by", minimum=1, maximum=MAX_DELAY_MS),
    )
    command_id = _command_id()


class GetSchema(Fields):
    msg_id = _msg_id()


SUBMISSION = SubmissionSchema()
BATCH = BatchSchema()
CANCEL = CancelSchema()
ADD_TIME = AddTimeSchema()
GET = GetSchema()


def submission(data: Any, max_params_bytes: int) -> Submission:
    """Of a JSON object. Raises InvalidParams; but for params, ranges are not yet checked."""
    if not isinstance(data, Mapping):
        raise InvalidParams("message", "must be a JSON object")
    got = SUBMISSION.read(data)
    callback, ttr, retry = got.callback, got.ttr, got.retry
    method = callback.request_type.upper()
    return Submission(
        topic=got.topic_name,
        callback=Callback(
            method=method,
            url=callback.url,
            params=params_text(callback.params, method, max_params_bytes),
        ),
        delay_ms=got.delay_time,
        deliver_at=got.deliver_at,
        ttr_ms=DEFAULT_TTR_MS if ttr is None else ttr,
        retry_ms=None if retry is None else tuple(retry),
        msg_id=got.msg_id,
        idempotency_key=got.idempotency_key,
    )
