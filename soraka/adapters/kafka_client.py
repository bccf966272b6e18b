"""What the Kafka clients share: their errors, and opening them without leftovers."""

import base64
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from kafka import TopicPartition
from kafka.errors import (
    IllegalSaslStateError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket

from soraka.adapters.kafka_bundle import unbundled
from soraka.errors import (
    BodyTooLarge,
    InvalidParams,
    LogUnavailable,
    SorakaError,
    TopicNotFound,
)
from soraka.ports import Logged
from soraka.tls import Context

RECONNECT_MAX_MS = 1000
DIRECT = "soraka-direct"
LET_IN = "not let in, if it is there: log.username, log.password"
"""Some refusals of a user come as a connection that is closed, without a word."""
REFUSALS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)
"""What a broker says of a user that it does not let in."""


def connection(
    bootstrap: str, secured: Context | None, username: str, password: str
) -> dict[str, Any]:
    """What every client of kafka-python needs to find the brokers, and to be let in."""
    settings: dict[str, Any] = {"bootstrap_servers": bootstrap.split(",")}
    protocol = "SSL" if secured else "PLAINTEXT"
    if secured:
        settings["ssl_context"] = secured
    if username:
        protocol = f"SASL_{protocol}"
        settings["sasl_mechanism"] = "SCRAM-SHA-512"
        settings["sasl_plain_username"] = username
        settings["sasl_plain_password"] = password
    return {**settings, "security_protocol": protocol}


class _Direct(KafkaNetSocket):  # type: ignore[misc]
    """No proxy at all. kafka-python leaves the sockets of refused connections to the garbage
    collector, dozens in an outage; proxies are where it lets us close them."""

    SCHEMES = (DIRECT,)

    async def sock_connect(
        self, net: Any, sock: Any, sockaddr: Any, timeout_at: float | None = None
    ) -> Any:
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


class _Network(KafkaNetClient):  # type: ignore[misc]
    """Closed, it leaves no socket behind. kafka-python would let those that have something to send
    still do so first, and then ends what does it."""

    def close(self, node_id: Any = None) -> None:
        if node_id is None:
            for each in self._manager._conns.values():
                if each.transport is not None:
                    each.transport._write_buffer.clear()
        super().close(node_id)


class _Translated(AbstractContextManager[None]):
    def __exit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        if isinstance(exc, (KafkaError, OSError)):
            raise _ours(exc) from exc


_translated = _Translated()


def translated() -> AbstractContextManager[None]:
    """Turns the driver's errors into ours."""
    return _translated


def _ours(exc: KafkaError | OSError) -> SorakaError:
    if isinstance(exc, UnknownTopicOrPartitionError):
        return TopicNotFound(str(exc))
    if isinstance(exc, InvalidTopicError):
        return InvalidParams("topic_name", f"Kafka does not take it: {exc}")
    if isinstance(exc, (MessageSizeTooLargeError, RecordListTooLargeError)):
        return BodyTooLarge("record", "larger than Kafka takes")
    if isinstance(exc, REFUSALS):
        return LogUnavailable(f"kafka: log.username, log.password: {exc}")
    return LogUnavailable(f"kafka: {exc!r}")


def opened(make: Callable[..., Any], **settings: Any) -> tuple[Any, Any]:
    """A kafka-python client and its network client, which learns of all topics.

    The constructors bootstrap: they block up to `bootstrap_timeout_ms`, and when they raise they
    leave sockets and an I/O greenlet behind. Those are closed here.
    """
    made: list[Any] = []
    said: list[Exception] = []
    secured = settings.get("ssl_context")
    if secured is not None:
        secured.refusals.clear()

    def network(**config: Any) -> Any:
        made.append(_Network(**config))
        # Asked for by name, an unknown topic would be asked for again ten times a second for ever.
        made[0].cluster.need_all_topic_metadata = True
        _stop_when_refused(made[0]._manager, said)
        return made[0]

    try:
        client = make(
            kafka_client=network,
            proxy_url=f"{DIRECT}://",
            reconnect_backoff_max_ms=RECONNECT_MAX_MS,
            **settings,
        )
    except BaseException as exc:
        for each in made:
            each.close()
        if isinstance(exc, KafkaError) and said:
            raise said[-1] from exc
        if isinstance(exc, KafkaError) and secured is not None and secured.refused:
            raise LogUnavailable(f"kafka: {secured.refused}") from exc
        if isinstance(exc, KafkaTimeoutError) and "sasl_plain_username" in settings:
            raise LogUnavailable(f"kafka: {LET_IN}") from exc
        raise
    return client, made[0]


def _stop_when_refused(manager: Any, said: list[Exception]) -> None:
    """Has the bootstrap end with what a broker says of the user, which `said` has then. Left to
    itself it tries again until its time is up, and tells no more than that."""
    get_connection = manager.get_connection

    def note(exc: Exception) -> None:
        if isinstance(exc, REFUSALS):
            said.append(exc)

    def get(*args: Any, **options: Any) -> Any:
        if said and not manager.bootstrapped:
            raise said[-1]
        connection = get_connection(*args, **options)
        connection.init_future.add_errback(note)
        return connection

    manager.get_connection = get


def partition_name(tp: TopicPartition, topic_id: UUID | None) -> str:
    """`<topic>/<number>@<topic id>`: a topic that was deleted and made again has others."""
    # as Kafka's own tools print ids; brokers before 2.8 have none
    made = "" if topic_id is None else base64.urlsafe_b64encode(topic_id.bytes).decode()[:22]
    return f"{tp.topic}/{tp.partition}@{made}"


def logged(records: Sequence[Any]) -> list[Logged]:
    """What Kafka's records hold. Others may write to a topic too: one without key or value is
    handed on, not choked on."""
    return [
        each
        for record in records
        for each in unbundled(record.offset, record.key or b"", record.value or b"")
    ]
