"""Fields of the HTTP APIs, strict in their types; marshmallow's errors as ours.

Those that a schema does not know are ignored by Fields: clients of the earlier system may send
more than we read. KnownFields refuses them: without a misspelt one a call could change more than
was meant.
A null in an optional field counts as absent.

marshmallow takes 20 µs for a submission, most of which are right as they are: `Fields.passes` says
so in two, and whatever does not pass is for marshmallow to judge.
"""

from collections.abc import Callable
from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields

from soraka.errors import InvalidParams


class Int(fields.Integer):
    """A JSON integer: no text, no 1000.0, no true."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if type(value) is not int:
            raise self.make_error("invalid")
        return value

    def passes(self, value: Any) -> bool:
        return type(value) is int


class Text(fields.String):
    """JSON may have half of a surrogate pair, which is no text to anything behind us."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if type(value) is not str:
            raise self.make_error("invalid")
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise self.make_error("invalid_utf8") from exc
        return value

    def passes(self, value: Any) -> bool:
        return type(value) is str and value.isascii()


class Anything(fields.Raw):
    def passes(self, _value: Any) -> bool:
        return True


class Flag(fields.Boolean):
    """true or false, and no other word for them."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if type(value) is not bool:
            raise self.make_error("invalid", input=value)
        return value


class Fields(Schema):
    """Its fields take a value as it is or refuse it: none is changed, none filled in."""

    class Meta:
        unknown = EXCLUDE

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._checks = [(n, f.required, f.allow_none, _check(f)) for n, f in self.fields.items()]

    def passes(self, data: Any) -> bool:
        """Whether all of it is right. When not, it may be nevertheless."""
        if type(data) is not dict:
            return False
        for name, is_required, may_be_none, check in self._checks:
            value = data.get(name, self)
            if value is self:
                if is_required:
                    return False
            elif not (check(value) or (value is None and may_be_none)):
                return False
        return True


class KnownFields(Schema):
    error_messages: dict[str, str] = {"unknown": "there is no such field here"}  # noqa: RUF012

    class Meta:
        unknown = RAISE


def about(description: str, **more: Any) -> dict[str, Any]:
    """Metadata of a field, for OpenAPI."""
    return {"description": description, **more}


def load(schema: Schema, data: Any) -> dict[str, Any]:
    """The fields of `data`, and maybe more. Raises InvalidParams that names the first wrong one."""
    if isinstance(schema, Fields) and schema.passes(data):
        return data  # type: ignore[no-any-return]
    try:
        loaded: dict[str, Any] = schema.load(data)
    except ValidationError as exc:
        raise InvalidParams(*_first("", exc.messages)) from exc
    return loaded


def _check(field: Any) -> Callable[[Any], bool]:
    """What passes a field that is ours, or a nested one or a list of them."""
    if isinstance(field, fields.Nested):
        return _check(field.schema)
    if isinstance(field, fields.List):
        each = _check(field.inner)
        return lambda value: type(value) is list and all(map(each, value))
    passes: Callable[[Any], bool] = field.passes
    return passes


def _first(path: str, messages: Any) -> tuple[str, str]:
    """The first error in marshmallow's tree: its dotted path and the reason."""
    while isinstance(messages, dict):
        name, messages = next(iter(messages.items()))
        if name != "_schema":
            path = f"{path}.{name}" if path else str(name)
    reason = messages[0] if isinstance(messages, list) else str(messages)
    return path or "body", reason
