"""The fields of the API: their names and types, for checking, for forms and for OpenAPI.

Ranges are checked where they are used; here they are only described.
"""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields

from admin_app.access import ROLES
from admin_app.audit import MAX_LISTED
from admin_app.bulk import ACTIONS, MAX_IDS
from admin_app.messages import MAX_PAGE, MAX_TOPICS, Filter
from admin_app.topics import CHOICES
from soraka.body import integer
from soraka.errors import InvalidParams
from soraka.fields import Flag, Int, KnownFields, Text, about
from soraka.limits import BALANCES, MAX_DELAY_MS, MAX_RETRIES, WEIGHTS
from soraka.message import State
from soraka.topics import (
    MAX_BUSINESS,
    MAX_DISPATCHES,
    MAX_RATE,
    MAX_RETENTION_MS,
    MAX_WORKERS,
    WHICH,
    check_name,
)

MS_MAX = 1 << 48
_FLAGS = {"true": True, "false": False}


def _name(description: str, *, required: bool = True) -> Text:
    """One that is blank counts as absent."""
    return Text(
        required=required,
        metadata=about(description, pattern=f"^[A-Za-z0-9._-]{{{int(required)},128}}$"),
    )


def _whole(description: str, most: int, *, least: int = 0, required: bool = False) -> Int:
    metadata = about(description, minimum=least, maximum=most)
    if required:
        return Int(required=True, metadata=metadata)
    return Int(allow_none=True, metadata=metadata)


def _texts(description: str, most: int | None = None, **more: Any) -> fields.List[Any]:
    bound = {} if most is None else {"maxItems": most}
    return fields.List(Text(metadata=more), allow_none=True, metadata=about(description, **bound))


class Nothing(KnownFields):
    """No fields."""


class TopicName(KnownFields):
    topic_name = _name("The topic.")


class TopicUpdate(TopicName):
    business = Text(allow_none=True, metadata=about("Whose it is.", maxLength=MAX_BUSINESS))
    worker_num = _whole(
        "How many live workers may hold its messages; 0: all. They are chosen when it changes.",
        MAX_WORKERS,
    )
    choose = Text(
        allow_none=True,
        metadata=about("Chooses them anew: at random, or by load.", enum=[*CHOICES, None]),
    )
    workers = _texts("These, as ip:port, in the place of worker_num.", MAX_WORKERS)
    balance = Text(allow_none=True, metadata=about("Choice of workers.", enum=[*BALANCES, None]))
    weigh_by = Text(allow_none=True, metadata=about("Weights.", enum=[*WEIGHTS, None]))
    retry = fields.List(
        Int(metadata={"minimum": 0, "maximum": MAX_DELAY_MS}),
        allow_none=True,
        metadata=about("ms before the next attempts.", maxItems=MAX_RETRIES),
    )
    max_concurrent_dispatches = _whole(
        "Its callbacks under way at one worker; 0: no limit.", MAX_DISPATCHES
    )
    max_dispatches_per_second = _whole(
        "Its callbacks begun per second by all workers together; 0: no limit.", MAX_RATE
    )
    retention_ms = _whole(
        "How long its finished messages are kept; 0: as configured, else at least a minute.",
        MAX_RETENTION_MS,
    )
    paused = Flag(allow_none=True, metadata=about("Whether its messages wait, as by pause."))


class TopicAdd(TopicUpdate):
    """A new topic."""


class SecretAdd(TopicName):
    secret = Text(
        allow_none=True,
        metadata=about(
            "One of your own: whsec_ and 24 to 64 bytes in base64. Default: a new one is made.",
            pattern="^whsec_[A-Za-z0-9+/]{32,86}={0,2}$",
        ),
    )


class SecretRemove(TopicName):
    which = Text(required=True, metadata=about("Of two, or all there are.", enum=list(WHICH)))


class InstanceAddress(KnownFields):
    instance = Text(required=True, metadata=about("ip:port", example="127.0.0.1:30002"))


class Service(KnownFields):
    service_name = Text(
        allow_none=True,
        metadata=about("Of this service. Default: all.", example="worker"),
    )


class OfInstance(InstanceAddress):
    start_time = _whole("Due from this time on, ms since the epoch. Default: 0.", MS_MAX)
    num = _whole("At most so many. Default: 100.", MAX_PAGE, least=1)


class MsgId(KnownFields):
    msg_id = Text(required=True, metadata=about("The message."))


class MsgCommand(MsgId):
    topic_name = _name("Its topic; looked up when absent.", required=False)
    command_id = Text(
        allow_none=True,
        metadata=about("Makes it idempotent.", pattern="^[A-Za-z0-9_-]{1,64}$"),
    )


class AddTime(MsgCommand):
    add_time = _whole("ms to postpone it by", MAX_DELAY_MS, least=1, required=True)


class Choice(KnownFields):
    """Which messages."""

    topics = _texts("Of these topics. Default: all.", MAX_TOPICS)
    topic_name = _name("The same as one of topics.", required=False)
    states = _texts("In one of these states. Default: any.", enum=[str(s) for s in State])
    since = _whole("Submitted from this time on, ms since the epoch.", MS_MAX)
    until = _whole("And before this one.", MS_MAX, least=1)
    prefix = Text(
        allow_none=True,
        metadata=about("Beginning of the msg_id.", pattern="^[0-9a-f-]{0,36}$"),
    )


class MsgQuery(Choice):
    cursor = Text(allow_none=True, metadata=about("Where to go on: of the answer before."))
    num = _whole("At most so many. Default: 50.", MAX_PAGE, least=1)


class BulkStart(Choice):
    action = Text(required=True, metadata=about("What to do.", enum=list(ACTIONS)))
    msg_ids = _texts("These messages, in the place of a filter.", MAX_IDS)
    all = Flag(
        allow_none=True,
        metadata=about(
            "Needed without msg_ids, topic, prefix and time span; states alone count not."
        ),
    )
    add_time = _whole("For postpone: by how many ms", MAX_DELAY_MS, least=1)


class JobId(KnownFields):
    job_id = Text(required=True, metadata=about("Of a bulk job."))


class MaybeJobId(KnownFields):
    job_id = Text(allow_none=True, metadata=about("Of a bulk job; without one all are listed."))


class Span(KnownFields):
    topic_name = _name("Of this topic. Default: of all.", required=False)
    since = _whole("From this minute on, ms since the epoch. Default: an hour ago.", MS_MAX)
    until = _whole("And before this one. Default: now.", MS_MAX, least=1)


class AccountName(KnownFields):
    name = Text(
        required=True, metadata=about("Its name.", pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
    )


def _role() -> Text:
    return Text(required=True, metadata=about("What it may do.", enum=list(ROLES)))


def _password(description: str) -> Text:
    return Text(required=True, metadata=about(description, minLength=10, maxLength=256))


class AccountRole(AccountName):
    role = _role()


class AccountPassword(AccountName):
    password = _password("Its new password.")


class AccountAdd(AccountPassword):
    role = _role()


class OwnPassword(KnownFields):
    old_password = Text(required=True, metadata=about("The password until now."))
    new_password = _password("The new one.")


class AuditList(KnownFields):
    num = _whole("At most so many. Default: 100.", MAX_LISTED, least=1)


def flat(schema: Schema, form: Mapping[str, str]) -> dict[str, Any]:
    """A form or query as the JSON it stands for; lists are comma-separated. What cannot be of its
    type, or is not known, stays as it is, for the schema to refuse."""
    return {
        name: _typed(schema.fields[name], text) if name in schema.fields else text
        for name, text in form.items()
    }


def _typed(field: fields.Field[Any], text: str) -> Any:
    if isinstance(field, Int):
        return integer(text)
    if isinstance(field, Flag):
        return _FLAGS.get(text.lower(), text)
    if isinstance(field, fields.List):
        return [_typed(field.inner, item.strip()) for item in text.split(",")]
    return text


def chosen(got: Mapping[str, Any]) -> Filter:
    """The filter in the fields of a Choice. Raises InvalidParams."""
    states = tuple(_state(index, text) for index, text in enumerate(got.get("states") or ()))
    usual = Filter()
    since, until = got.get("since"), got.get("until")
    topics, topic = tuple(got.get("topics") or ()), got.get("topic_name")
    if topics and topic:
        raise InvalidParams("topic_name", "give topic_name or topics, not both")
    if topic:
        check_name(topic)
    return Filter(
        topics=(topic,) if topic else topics,
        states=states,
        since=usual.since if since is None else since,
        until=usual.until if until is None else until,
        prefix=got.get("prefix") or "",
    )


def _state(index: int, text: str) -> State:
    try:
        return State(text)
    except ValueError:
        allowed = ", ".join(State)
        raise InvalidParams(f"states.{index}", f"must be one of {allowed}") from None
