"""Topics: their names, their settings, and making them. Ports only."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address

from soraka.config import TopicsConfig
from soraka.errors import Conflict, InvalidParams, ReservedTopicName, TopicNotFound
from soraka.limits import BALANCES, DAY_MS, MAX_DELAY_MS, MAX_RETRIES, WEIGHTS
from soraka.message import RESERVED_TOPICS, Topic
from soraka.ports import Log, Registry
from soraka.signing import MAX_SECRETS, key_of, new_secret

MAX_BUSINESS = 128
MAX_WORKERS = 1000
MAX_DISPATCHES = 100_000
"""As many as `worker.max_callbacks` may be."""
MAX_RATE = 1_000_000
MIN_RETENTION_MS = 60_000
MAX_RETENTION_MS = 365 * DAY_MS
WHICH = ("older", "newer", "all")
"""Of two secrets, those to be forgotten."""
TRIES = 10
"""Of a change of settings, when others change them too."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HOST_NAME = re.compile(r"(?=[^.])[A-Za-z0-9._-]{1,253}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


def check_name(name: str) -> None:
    """Raises ReservedTopicName or InvalidParams, field `topic_name`."""
    if name in RESERVED_TOPICS:
        raise ReservedTopicName("topic_name", f"{name!r} is reserved")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidParams("topic_name", "must be 1 to 128 of the characters A-Z a-z 0-9 . _ -")


def check_settings(topic: Topic) -> None:
    """Raises InvalidParams that names the field."""
    if len(topic.business) > MAX_BUSINESS or not topic.business.isprintable():
        raise InvalidParams(
            "business", f"must be at most {MAX_BUSINESS} characters, on one line, printable"
        )
    if topic.balance not in BALANCES:
        raise InvalidParams("balance", f"must be one of {', '.join(BALANCES)}")
    if topic.weigh_by not in WEIGHTS:
        raise InvalidParams("weigh_by", f"must be one of {', '.join(WEIGHTS)}")
    if not 0 <= topic.max_concurrent_dispatches <= MAX_DISPATCHES:
        raise InvalidParams(
            "max_concurrent_dispatches", f"must be from 0 (no limit) to {MAX_DISPATCHES}"
        )
    if not 0 <= topic.max_dispatches_per_second <= MAX_RATE:
        raise InvalidParams("max_dispatches_per_second", f"must be from 0 (no limit) to {MAX_RATE}")
    if topic.retention_ms and not MIN_RETENTION_MS <= topic.retention_ms <= MAX_RETENTION_MS:
        raise InvalidParams(
            "retention_ms",
            f"must be 0 (as configured) or from {MIN_RETENTION_MS} to {MAX_RETENTION_MS} ms",
        )
    if not 0 <= topic.worker_num <= MAX_WORKERS:
        raise InvalidParams("worker_num", f"must be from 0 (all of them) to {MAX_WORKERS}")
    if len(topic.workers) > MAX_WORKERS:
        raise InvalidParams("workers", f"must be at most {MAX_WORKERS}")
    for index, worker in enumerate(topic.workers):
        if not _is_address(worker):
            raise InvalidParams(
                f"workers.{index}", f"{worker!r} must be ip:port, as the worker announces itself"
            )
    check_retry(topic.retry_ms)
    _check_secrets(topic.secrets)


def check_retry(delays: tuple[int, ...]) -> None:
    """Of a topic or a message. Raises InvalidParams, field `retry` or `retry.<index>`."""
    if len(delays) > MAX_RETRIES:
        raise InvalidParams("retry", f"must be at most {MAX_RETRIES} delays")
    for index, delay in enumerate(delays):
        if not 0 <= delay <= MAX_DELAY_MS:
            raise InvalidParams(f"retry.{index}", f"must be from 0 to {MAX_DELAY_MS} ms (7 days)")


@lru_cache
def delays_of(name: str, retry_ms: tuple[int, ...]) -> tuple[int, ...]:
    """What a topic gives its messages. Raises InvalidParams when it is impossible: others than us
    may write to the registry, and such a message could not be read again."""
    try:
        check_retry(retry_ms)
    except InvalidParams as exc:
        raise InvalidParams("topic_name", f"{name!r} must be set anew, its {exc}") from None
    return retry_ms


def _check_secrets(secrets: tuple[str, ...]) -> None:
    if len(set(secrets)) != len(secrets):
        raise InvalidParams("secret", "is one that the topic has already")
    if len(secrets) > MAX_SECRETS:
        raise InvalidParams("secret", f"must be at most {MAX_SECRETS}")
    for secret in secrets:
        try:
            key_of(secret)
        except ValueError as exc:
            raise InvalidParams("secret", str(exc)) from None


def check_instance(address: str) -> None:
    """That it can be one, known or not. Raises InvalidParams, field `instance`."""
    if not _is_address(address):
        raise InvalidParams("instance", f"{address[:300]!r} must be ip:port")


def _is_address(worker: str) -> bool:
    """ip:port; a name in the place of the ip too, since a worker may advertise one."""
    host, _, port = worker.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        return False
    if ":" not in host and host.strip("0123456789."):
        return bool(_HOST_NAME.fullmatch(host))
    try:
        ip_address(host.removeprefix("[").removesuffix("]") if ":" in host else host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of a deployment. `now_ms` gives their time of creation."""

    log: Log
    registry: Registry
    config: TopicsConfig
    now_ms: Callable[[], int]

    def find(self, name: str) -> Topic:
        """Its settings. Raises TopicNotFound, InvalidParams."""
        topic = self.registry.topics().get(name)
        if topic is None:
            check_name(name)
            raise TopicNotFound(f"topic {name!r} does not exist")
        return topic

    def get(self, name: str) -> Topic:
        """As find, but makes it on the way when `topics.auto_create` is on.

        Raises Unavailable too.
        """
        try:
            return self.find(name)
        except TopicNotFound:
            if not self.config.auto_create:
                raise
        self.add(self.new(name))
        return self.find(name)

    def new(self, name: str) -> Topic:
        """A topic with the default settings, not yet added."""
        return Topic(
            name=name,
            balance=self.config.balance,
            weigh_by=self.config.weigh_by,
            max_concurrent_dispatches=self.config.max_concurrent_dispatches,
            retry_ms=self.config.retry_ms,
            created_at=self.now_ms(),
        )

    def add(self, topic: Topic) -> bool:
        """False when there is one of that name already. The log comes first: a topic that can
        be seen can be written to. Raises InvalidParams, Unavailable."""
        check_name(topic.name)
        check_settings(topic)
        self.log.create_topic(topic.name)
        return self.registry.put_topic(topic, was=None)

    def update(self, name: str, changed: Callable[[Topic], Topic]) -> Topic:
        """Replaces its settings by what `changed` makes of them, which is asked again when others
        came in between. What was submitted before keeps its retry. Raises TopicNotFound,
        InvalidParams, Conflict, RegistryUnavailable, and what `changed` does."""
        for _ in range(TRIES):
            was = self.find(name)
            topic = changed(was)
            check_settings(topic)
            if self.registry.put_topic(topic, was=was):
                return topic
        raise Conflict(f"topic_name: others change the settings of {name!r}; try again")

    def add_secret(self, name: str, secret: str | None = None) -> str:
        """Its callbacks are signed with this one, or a new one, from now on, and with the one it
        had. Returns it. Raises as `update`, Conflict when there are two already."""
        made = new_secret() if secret is None else secret

        def with_it(topic: Topic) -> Topic:
            if len(topic.secrets) >= MAX_SECRETS:
                raise Conflict(f"topic_name: topic {name!r} has two secrets already; remove one")
            return replace(topic, secrets=(made, *topic.secrets))

        self.update(name, with_it)
        return made

    def remove_secret(self, name: str, which: str) -> None:
        """One of WHICH; without any its callbacks are not signed. Raises as `update`, Conflict
        when it has not so many."""
        if which not in WHICH:
            raise InvalidParams("which", f"must be one of {', '.join(WHICH)}")

        def without_it(topic: Topic) -> Topic:
            newest, older = topic.secrets[:1], topic.secrets[1:]
            if not newest or (which != "all" and not older):
                raise Conflict(f"topic_name: topic {name!r} has {len(topic.secrets)} secrets")
            return replace(topic, secrets={"older": newest, "newer": older}.get(which, ()))

        self.update(name, without_it)

    def delete(self, name: str) -> bool:
        """Forgets its settings; False when there is none of that name. Its log and its messages
        stay: the caller has seen that none is pending. Raises RegistryUnavailable."""
        return self.registry.delete_topic(name)
