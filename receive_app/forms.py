"""A form as the JSON it stands for: the callback is flat in it, lists are comma-separated."""

from typing import Any

from soraka.body import integer, json_value

_INTEGERS = ("delay_time", "deliver_at", "ttr", "add_time")
_CALLBACK = ("request_type", "url", "params")


def nested(form: dict[str, str], max_values: int) -> dict[str, Any]:
    """Raises InvalidParams when `messages` is not JSON."""
    fields: dict[str, Any] = dict(form)
    for name in _INTEGERS:
        if name in form:
            fields[name] = integer(form[name])
    if "retry" in form:
        fields["retry"] = [integer(item.strip()) for item in form["retry"].split(",")]
    if "messages" in form:
        fields["messages"] = json_value("messages", form["messages"], max_values)
    callback = {name: fields.pop(name) for name in _CALLBACK if name in form}
    if callback:
        fields["callback"] = callback
    return fields
