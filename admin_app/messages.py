"""Messages: found, looked at, and changed one by one. Ports only."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from soraka.commands import Commands, not_found
from soraka.errors import InvalidParams, TooManyMessages
from soraka.message import Attempt, State, Stored, Topic, id_time_ms, parked_topic
from soraka.ports import FullStore, Query, Registry
from soraka.topics import check_instance

MAX_PAGE = 500
MAX_TOPICS = 1000
FOREVER = 1 << 48
"""Later than any due time."""
_PREFIX = re.compile(r"[0-9a-f-]{0,36}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which messages. No topics: those of all; no states: in any. `since` and `until` are by the
    time of the submit, ms since the epoch; `prefix` begins the id."""

    topics: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    since: int = 0
    until: int = FOREVER
    prefix: str = ""


class Page(NamedTuple):
    """`cursor` leads on to the next one; empty after the last. A page may be short and yet not
    the last."""

    messages: list[Stored]
    cursor: str


class Detail(NamedTuple):
    """`topic` is None when it was deleted."""

    stored: Stored
    history: list[Attempt]
    topic: Topic | None


class Held(NamedTuple):
    """Unfinished messages of an instance from a time on: how many in all, how many of them are
    after this list, and the due time to go on from."""

    total: int
    remain: int
    messages: list[Stored]
    end_time: int


class Messages:
    def __init__(self, store: FullStore, registry: Registry, commands: Commands) -> None:
        self._store = store
        self._registry = registry
        self._commands = commands

    def search(self, chosen: Filter, cursor: str = "", limit: int = 50) -> Page:
        """The latest first. Raises InvalidParams, TooManyMessages, StoreUnavailable."""
        check_limit("num", limit)
        if cursor and id_time_ms(cursor) is None:
            raise InvalidParams("cursor", "must be one that a search has returned")
        query = self.query(chosen)
        if not query.topics:
            return Page([], "")
        found, following = self._store.search(query, cursor, limit)
        return Page(list(found), following)

    def query(self, chosen: Filter) -> Query:
        """For the store. Raises InvalidParams, StoreUnavailable."""
        if not _PREFIX.fullmatch(chosen.prefix):
            raise InvalidParams("prefix", "must be the beginning of a msg_id: 0-9, a-f and -")
        if chosen.since < 0 or not chosen.since < chosen.until <= FOREVER:
            raise InvalidParams("until", f"must be after since, and at most {FOREVER}")
        if len(chosen.topics) > MAX_TOPICS:
            raise InvalidParams("topics", f"must be at most {MAX_TOPICS}")
        topics = chosen.topics or self._all_topics()
        states = chosen.states or tuple(State)
        return Query(tuple(topics), states, chosen.since, chosen.until, chosen.prefix)

    def detail(self, msg_id: str) -> Detail:
        """Raises MessageNotFound, StoreUnavailable."""
        stored = self._get(msg_id)
        topic = self._registry.topics().get(stored.message.topic)
        return Detail(stored, self._store.history(msg_id), topic)

    def of_instance(self, instance: str, start_time: int, num: int) -> Held:
        """The soonest first; none of an instance that is not known. `instance` may be the owner of
        a paused topic's too. Raises InvalidParams, TooManyMessages, StoreUnavailable."""
        if parked_topic(instance) is None:
            check_instance(instance)
        check_limit("num", num)
        if not 0 <= start_time <= FOREVER:
            raise InvalidParams("start_time", f"must be from 0 to {FOREVER} ms since the epoch")
        due = self._store.due(instance, FOREVER, num, since=start_time)
        stored = self._store.get([item.msg_id for item in due])
        total = max(len(due), self._store.count_due(instance, start_time))
        end_time = due[-1].due_at if due else start_time
        return Held(total, total - len(due), [s for s in stored if s is not None], end_time)

    def cancel(self, msg_id: str, topic: str = "", command_id: str | None = None) -> None:
        """On return it is called no more. With no `topic` its own is looked up. Raises
        InvalidParams, TopicNotFound, MessageNotFound, TooLate, Unavailable."""
        self._commands.cancel(self._topic_of(msg_id, topic), msg_id, command_id)

    def postpone(
        self, msg_id: str, add_ms: int, topic: str = "", command_id: str | None = None
    ) -> None:
        """Raises as `cancel`."""
        self._commands.add_time(self._topic_of(msg_id, topic), msg_id, add_ms, command_id)

    def fire_now(self, msg_id: str, topic: str = "", command_id: str | None = None) -> None:
        """Due now; while its topic is paused it waits all the same. Raises as `cancel`."""
        self._commands.fire_now(self._topic_of(msg_id, topic), msg_id, command_id)

    def redrive(self, msg_id: str, topic: str = "", command_id: str | None = None) -> None:
        """A dead letter is called again, with all its retries. Raises as `cancel`."""
        self._commands.redrive(self._topic_of(msg_id, topic), msg_id, command_id)

    def _topic_of(self, msg_id: str, topic: str) -> str:
        return topic or self._get(msg_id).message.topic

    def _get(self, msg_id: str) -> Stored:
        if id_time_ms(msg_id) is None:
            raise not_found()
        (stored,) = self._store.get([msg_id])
        if stored is None:
            raise not_found()
        return stored

    def _all_topics(self) -> list[str]:
        """Those that were deleted too, as long as there are messages of them."""
        return sorted({*self._registry.topics(), *self._store.counts()})


def check_limit(field: str, limit: int) -> None:
    """Raises InvalidParams, TooManyMessages."""
    if limit < 1:
        raise InvalidParams(field, f"must be from 1 to {MAX_PAGE}")
    if limit > MAX_PAGE:
        raise TooManyMessages(field, f"must be at most {MAX_PAGE}")
