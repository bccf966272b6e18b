"""The HTTP API as an OpenAPI 3.1 document, out of the schemas that check it."""

from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from receive_app import schemas
from soraka import __version__
from soraka.config import ReceiveConfig
from soraka.message import State

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_SUBMISSION = {
    "topic_name": "orders",
    "delay_time": 60_000,
    "callback": {
        "request_type": "POST",
        "url": "http://127.0.0.1:8000/hello",
        "params": {"order": 123},
    },
}
_COMMAND = {"topic_name": "orders", "msg_id": schemas.EXAMPLE_ID}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "Submission": _SUBMISSION,
    "Batch": {"messages": [_SUBMISSION]},
    "Cancel": _COMMAND,
    "AddTime": {**_COMMAND, "add_time": 60_000},
    "Get": {"msg_id": schemas.EXAMPLE_ID},
}
_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]*[!-~])?$", "maxLength": 128},
    "description": "As the field idempotency_key.",
}
_REFUSALS = {
    "401": "ec 406: a token is needed, as Authorization: Bearer, or this one is none of ours.",
    "403": "ec 410: the token has no right to do this on this topic.",
    "400": "Wrong: ec 401 (em names the field), 402 reserved topic name, 501 delay over 7 days.",
    "404": "ec 407 the topic does not exist, ec 405 the message does not.",
    "408": "ec 401: the body did not arrive in time.",
    "409": "ec 409, too late: it is being called, was called, was cancelled, or is dead. "
    "ec 414: the idempotency key was sent before, with another message.",
    "413": "ec 413: the body is too large.",
    "500": "ec 500: an error of ours, unknown whether it took effect.",
    "503": "ec 503: unknown whether it was accepted; send again, with the same ids.",
}


def document(limits: ReceiveConfig) -> dict[str, Any]:
    """The whole document, with these limits."""
    spec = APISpec(
        title="soraka receive",
        version=__version__,
        openapi_version="3.1.0",
        info={"description": "Submit, cancel and postpone delayed HTTP callbacks."},
        plugins=[MarshmallowPlugin()],
    )
    _add_components(spec, limits)
    ok = {"type": "boolean", "const": True}
    msg_id = {"type": "object", "required": ["msgId"], "properties": {"msgId": {"type": "string"}}}
    info = {"$ref": "#/components/schemas/MessageInfo"}
    results = {"type": "array", "items": {"$ref": "#/components/schemas/BatchResult"}}
    for path, schema, result, about in (
        ("submit", "Submission", msg_id, "Accepts one message; it is durable on return"),
        ("submitBatch", "Batch", results, "Accepts many; good ones although others are refused"),
        ("cancel", "Cancel", ok, "On return the message is called no more"),
        ("addTime", "AddTime", ok, "Moves the due time later"),
        ("get", "Get", info, "Where a message is"),
    ):
        operation = _operation(path, schema, _envelope(result), about)
        if path == "submit":
            operation["parameters"] = [_KEY]
        spec.path(path=f"/sorakaq/msg/{path}", operations={"post": operation})
    _add_operations(spec)
    whole: dict[str, Any] = spec.to_dict()
    return whole


def _add_components(spec: APISpec, limits: ReceiveConfig) -> None:
    add, known = spec.components.schema, spec.components.schemas
    add("Callback", schema=schemas.CallbackSchema)
    add("Submission", schema=schemas.SubmissionSchema)
    add("Cancel", schema=schemas.CancelSchema)
    add("AddTime", schema=schemas.AddTimeSchema)
    add("Get", schema=schemas.GetSchema)
    add("Batch", schema=schemas.BatchSchema)
    known["Callback"]["properties"]["url"]["maxLength"] = limits.max_url_length
    known["Callback"]["properties"]["params"]["type"] = ["object", "string", "null"]
    known["Submission"]["properties"]["ttr"]["maximum"] = limits.max_ttr_ms
    known["Submission"]["anyOf"] = [{"required": ["delay_time"]}, {"required": ["deliver_at"]}]
    known["Batch"]["properties"]["messages"].update(
        items={"$ref": "#/components/schemas/Submission"}, maxItems=limits.max_batch
    )
    add("BatchResult", _batch_result())
    add("MessageInfo", _message_info())
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    add("Refusal", _envelope({"type": "null"}))
    add("SubmissionForm", _flat(known["Submission"], known["Callback"]))


def _envelope(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["ec", "em", "result"],
        "properties": {"ec": {"type": "integer"}, "em": {"type": "string"}, "result": result},
    }


def _batch_result() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["ec", "em", "msgId"],
        "properties": {
            "ec": {"type": "integer"},
            "em": {"type": "string"},
            "msgId": {"type": "string", "description": "Empty unless ec is 200."},
        },
    }


def _message_info() -> dict[str, Any]:
    text, integer = {"type": "string"}, {"type": "integer"}
    fields = {
        "msg_id": text,
        "topic_name": text,
        "state": {"enum": [state.value for state in State]},
        "created_at": integer,
        "due_at": integer,
        "attempt": {**integer, "description": "Attempts begun so far."},
        "owner": {**text, "description": "The worker that holds it; - while there is none."},
        "ttr": integer,
        "callback": {"$ref": "#/components/schemas/Callback"},
    }
    at_times = {"lease_until": integer, "finished_at": integer, "reason": text}
    return {"type": "object", "required": list(fields), "properties": {**fields, **at_times}}


def _flat(submission: dict[str, Any], callback: dict[str, Any]) -> dict[str, Any]:
    """A submission as a form has it: without nesting, lists comma-separated."""
    fields = {**submission["properties"], **callback["properties"]}
    del fields["callback"]
    return {
        "type": "object",
        "required": ["topic_name", *callback["required"]],
        "properties": {
            **fields,
            "params": {"type": "string", "description": "A JSON object as text."},
            "retry": {"type": "string", "description": "ms, comma-separated."},
        },
    }


def _operation(name: str, schema: str, answer: dict[str, Any], about: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        _JSON: {
            "schema": {"$ref": f"#/components/schemas/{schema}"},
            "example": _EXAMPLES[schema],
        }
    }
    form = {"Submission": "SubmissionForm", "Batch": None}.get(schema, schema)
    if form is not None:
        content[_FORM] = {"schema": {"$ref": f"#/components/schemas/{form}"}}
    return {
        "operationId": name,
        "summary": about,
        "security": [{}, {"token": []}],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _response("Done: ec 200.", answer), **_refusals(*_REFUSALS)},
    }


def _refusals(*statuses: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Refusal"}
    return {status: _response(_REFUSALS[status], schema) for status in statuses}


def _response(about: str, schema: dict[str, Any], kind: str = _JSON) -> dict[str, Any]:
    return {"description": about, "content": {kind: {"schema": schema}}}


def _add_operations(spec: APISpec) -> None:
    ok = _envelope({"type": "boolean", "const": True})
    turns = _envelope({"type": "object", "required": ["last_turn_ms"]})
    text, whole = {"type": "string"}, {"type": "object"}
    for path, about, responses in (
        ("/healthz", "Its loops turn", {"200": _response("Yes.", turns), **_refusals("503")}),
        ("/readyz", "The log answers", {"200": _response("Yes.", ok), **_refusals("503")}),
        ("/metrics", "For Prometheus", {"200": _response("Text.", text, "text/plain")}),
        ("/openapi.json", "This document", {"200": _response("It.", whole)}),
    ):
        spec.path(path=path, operations={"get": {"summary": about, "responses": responses}})
