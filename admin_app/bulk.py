"""The same command on many messages: in the background, in batches, with progress.

Jobs are known to the process that runs them, and end with it; what they have done holds. The id of
a job is the command id of all its commands, so a message met twice is changed once: a redriven
message that dies again is not redriven again by the same job.
"""

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import gevent
from gevent.event import Event

from admin_app.messages import Filter, Messages
from admin_app.words import utc
from soraka.commands import Commands, check_delay
from soraka.errors import Conflict, InvalidParams, MessageNotFound, SorakaError, Unavailable
from soraka.message import Command, CommandKind, State, Stored
from soraka.ports import Clock, FullStore, Query

log = logging.getLogger(__name__)

T = TypeVar("T")
ACTIONS = {
    "cancel": CommandKind.CANCEL,
    "postpone": CommandKind.ADD_TIME,
    "fire_now": CommandKind.FIRE_NOW,
    "redrive": CommandKind.REDRIVE,
}
BATCH = 200
MAX_IDS = 10_000
MAX_RUNNING = 4
MAX_KEPT = 100
WAIT_S = 1.0
RUNNING, WAITING, DONE, STOPPED, FAILED = "running", "waiting", "done", "stopped", "failed"
"""States of a job. WAITING: log or store do not answer; it goes on when they do."""


@dataclass(slots=True, kw_only=True)
class Job:
    """`refused` counts by reason those that could not be changed, `failed` those whose command
    failed otherwise; `chosen` is for people. Times are ms since the epoch, 0 while it runs."""

    id: str
    action: str
    started_by: str
    chosen: str
    started_at: int
    add_ms: int = 0
    state: str = RUNNING
    looked_at: int = 0
    done: int = 0
    failed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    reason: str = ""
    finished_at: int = 0

    @property
    def running(self) -> bool:
        return self.state in (RUNNING, WAITING)


class Bulk:
    def __init__(
        self, messages: Messages, store: FullStore, commands: Commands, clock: Clock
    ) -> None:
        self._messages = messages
        self._store = store
        self._commands = commands
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._stops: dict[str, Event] = {}
        self._closing = Event()

    def start(
        self,
        action: str,
        started_by: str,
        *,
        ids: Sequence[str] = (),
        chosen: Filter | None = None,
        add_ms: int = 0,
    ) -> Job:
        """By `ids`, or by a filter: of those messages the ones that the action is for, pending or
        dead. What is submitted after the start is left out. Raises InvalidParams, Conflict when
        too many jobs run, StoreUnavailable."""
        if action not in ACTIONS:
            raise InvalidParams("action", f"must be one of {', '.join(ACTIONS)}")
        if action == "postpone":
            check_delay("add_time", add_ms, least=1)
        if bool(ids) == (chosen is not None):
            raise InvalidParams("msg_ids", "give msg_ids or a filter, not both")
        if len(ids) > MAX_IDS:
            raise InvalidParams("msg_ids", f"must be at most {MAX_IDS}")
        query = None if chosen is None else self._query(action, chosen)
        if sum(job.running for job in self._jobs.values()) >= MAX_RUNNING:
            raise Conflict(f"action: {MAX_RUNNING} bulk jobs run already; wait, or stop one")
        job = Job(
            id=uuid.uuid4().hex,
            action=action,
            started_by=started_by,
            chosen=f"{len(ids)} ids" if query is None else _words(chosen or Filter(), query),
            started_at=self._clock.now_ms(),
            add_ms=add_ms if action == "postpone" else 0,
        )
        self._keep(job)
        gevent.spawn(self._run, job, list(dict.fromkeys(ids)), query)
        return job

    def get(self, job_id: str) -> Job:
        """Raises InvalidParams."""
        job = self._jobs.get(job_id)
        if job is None:
            raise InvalidParams("job_id", "there is no such job, or it is forgotten by now")
        return job

    def jobs(self) -> list[Job]:
        """The latest first."""
        return list(reversed(self._jobs.values()))

    def stop(self, job_id: str) -> Job:
        """It ends after the batch it is at. Safe to repeat. Raises InvalidParams."""
        job = self.get(job_id)
        self._stops[job_id].set()
        return job

    def close(self) -> None:
        """All stop. Safe to repeat."""
        for stop in self._stops.values():
            stop.set()

    def _query(self, action: str, chosen: Filter) -> Query:
        wanted = State.DEAD if action == "redrive" else State.PENDING
        if chosen.states and wanted not in chosen.states:
            raise InvalidParams("states", f"must have {wanted} in it for {action}")
        until = min(chosen.until, self._clock.now_ms() + 1)
        if chosen.since >= until:
            raise InvalidParams("since", "must lie in the past")
        return self._messages.query(chosen)._replace(states=(wanted,), until=until)

    def _keep(self, job: Job) -> None:
        self._jobs[job.id], self._stops[job.id] = job, Event()
        ended = [known.id for known in self._jobs.values() if not known.running]
        for job_id in ended[: max(0, len(self._jobs) - MAX_KEPT)]:
            del self._jobs[job_id], self._stops[job_id]

    def _run(self, job: Job, ids: list[str], query: Query | None) -> None:
        log.info("bulk.started", extra={"job": job.id, "action": job.action, "by": job.started_by})
        stop = self._stops[job.id]
        try:
            for batch in self._by_id(job, ids) if query is None else self._by_query(job, query):
                self._send(job, batch)
                if stop.is_set():
                    break
            job.state = STOPPED if stop.is_set() else DONE
        except _Stopped:
            job.state = STOPPED
        except SorakaError as exc:
            job.state, job.reason = FAILED, str(exc)
        except Exception:  # the edge of a greenlet: the job must not seem to run for ever
            log.exception("bulk.failed", extra={"job": job.id})
            job.state, job.reason = FAILED, "system error"
        job.finished_at = self._clock.now_ms()
        figures = {"looked_at": job.looked_at, "done": job.done, "state": job.state}
        log.info("bulk.ended", extra={"job": job.id, **figures})

    def _by_id(self, job: Job, ids: list[str]) -> Iterator[list[Stored]]:
        for start in range(0, len(ids), BATCH):
            wanted = ids[start : start + BATCH]
            answers = self._patiently(job, partial(self._store.get, wanted))
            found = [stored for stored in answers if stored is not None]
            absent = len(wanted) - len(found)
            job.looked_at += absent
            if absent:
                job.refused[MessageNotFound.__name__] += absent
            yield found

    def _by_query(self, job: Job, query: Query) -> Iterator[list[Stored]]:
        cursor = ""
        while True:
            search = partial(self._store.search, query, cursor, BATCH)
            found, cursor = self._patiently(job, search)
            yield found
            if not cursor:
                return

    def _send(self, job: Job, batch: Sequence[Stored]) -> None:
        if not batch:
            return
        commands = [
            Command(
                command_id=job.id,
                msg_id=stored.message.msg_id,
                topic=stored.message.topic,
                kind=ACTIONS[job.action],
                add_ms=job.add_ms,
            )
            for stored in batch
        ]
        answers = self._patiently(job, lambda: self._commands.send(commands))
        job.looked_at += len(commands)
        for error in answers:
            if error is None:
                job.done += 1
            elif error.code >= 500:
                job.failed += 1
            else:
                job.refused[type(error).__name__] += 1

    def _patiently(self, job: Job, action: Callable[[], T]) -> T:
        """What `action` gives, tried again while a server is away: with the same command ids
        nothing is done twice. Raises _Stopped."""
        while True:
            try:
                answer = action()
            except Unavailable as exc:
                job.state, job.reason = WAITING, str(exc)
                if self._stops[job.id].wait(WAIT_S):
                    raise _Stopped from exc
            else:
                job.state, job.reason = RUNNING, ""
                return answer


class _Stopped(Exception):
    """Asked to stop while it waited."""


def _words(chosen: Filter, query: Query) -> str:
    """With the state of those it is for, whether it was asked for or not.

    >>> both = Filter(topics=("mail", "sms"), since=90_000)
    >>> _words(both, Query(both.topics, (State.DEAD,), 90_000, 1 << 48, ""))
    'dead messages of topics mail, sms, submitted from 1970-01-01 00:01:30 UTC'
    """
    states = " or ".join(query.states)
    many = "topic" if len(chosen.topics) == 1 else "topics"
    of = f"{many} {', '.join(chosen.topics)}" if chosen.topics else "all topics"
    parts = [f"{states} messages of {of}"]
    if chosen.since:
        parts.append(f"submitted from {utc(chosen.since)}")
    if chosen.until != Filter().until:
        parts.append(f"submitted before {utc(chosen.until)}")
    if chosen.prefix:
        parts.append(f"ids that begin with {chosen.prefix}")
    return ", ".join(parts)
