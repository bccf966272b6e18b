"""The JSON API as an OpenAPI 3.1 document, out of the schemas that check it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from admin_app.auth import PREFIX
from soraka import __version__

if TYPE_CHECKING:
    from admin_app.api import Operation

_JSON = "application/json"
_REFUSALS = {
    "400": "Wrong: ec 401 (em names the field), 402 reserved topic name, 403 no such service, "
    "404 too many messages asked for, 501 delay over 7 days.",
    "401": "ec 406: no login, or a wrong one.",
    "403": "ec 410: not allowed to this role, or the CSRF token is missing.",
    "404": "ec 407 the topic does not exist, ec 405 the message does not.",
    "408": "ec 401: the body did not arrive in time.",
    "409": "ec 409 too late, or ec 412 not as things are: it exists, has pending messages, "
    "is part of a standalone.",
    "413": "ec 413: the body is too large.",
    "429": "ec 429: too many attempts; see Retry-After.",
    "500": "ec 500: an error of ours, unknown whether it took effect.",
    "503": "ec 503: not known whether it took effect; send again.",
}


def document(operations: Sequence["Operation"]) -> dict[str, Any]:
    """The whole document."""
    spec = APISpec(
        title="soraka admin",
        version=__version__,
        openapi_version="3.1.0",
        info={"description": "Topics, instances, messages and monitoring of soraka."},
        plugins=[MarshmallowPlugin()],
        security=[{"token": []}],
    )
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    spec.components.schema("Refusal", _envelope({"type": "null"}))
    spec.components.schema("Answer", _envelope({}))
    for operation in operations:
        spec.path(
            path=f"{PREFIX}{operation.path}",
            operations={operation.method.lower(): _described(operation)},
        )
    whole: dict[str, Any] = spec.to_dict()
    return whole


def _described(operation: "Operation") -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.about,
        "responses": {
            "200": _response("Done: ec 200.", "Answer"),
            **{status: _response(about, "Refusal") for status, about in _REFUSALS.items()},
        },
    }
    if operation.method == "GET":
        described["parameters"] = [{"in": "query", "schema": operation.schema}]
    else:
        described["requestBody"] = {"required": True, "content": _content(operation.schema)}
    return described


def _content(schema: Schema) -> dict[str, Any]:
    return {_JSON: {"schema": schema}}


def _response(about: str, schema: str) -> dict[str, Any]:
    content = {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": about, "content": content}


def _envelope(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["ec", "em", "result"],
        "properties": {"ec": {"type": "integer"}, "em": {"type": "string"}, "result": result},
    }
