"""The three ports: Log, Store (in parts), Registry.

Each is batch-first and has two adapters in `soraka/adapters/` which pass the same contract
tests in `tests/contract/`. Driver errors never pass a port: a server that does not answer in
time raises the `Unavailable` of its port, and the effect of that call is then unknown.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from msgspec import Struct

from soraka.limits import DAY_MS
from soraka.message import Attempt, Command, Instance, Message, State, Stored, Topic

# --------------------------------------------------------------------------- Log


class Record(Struct, frozen=True, array_like=True, gc=False):
    """What is appended. Records with one key keep their order."""

    key: str
    value: bytes


class Logged(Struct, frozen=True, gc=False):
    """A record read back, with its position in its partition. Records that were appended
    together may share one."""

    position: int
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition, in the order of their positions; never empty. All that share a
    position are in one batch.

    `partition` is opaque, and stays the same for as long as its positions keep their meaning.
    `epoch` grows whenever the partition was given to this consumer anew: positions of two
    batches with one epoch join on; across epochs records may be missing or repeated.
    """

    partition: str
    epoch: int
    records: Sequence[Logged]

    @property
    def last(self) -> int:
        return self.records[-1].position


class Consumer(Protocol):
    """One member of a consumer group. Not safe for use by two greenlets at once."""

    def poll(self, timeout_ms: int) -> Sequence[Batch]:
        """What is new, at most a bounded number of records; waits up to `timeout_ms` for it.

        Yields to other greenlets. New topics are picked up by themselves. Raises
        LogUnavailable only when nothing can be read and the caller should wait and poll again.
        """

    def assigned(self) -> Mapping[str, int]:
        """The partitions this consumer has, with their epochs, as of the last poll."""

    def span(self, partition: str) -> tuple[int, int]:
        """The oldest position kept, and the one the next record will get; they are equal when
        nothing is kept. Raises LogUnavailable."""

    def seek(self, partition: str, position: int) -> None:
        """The next poll goes on at `position`, or at the oldest record kept if that is later.

        A partition that this consumer has not (or no longer) is ignored.
        """

    def commit(self, positions: Mapping[str, int]) -> None:
        """Notes the last position done per partition: a hint for lag figures and for where a
        new member starts to read. Failures are logged, not raised."""

    def lag(self) -> int:
        """Positions after what was polled, over the assigned partitions; an estimate."""

    def close(self) -> None:
        """Leaves the group. Safe to repeat."""


class LogReader(Protocol):
    """Questions about the whole log, asked by no member of a group. All raise LogUnavailable."""

    def spans(self) -> Mapping[str, tuple[int, int]]:
        """As Consumer.span, for every partition of every topic."""

    def committed(self, group: str) -> Mapping[str, int]:
        """The positions that a group has committed, for the partitions where it has."""

    def replay(self, since_ms: int) -> Iterator[Batch]:
        """The records appended at or after that time by the log's clock, of all topics, in order
        per partition, up to where the log ended at the call."""


class Log(LogReader, Protocol):
    """Durable, partitioned, replayable: the key alone decides on the partition."""

    def create_topic(self, topic: str) -> None:
        """Makes the log of a topic. One that exists already is left as it is."""

    def append(self, topic: str, records: Sequence[Record]) -> None:
        """Returns when all are durable (Kafka: acks=all; SQLite: committed, FULL).

        Waits up to the append deadline, then raises LogUnavailable: some, all or none may be
        durable. Refuses with LogUnavailable at once while the bytes in flight are at their
        limit. A topic never created: TopicNotFound.
        """

    def append_dead_letter(self, records: Sequence[Record]) -> None:
        """As append, to the dead-letter log, which no consumer of this port reads."""

    def consumer(self, group: str) -> Consumer:
        """A new member of `group`, over all topics. Starts at the committed position, or at
        the oldest record kept."""

    def check(self) -> None:
        """Raises LogUnavailable when the log does not answer now."""

    def close(self) -> None:
        """Flushes and closes. Safe to repeat."""


# --------------------------------------------------------------------------- Store


class NewMessage(Struct, frozen=True, gc=False):
    """A message read from the log."""

    position: int
    message: Message
    owner: str


class NewCommand(Struct, frozen=True, gc=False):
    """A command read from the log."""

    position: int
    command: Command


Entry = NewMessage | NewCommand


class Verdict(StrEnum):
    """Answer to a command. The same command id always gets the same answer."""

    APPLIED = "applied"
    EARLY = "early"
    """The message is not here yet; the command waits for it and will hold."""
    TOO_LATE = "too_late"
    NOT_FOUND = "not_found"


class ClaimKind(StrEnum):
    FIRE = "fire"
    LATER = "later"
    BUSY = "busy"
    GONE = "gone"
    UNKNOWN = "unknown"


class Lease(NamedTuple):
    """Names a lease: its number, and its end. A store that lost its last moments gives the number
    again, but not with the same end."""

    attempt: int
    until: int


class Claim(NamedTuple):
    """Answer to a claim.

    FIRE: call it now; `at` is the end of the lease, `attempt` its number, `due_at` is the due time
    of this attempt, `message` is a text, why, when what the store has of it cannot be read.
    `tries` counts the attempts from 1, released ones left out: it is what a retry schedule goes by
    and what the callback is told. `releases` is how often it was RELEASED, since it was redriven
    last. `life` is that of the server which gave the lease, see `Store.life`. `early_ms`: so long
    before its time the claim was given, and so long after the answer has come the call may leave,
    not before.
    LATER: not due, or held back; `at` is when it may be claimed. BUSY: another lease runs; `at`
    is its end. GONE: finished, or no such message. UNKNOWN: the shard it lives in did not answer,
    or has restarted and no one has vouched for it yet; ask again. In these four the rest is empty.
    """

    kind: ClaimKind
    at: int = 0
    attempt: int = 0
    due_at: int = 0
    message: Message | str | None = None
    tries: int = 0
    releases: int = 0
    life: str = ""
    early_ms: int = 0

    @property
    def lease(self) -> Lease:
        """Of FIRE."""
        return Lease(self.attempt, self.at)


class Ended(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    RETRY = "retry"
    DEAD = "dead"
    RELEASED = "released"
    """No request left: pending again, held back for `delay_ms` (0: not), and the attempt does not
    count. Its due time stays. A worker sends those away so that are more than their callback host
    can take now."""


class Outcome(NamedTuple):
    """`delay_ms`: for RETRY from now to the next due time, for RELEASED from now to the end of
    being held back. `reason` is for people.

    The last four are for the history of the message, as in `message.Attempt`.
    """

    msg_id: str
    lease: Lease
    ended: Ended
    delay_ms: int = 0
    reason: str = ""
    started_at: int = 0
    duration_ms: int = 0
    worker: str = ""
    status: int = 0


class DueId(NamedTuple):
    """`due_at` is when to look at it: the end of a lease, or the due time, or the end of being
    held back, whichever of these two is later."""

    due_at: int
    msg_id: str


class Move(NamedTuple):
    """Give a message to `target`, if `source` still owns it."""

    msg_id: str
    source: str
    target: str


DOOR_MS = 8 * DAY_MS
"""How long a command waits for its message, however far behind the log center is. Longer than
the log is kept (Kafka: 7 days by default); raise both together."""
MAX_WAITING = 100_000
"""Commands that wait for their messages, per shard. Anyone can send commands for messages that
will never come."""


class Store(Protocol):
    """Pending messages by owner and due time. The store's clock decides every due time.

    A store has one or more shards; a message lives in shard crc32(msg_id) mod shards. A call
    is atomic per message, and per shard for `schedule` and `assign`. Every call may be
    repeated with no further effect, but for `claim`, where a repetition answers BUSY.
    """

    def positions(self, partition: str) -> tuple[int, ...]:
        """Per shard, the position of the last record of `partition` applied; -1 for none."""

    def schedule(
        self, partition: str, previous: tuple[int, ...], last: int, entries: Sequence[Entry]
    ) -> tuple[int, ...]:
        """Applies a batch that ends at position `last`, and marks every shard up to it, in one
        atomic step per shard. Returns the new positions.

        `previous` are the positions the caller knows of. A shard that stands before its
        `previous` has lost its tail: it changes nothing, and Gap is raised (other shards may
        have been applied). A shard that stands further skips what it has applied already.

        A message whose id is known is left as it is. Commands that wait at its door are folded
        in, in their order. Commands are applied as `command` does, but one for an unknown
        message is dropped: in the log it comes after its message.
        """

    def command(self, commands: Sequence[Command]) -> list[Verdict]:
        """Applies commands now; one verdict each, in order.

        CANCEL on a pending message finishes it. ADD_TIME moves its due time, FIRE_NOW moves it to
        now; either way it is held back no longer. TOO_LATE when it is finished or a lease on it
        runs; that verdict is remembered too. REDRIVE makes a dead message pending, due now, with
        all its retries; TOO_LATE when it is not dead. An unknown message whose id (UUIDv7) was made
        within the early window, or up to ID_AHEAD_MS ahead: the command is kept for it, EARLY;
        otherwise, or when the topic is another: NOT_FOUND. What is kept waits for DOOR_MS.
        StoreUnavailable also when too many commands wait; some may have been applied.
        """

    def claim(self, msg_ids: Sequence[str], ahead_ms: int = 0) -> list[Claim]:
        """Takes a lease of ttr + margin on each that is due; one answer each, in order. One that
        is due, or held back no more, within `ahead_ms` is claimed, too: its lease is as long from
        that time on, but commands come too late for it already.

        UNKNOWN for those whose shard alone is out of reach; StoreUnavailable when all are."""

    def life(self, msg_id: str) -> str:
        """Names the present life of the server that holds this message, with all of its shard.
        What another life than that has answered may be lost: a claim of it stands no more for
        sure. '' where nothing is lost with a process."""

    def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Ends attempts. False: stale, the attempt is not the current one or the message is
        finished; nothing changed. A finished record is kept for its retention."""

    def due(self, owner: str, until: int, limit: int, since: int = 0) -> list[DueId]:
        """Unfinished messages of `owner` to be looked at from `since` on and before `until`,
        soonest first.

        Of the shards within reach; StoreUnavailable when none is."""

    def assign(self, moves: Sequence[Move]) -> list[int | None]:
        """Changes owners and nothing else, but that what is parked is held back no longer. The
        time to look at each, or None if not moved."""

    def close(self) -> None:
        """Safe to repeat."""


class StoreTail(Protocol):
    """For when log and store no longer fit: one of them has lost its tail, or all."""

    def rewind(self, partition: str, position: int) -> None:
        """Sets the positions of all shards that stand after `position` back to it: the log has
        lost what came after, and gives those positions anew. Nothing else changes."""

    def adopt(self, positions: Mapping[str, int]) -> int:
        """Gives these positions, by partition, to each shard that has not one position, in one
        atomic step per shard; returns how many shards those were.

        A shard that once had read the log and has no position now has lost everything. What it
        held is not called again on its own account: most of that was called before.
        """

    def restarts(self) -> frozenset[str]:
        """The server processes that answer no claims since they started; empty when none.

        A server that was killed may come back without its last second, in which a cancel was
        confirmed. So a new process of it answers UNKNOWN until someone vouches for it.
        """

    def vouch(self, processes: frozenset[str]) -> None:
        """Has these processes answer claims. The caller got them from `restarts`, and has seen
        since that every shard holds the log up to where it ended after that. A process that has
        ended meanwhile is left out: its successor is another one."""


class Totals(NamedTuple):
    """Messages by where they are. `pending` per owner; the rest since the store was made."""

    pending: Mapping[str, int]
    scheduled: int
    succeeded: int
    cancelled: int
    dead: int
    attempts: int
    redriven: int = 0


class StoreReader(Protocol):
    """The questions people and the reconcile loop ask; the same adapters answer them."""

    def now_ms(self) -> int:
        """The store's clock, ms since the epoch."""

    def owners(self) -> set[str]:
        """Owners that have unfinished messages, in the shards within reach; StoreUnavailable
        when none is."""

    def scan(self, owner: str, cursor: str, limit: int) -> tuple[list[DueId], str]:
        """Unfinished messages of `owner`, in no order, about `limit` at a time.

        Begins with the cursor '', goes on with the one returned, and has ended when that is ''.
        A message that `owner` has all the while is given at least once.
        """

    def get(self, msg_ids: Sequence[str]) -> list[Stored | None]:
        """One answer each, in order; None when unknown or past its retention."""

    def totals(self) -> Totals:
        """Of all shards; StoreUnavailable when one is out of reach. O(shards + owners)."""


class Query(NamedTuple):
    """Which messages. Those of `topics` in one of `states`, submitted from `since` on and before
    `until` (ms since the epoch, by the time in their id), whose id begins with `prefix`."""

    topics: Sequence[str]
    states: Sequence[State]
    since: int = 0
    until: int = 1 << 48
    prefix: str = ""


class Backlog(NamedTuple):
    """Pending messages whose due time has come, held back or not, but for those being called.
    `oldest_due_at` is None when there is none. Those of paused topics are counted in `parked`
    alone."""

    overdue: int
    oldest_due_at: int | None
    parked: int


class Sample(NamedTuple):
    """What was counted in one minute of one series. `minute` is its first ms since the epoch.
    A series may be of longer times, too: then it is the first minute of each."""

    series: str
    minute: int
    values: Mapping[str, int]


class NotAdded(NamedTuple):
    """`again` were surely not added, and may be given again: their shard is away. Of so many as
    `lost` it is not known, or the store refused them. `reason` is for people."""

    again: Sequence[Sample] = ()
    lost: int = 0
    reason: str = ""


STATS_MS = 7 * DAY_MS
"""How long samples are kept."""


class StoreArchive(Protocol):
    """What people look at: messages by topic and state, their history, and series by minute.

    No call holds the store for more than some milliseconds, however many messages there are.
    """

    def search(self, query: Query, cursor: str, limit: int) -> tuple[list[Stored], str]:
        """The latest first, by id (which begins with the time of the submit); at most `limit`.

        Begins with the cursor '', goes on with the one returned, and has ended when that is ''. A
        page may hold fewer than `limit` and still not be the last. The cursor stays good when
        messages come, move and go.
        """

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        """Messages by topic and state, kept ones included; a topic without any is left out. Of
        finished ones about: those just past their retention may be counted yet. O(topics)."""

    def history(self, msg_id: str) -> list[Attempt]:
        """The attempts that ended, the oldest first, at most the last HISTORY_LENGTH; without
        those that were released. Empty when unknown."""

    def backlog(self, now: int) -> Backlog:
        """Of all owners; `now` is about the store's clock. O(owners)."""

    def count_due(self, owner: str, since: int) -> int:
        """Unfinished messages of `owner` to be looked at from `since` on."""

    def keep(self, retention_ms: Mapping[str, int]) -> None:
        """How long succeeded and cancelled messages of each topic are kept from now on, by topic;
        those not named, or with 0, as configured. Replaces what was set before."""

    def tidy(self) -> int:
        """Forgets index entries of messages past their retention: a bounded number, going on
        where the last call ended, on whatever process that was; those submitted first sooner,
        the others by and by. Returns how many were looked at. Called again and again by a
        center."""

    def add_stats(self, samples: Sequence[Sample]) -> NotAdded:
        """Adds to what was counted before. No call may be repeated, but for what it gives back:
        a sample that may have been added already is lost rather than counted twice. Raises
        StoreUnavailable when that holds of all. Samples are kept for STATS_MS at least."""

    def stats(
        self, series: str, since: int, until: int, names: Collection[str] = ()
    ) -> Mapping[int, Mapping[str, int]]:
        """By minute from `since` on and before `until`, the values that were added, or those with
        `names` alone, which costs less; minutes without any are left out."""


HISTORY_LENGTH = 40


class KeptKey(NamedTuple):
    """An idempotency key: the message that it stands for, and what tells another one apart.

    `key` and `digest` are opaque texts without a blank, at most 64 characters each.
    """

    key: str
    msg_id: str
    digest: str


class StoreKeys(Protocol):
    """Which message an idempotency key stands for."""

    def keep_keys(self, keys: Sequence[KeptKey], window_ms: Sequence[int]) -> list[KeptKey]:
        """Keeps each for its window, unless its key is kept already; one answer each, in order:
        what is kept now. Of many callers with one key exactly one finds its own.

        A repetition changes nothing, the end of the window included. Atomic per key, and durable
        as commands are. StoreUnavailable: some may be kept.
        """


class FullStore(Store, StoreTail, StoreReader, StoreArchive, StoreKeys, Protocol):
    """What an adapter is."""


# --------------------------------------------------------------------------- Registry


class Registry(Protocol):
    """Who is alive, and the topics. Reads come from a local copy and never block; nothing's
    correctness rests on its being fresh."""

    def register(self, instance: Instance) -> None:
        """Announces this process until `unregister` or `close`, over lost sessions too. An
        older announcement of the same address is replaced, be it by another incarnation or by
        this one, which may announce itself again with other words (draining)."""

    def unregister(self, instance: Instance) -> None:
        """Safe to repeat."""

    def live(self, service: str) -> dict[str, Instance]:
        """Instances of a service by address."""

    def topics(self) -> dict[str, Topic]:
        """All topics by name."""

    def put_topic(self, topic: Topic, *, was: Topic | None) -> bool:
        """Writes settings in place of those that `was` holds (None: there is no such topic), in
        one step; False when it is otherwise by now, and nothing is written. Raises
        RegistryUnavailable. Either way `topics` shows at once on this process how it is, soon
        on others."""

    def delete_topic(self, name: str) -> bool:
        """False when it does not exist. Raises RegistryUnavailable. Its log and its messages
        stay."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Calls `changed` after any change of instances or topics. It must not block."""

    def lock(self, name: str) -> AbstractContextManager[bool]:
        """Tries for the named lock without waiting; yields whether it was had. Saves double
        work only: it may be lost without notice."""

    def close(self) -> None:
        """Withdraws announcements. Safe to repeat."""


class Clock(Protocol):
    """Milliseconds since the epoch, as the store counts them."""

    def now_ms(self) -> int: ...
