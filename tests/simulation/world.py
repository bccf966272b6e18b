"""Receivers, centers and workers that stumble, around a real store on a virtual clock.

Every actor is a generator that yields how many ms it sleeps; which of those awake goes first is
drawn. A store call is one step. Nothing runs at the same time, and nothing else is left out:
workers pause between claim, request and settle for longer than a lease, or die there; centers
read the log twice, stop in the middle of a reassignment, and go on with old lists.
"""

import heapq
import random
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from soraka.errors import Gap
from soraka.message import Command, CommandKind, Message, State
from soraka.ports import Backlog, Claim, ClaimKind, Ended, FullStore, Move, Outcome, Verdict
from tests.contract.store_kit import TOPIC, TTR, TurnedClock, entry, message, uuid7
from tests.simulation.witness import BrokenPromise, Witness

PARTITIONS = ("t:0", "t:1")
QUIET_MS = 4_000
"""First nothing falls due, and the store loses its tail now and then."""
STUMBLE_MS = 25_000
"""Until then workers die."""
END_MS = 600_000
WORKERS = 3
CENTERS = 2
FAR = 1 << 52
Actor = Iterator[int]


@dataclass
class Worker:
    """`live` is what centers believe; one that is not may go on, until it is `dead`."""

    name: str
    live: bool = True
    dead: bool = False
    calls: int = 0


@dataclass
class World:
    """`snapshot` keeps what is in the store and returns how to put it back."""

    chance: random.Random
    clock: TurnedClock
    store: FullStore
    snapshot: Callable[[], Callable[[], None]]
    messages: int = 50
    witness: Witness = field(default_factory=Witness)
    log: dict[str, list[Message | Command]] = field(
        default_factory=lambda: {p: [] for p in PARTITIONS}
    )
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started = self.clock.now
        self._awake: list[tuple[int, float, Actor]] = []
        self._submitting = 0

    def run(self) -> None:
        """Raises BrokenPromise."""
        for actor in (
            *(self._receiver(self.messages // 2) for _ in range(2)),
            *(self._center() for _ in range(CENTERS)),
            *(self._reassigner() for _ in range(CENTERS)),
            self._loser(),
            self._fate(),
        ):
            self.start(actor)
        while not self._over():
            wakes, _, actor = heapq.heappop(self._awake)
            self.clock.now = max(self.clock.now, wakes)
            if self.elapsed > END_MS:
                break
            try:
                self.start(actor, next(actor))
            except StopIteration:
                continue
        self._look_back()

    def start(self, actor: Actor, sleeps: int = 0) -> None:
        heapq.heappush(self._awake, (self.clock.now + sleeps, self.chance.random(), actor))

    @property
    def elapsed(self) -> int:
        return self.clock.now - self._started

    def _over(self) -> bool:
        """Asked at every step, so it looks at the store last and seldom."""
        if self._submitting or self.elapsed < QUIET_MS or self.chance.random() > 0.02:
            return False
        read = all(min(self.store.positions(p)) == len(log) - 1 for p, log in self.log.items())
        return read and not self.store.owners() and not any(w.calls for w in self.workers)

    def _look_back(self) -> None:
        ids = list(self.witness.lives)
        states = {s.message.msg_id: s.state for s in self.store.get(ids) if s is not None}
        if len(states) != len(ids):
            raise BrokenPromise("accepted messages are missing")
        ends = self.witness.ended(states)
        totals = self.store.totals()
        counted = (totals.succeeded, totals.cancelled, totals.dead, totals.scheduled)
        seen = (ends[State.SUCCEEDED], ends[State.CANCELLED], self.witness.died, len(ids))
        if counted != seen or totals.pending:
            raise BrokenPromise(f"counted {totals}, seen {ends}")
        if totals.attempts != self.witness.fires - self.witness.released:
            raise BrokenPromise(f"{totals.attempts} attempts, seen {self.witness.fires}")
        if ends != +Counter(self.store.counts().get(TOPIC, {})):
            raise BrokenPromise(f"listed {self.store.counts()}, seen {ends}")
        for owner in ["-", *(w.name for w in self.workers)]:
            if self.store.due(owner, FAR, 1):
                raise BrokenPromise(f"the index of {owner} is not empty")
        if self.store.backlog(self.clock.now) != Backlog(0, None, 0):
            raise BrokenPromise("some are held back still")

    # ----------------------------------------------------------------- receive

    def _receiver(self, count: int) -> Actor:
        self._submitting += 1
        for _ in range(count):
            yield self.chance.randrange(400)
            quiet_left = max(0, QUIET_MS - self.elapsed)
            m = message(
                self.clock.now + quiet_left + self.chance.choice([0, 500, 2_000, 4_000]),
                msg_id=uuid7(self.clock.now, self.chance.getrandbits(62)),
            )
            self.witness.accepted(m)
            if self.chance.random() < 0.3:
                self.start(self._commander(m))
            self._append(m)
            if self.chance.random() < 0.3:
                self.start(self._repeater(m))
        self._submitting -= 1

    def _append(self, record: Message | Command) -> tuple[str, int]:
        partition = PARTITIONS[crc32(record.msg_id.encode()) % len(PARTITIONS)]
        self.log[partition].append(record)
        return partition, len(self.log[partition]) - 1

    def _repeater(self, m: Message) -> Actor:
        """The client did not hear of its success, and sends again."""
        self._submitting += 1
        yield self.chance.choice([0, 50, 3_000, 8_000])
        self._append(m)
        self._submitting -= 1

    def _commander(self, m: Message) -> Actor:
        """One or two commands on a message, around its due time or right behind the submit."""
        self._submitting += 1
        for _ in range(self.chance.choice([1, 1, 2])):
            at = self.chance.choice([m.created_at, m.created_at, m.due_at])
            yield max(0, at - self.clock.now + self.chance.choice([-20, 0, 20, 600]))
            yield from self._send(self._new_command(m))
        self._submitting -= 1

    def _late_commander(self, m: Message, lease_until: int) -> Actor:
        """A command while a lease runs, or just when it has run out."""
        yield max(0, lease_until - self.clock.now + self.chance.choice([-2_500, -500, 0, 5, 50]))
        yield from self._send(self._new_command(m))

    def _new_command(self, m: Message) -> Command:
        kinds = [CommandKind.CANCEL, CommandKind.ADD_TIME]
        if self.elapsed > QUIET_MS:  # until then nothing is to fall due
            kinds += [CommandKind.FIRE_NOW]
        kind = self.chance.choice(kinds)
        adds = self.chance.choice([200, 1_000, 5_000]) if kind is CommandKind.ADD_TIME else 0
        return self._command(m, kind, adds)

    def _command(self, m: Message, kind: CommandKind, add_ms: int = 0) -> Command:
        name = f"{self.chance.getrandbits(40):x}"
        return Command(command_id=name, msg_id=m.msg_id, topic=m.topic, kind=kind, add_ms=add_ms)

    def _redriver(self, m: Message) -> Actor:
        """Someone who redrives a dead letter; at times in vain, for another did, or just before."""
        self._submitting += 1
        yield self.chance.choice([0, 5, 500, 3_000])
        if self.chance.random() < 0.3:
            yield from self._send(self._new_command(m))
        yield from self._send(self._command(m, CommandKind.REDRIVE))
        self._submitting -= 1

    def _send(self, command: Command) -> Actor:
        """Appends to the log, then applies; all of it again when the client repeats it."""
        self.witness.issued(command, self.clock.now)
        for repeats in range(self.chance.choice([1, 1, 2])):
            partition, position = self._append(command)
            if self.elapsed > QUIET_MS:
                yield self.chance.choice([0, 0, 300])
                if self.chance.random() < 0.1:
                    return  # receive died; nothing was confirmed
            fresh = max(self.store.positions(partition)) < position
            (verdict,) = self.store.command([command])
            self.witness.answered(command, verdict, self.clock.now, fresh=fresh)
            if fresh and (verdict, command.kind) == (Verdict.APPLIED, CommandKind.FIRE_NOW):
                (stored,) = self.store.get([command.msg_id])
                if stored is not None and repeats == 0:
                    due_at = max(stored.due_at, stored.not_before)
                    self.witness.fired(command.msg_id, due_at, self.clock.now)
            yield self.chance.choice([0, 500, 4_000])

    # ----------------------------------------------------------------- center

    def _center(self) -> Actor:
        """Reads all partitions, as the other centers do: no group keeps them apart here."""
        known = {p: self.store.positions(p) for p in PARTITIONS}
        read = {p: min(known[p]) + 1 for p in PARTITIONS}
        while True:
            yield self.chance.choice([20, 100, 100, 1_500])
            p = self.chance.choice(PARTITIONS)
            batch = self.log[p][read[p] : read[p] + self.chance.choice([1, 1, 2, 20])]
            entries = [entry(read[p] + i, r, self._choose()) for i, r in enumerate(batch)]
            last = read[p] + len(batch) - 1
            try:
                known[p] = self.store.schedule(p, known[p], last, entries)
                read[p] = last + 1
            except Gap as gap:
                known[p], read[p] = gap.positions, min(gap.positions) + 1

    def _choose(self) -> str:
        live = [w.name for w in self.workers if w.live]
        return self.chance.choice(live) if live else "-"

    def _reassigner(self) -> Actor:
        while True:
            yield self.chance.randrange(300, 1_500)
            live = {w.name for w in self.workers if w.live}
            owners = sorted(self.store.owners())
            for owner in owners:
                if live and (owner not in live or self.chance.random() < 0.1):
                    yield from self._move_away(owner)

    def _move_away(self, owner: str) -> Actor:
        """In small pieces with pauses, from a list that grows old; may stop anywhere."""
        listed = self.store.due(owner, FAR, 20)
        while listed and self.chance.random() < 0.9:
            yield self.chance.choice([0, 30, 400])
            piece, listed = listed[:5], listed[5:]
            self.store.assign([Move(d.msg_id, owner, self._choose()) for d in piece])

    def _loser(self) -> Actor:
        """Puts the store back to where it was a moment ago, while nothing is due."""
        while self.elapsed < QUIET_MS - 1_500:
            restore = self.snapshot()
            yield self.chance.randrange(100, 600)
            restore()
            yield self.chance.randrange(300)

    # ----------------------------------------------------------------- worker

    def _fate(self) -> Actor:
        """Starts workers, takes them for dead, and ends them, at times in that order."""
        yield QUIET_MS // 2
        for _ in range(WORKERS):
            self._start_worker()
        while self.elapsed < STUMBLE_MS:
            yield self.chance.randrange(1_000, 4_000)
            worker = self.chance.choice(self.workers)
            if worker.live:
                worker.live = False
                worker.dead = self.chance.random() < 0.5
                self._start_worker()
        self._start_worker()

    def _start_worker(self) -> None:
        self.workers.append(Worker(f"10.0.0.{len(self.workers)}:30002"))
        self.start(self._work(self.workers[-1]))

    def _work(self, worker: Worker) -> Actor:
        while not worker.dead and (worker.live or self.elapsed < STUMBLE_MS):
            yield self.chance.choice([50, 200, 200, 900])
            horizon = self.clock.now + self.chance.choice([1, 1, 3_000])
            page = self.store.due(worker.name, horizon, self.chance.choice([3, 10]))
            if not page:
                continue
            if self.chance.random() < 0.2:
                yield self.chance.randrange(800)  # what is on its list may be gone by now
            ids = [d.msg_id for d in page]
            for msg_id, claim in zip(ids, self.store.claim(ids), strict=True):
                if claim.kind is ClaimKind.FIRE:
                    self.witness.claimed(msg_id, claim, self.clock.now)
                    worker.calls += 1
                    self.start(self._call(worker, msg_id, claim))

    def _call(self, worker: Worker, msg_id: str, claim: Claim) -> Actor:
        if self.chance.random() < 0.2:
            self.start(self._late_commander(self.witness.lives[msg_id].message, claim.at))
        yield from self._pause()
        outcome = None
        if not worker.dead:
            if self.clock.now + TTR <= claim.at and self.chance.random() < 0.85:
                takes = self.chance.randrange(TTR)
                self.witness.called(msg_id, self.clock.now, self.clock.now + takes)
                yield takes
                outcome = self._judge(msg_id, claim)
            else:
                delay = self.chance.choice([0, 0, 700, 3_000])
                outcome = Outcome(msg_id, claim.lease, Ended.RELEASED, delay)
        yield from self._pause()
        if outcome is not None and not worker.dead:
            self._settle(outcome)
            if self.chance.random() < 0.1:  # it did not hear the answer
                yield from self._pause()
                self._settle(outcome)
        worker.calls -= 1

    def _pause(self) -> Actor:
        yield self.chance.choice([0, 0, 5, 5, 40, 900, 2_500, 4_500])

    def _judge(self, msg_id: str, claim: Claim) -> Outcome:
        if self.chance.random() < 0.6:
            return Outcome(msg_id, claim.lease, Ended.SUCCEEDED)
        if claim.tries >= 4 or self.chance.random() < 0.2:
            return Outcome(msg_id, claim.lease, Ended.DEAD, 0, "given up")
        delay = self.chance.choice([0, 500, 3_000])
        return Outcome(msg_id, claim.lease, Ended.RETRY, delay, "HTTP 500")

    def _settle(self, outcome: Outcome) -> None:
        (taken,) = self.store.settle([outcome])
        if taken:
            next_at = self.clock.now + outcome.delay_ms
            self.witness.settled(outcome.msg_id, outcome.lease.attempt, outcome.ended, next_at)
            if outcome.ended is Ended.DEAD and self.chance.random() < 0.7:
                m = self.witness.lives[outcome.msg_id].message
                for _ in range(self.chance.choice([1, 2])):
                    self.start(self._redriver(m))
