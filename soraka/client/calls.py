"""The client: each call is sent again, to the next server, until there is an answer."""

import ssl
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uuid_utils

from soraka import profiles
from soraka.client.batches import TooMany, groups, is_too_many, submitted
from soraka.client.failures import Again
from soraka.client.messages import (
    Fields,
    MessageInfo,
    NewMessage,
    Submitted,
    fields_of,
    info_of,
    milliseconds,
)
from soraka.client.patience import Patience
from soraka.client.servers import Transport, connect
from soraka.errors import InvalidParams, SorakaError

MAX_RETRY_FOR_S = 300.0
"""An id of ours is accepted for ten minutes; sent again after that, it would be refused although
the message is there."""
MAX_BATCH = 1000


class Client:
    """`url` is that of a receive, or several: http://, https://, thrift:// or thrifts:// (Thrift
    over TLS), with host and port. The first that answers is used until it does not.

    `token` is needed where the server asks for one. `timeout` is in seconds, for each wait on the
    network. A call without a definite answer is sent again for up to `retry_for` seconds (0: not
    at all), which is safe: every submit has an id or a key, every command an id. Then it raises
    Unavailable: it is not known whether it took effect.

    Safe for use by threads and greenlets; make one for each process.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retry_for: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` replaces the default, which trusts the system's certificates. Raises
        ValueError."""
        if not 0 <= retry_for <= MAX_RETRY_FOR_S:
            raise ValueError(f"retry_for: must be from 0 to {MAX_RETRY_FOR_S:g} seconds")
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ValueError("url: must be at least one")
        self._servers: list[Transport] = [connect(one, token, timeout, tls) for one in urls]
        self._at = 0
        self._retry_for = retry_for
        self._max_batch = MAX_BATCH
        self._own_ids = True

    @classmethod
    def from_profile(cls, name: str | None = None, file: Path | None = None, **other: Any) -> Self:
        """With the address, token and authority of a profile, as the `soraka` command has them: by
        default that of SORAKA_PROFILE in the environment, or `default`. Raises ConfigError."""
        found = profiles.load(name, file)
        return cls(found.client_url, **{"token": found.token, "tls": found.trusted(), **other})

    def submit(
        self,
        topic: str,
        url: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        params: Mapping[str, Any] | None = None,
        method: str = "POST",
        ttr: timedelta | None = None,
        retry: Sequence[timedelta] | None = None,
        msg_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Has `url` called, see NewMessage; the message id, once the message is durable.

        Raises InvalidParams, TopicNotFound, KeyReused, NotAuthenticated, NotAllowed, Unavailable;
        ValueError or TypeError for what cannot be sent.
        """
        message = NewMessage(
            topic=topic,
            url=url,
            delay=delay,
            at=at,
            params=params,
            method=method,
            ttr=ttr,
            retry=retry,
            msg_id=msg_id,
            idempotency_key=idempotency_key,
        )
        return str(self._submit(fields_of(message))["msgId"])

    def submit_batch(self, messages: Iterable[NewMessage]) -> list[Submitted]:
        """Any number of messages, sent in groups as large as the server takes them; one answer
        each, in their order. Those of which nothing is known are sent again, they alone.

        Raises ValueError or TypeError for a message that cannot be sent; those of the groups
        before are submitted by then.
        """
        answers: list[Submitted] = []
        for group in groups(map(fields_of, messages), lambda: self._max_batch):
            answers += self._submit_group(group, list(map(self._identified, group)))
        return answers

    def cancel(self, topic: str, msg_id: str, *, command_id: str | None = None) -> None:
        """On return the message is called no more. Raises MessageNotFound, TooLate,
        TopicNotFound, InvalidParams, NotAuthenticated, NotAllowed, Unavailable."""
        self._call("cancel", _command(topic, msg_id, command_id))

    def postpone(
        self, topic: str, msg_id: str, by: timedelta, *, command_id: str | None = None
    ) -> None:
        """Moves the due time later; once, however often it is sent. Raises as `cancel`."""
        fields = _command(topic, msg_id, command_id)
        self._call("addTime", {**fields, "add_time": milliseconds(by)})

    def get(self, msg_id: str) -> MessageInfo:
        """Where a message is. Raises MessageNotFound: also for a moment after its submit;
        NotAuthenticated, NotAllowed, Unavailable."""
        return info_of(self._call("get", {"msg_id": msg_id}))

    def close(self) -> None:
        """Closes idle connections. Safe to repeat."""
        for server in self._servers:
            server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(self, given: Fields) -> Any:
        sent = self._identified(given)
        patience = Patience(self._retry_for, len(self._servers))
        try:
            return self._call("submit", sent, patience)
        except InvalidParams as exc:
            other = self._otherwise(given, sent, exc, patience)
            if other is None:
                raise
            return self._call("submit", other, patience)

    def _call(self, operation: str, fields: Fields, patience: Patience | None = None) -> Any:
        """The result."""
        patience = patience or Patience(self._retry_for, len(self._servers))
        while True:
            try:
                return self._once(operation, fields)
            except Again as exc:
                patience.wait(exc)

    def _once(self, operation: str, fields: Fields) -> Any:
        at = self._at
        try:
            return self._servers[at].call(operation, fields)
        except Again:
            self._at = (at + 1) % len(self._servers)
            raise

    def _submit_group(self, given: Sequence[Fields], sent: Sequence[Fields]) -> list[Submitted]:
        """One answer each; in smaller groups when the server asks for that. `sent` are the given
        ones as they are sent."""
        sent, answers = list(sent), [Submitted("")] * len(sent)
        patience = Patience(self._retry_for, len(self._servers))
        waiting = list(range(len(sent)))
        while waiting:
            try:
                found = self._ask([sent[i] for i in waiting])
            except TooMany:
                self._max_batch = half = len(sent) // 2
                parts = (slice(half), slice(half, None))
                return [a for part in parts for a in self._submit_group(given[part], sent[part])]
            again, unknown = [], list[Again]()
            for i, answer in zip(waiting, found, strict=True):
                answers[i] = answer
                if isinstance(answer.error, Again):
                    unknown.append(answer.error)
                    again.append(i)
                elif other := self._otherwise(given[i], sent[i], answer.error, patience):
                    sent[i] = other
                    again.append(i)
            if unknown and not patience.waits(unknown[0]):
                break
            waiting = again
        return answers

    def _ask(self, fields: Sequence[Fields]) -> list[Submitted]:
        """One answer each. Raises TooMany."""
        try:
            return list(map(submitted, self._once("submitBatch", {"messages": fields})))
        except SorakaError as exc:
            if is_too_many(exc) and len(fields) > 1:
                raise TooMany from exc
            return [Submitted("", exc)] * len(fields)

    def _identified(self, fields: Fields) -> Fields:
        """With what makes it safe to be sent again."""
        if "msg_id" in fields or "idempotency_key" in fields:
            return fields
        if self._own_ids:
            return {**fields, "msg_id": str(uuid_utils.uuid7())}
        return {**fields, "idempotency_key": uuid.uuid4().hex}

    def _otherwise(
        self, given: Fields, sent: Fields, refused: SorakaError | None, patience: Patience
    ) -> Fields | None:
        """What to send in the place of what was refused at once: with a key, where an id of our
        own was the reason. Then the clock here is wrong, and the store has to remember."""
        ours = "msg_id" in sent and "msg_id" not in given
        about_id = isinstance(refused, InvalidParams) and refused.field == "msg_id"
        if not (ours and about_id and patience.is_new):
            return None
        self._own_ids = False
        return self._identified(given)


def _command(topic: str, msg_id: str, command_id: str | None) -> Fields:
    made = command_id or uuid.uuid4().hex
    return {"topic_name": topic, "msg_id": msg_id, "command_id": made}
