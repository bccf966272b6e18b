"""What the simulation saw, and the promises it holds the store to."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from soraka.message import Command, CommandKind, Message, State
from soraka.ports import Claim, Ended, Verdict


class BrokenPromise(AssertionError):
    """The store let happen what must not."""


@dataclass
class Life:
    """What is known of one message. Moments in virtual ms.

    `base` is the due time before added times: as submitted, or by the last retry. `fired_at` is
    when someone first asked to fire it now, `held_until` the end of being held back by the last
    release. `redrives` are those that may have happened, `revived` those that did.
    """

    message: Message
    base: int
    confirmed_ms: int = 0
    issued_ms: int = 0
    cancel_issued: bool = False
    cancelled: bool = False
    added_at: int = -1
    fired: dict[int, int] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    busy_until: int = 0
    calls: int = 0
    finished: Ended | None = None
    fired_at: int = 1 << 60
    held_until: int = 0
    redrives: int = 0
    revived: int = 0


class Witness:
    """Told of everything; raises BrokenPromise at once."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.fires = 0
        self._seen: dict[str, set[Verdict]] = defaultdict(set)
        self.released = 0
        self.died = 0

    def accepted(self, message: Message) -> None:
        self.lives[message.msg_id] = Life(message, message.due_at)

    def issued(self, command: Command, now: int) -> None:
        """Before anyone but the caller knows of the command."""
        life = self.lives[command.msg_id]
        match command.kind:
            case CommandKind.CANCEL:
                life.cancel_issued = True
            case CommandKind.ADD_TIME:
                life.issued_ms += command.add_ms
            case CommandKind.FIRE_NOW:
                life.fired_at = min(life.fired_at, now)
            case CommandKind.REDRIVE:
                life.redrives += 1

    def answered(self, command: Command, verdict: Verdict, now: int, *, fresh: bool) -> None:
        """`fresh`: the log cannot have brought the command to the store before."""
        seen = self._seen[command.command_id]
        _must(verdict is not Verdict.NOT_FOUND, f"{command} not found")
        first = not seen
        seen.add(verdict)
        _must(not seen >= {Verdict.APPLIED, Verdict.TOO_LATE}, f"{command}: two answers")
        life = self.lives[command.msg_id]
        if verdict is Verdict.TOO_LATE:
            life.redrives -= first and command.kind is CommandKind.REDRIVE
            return
        if command.kind is CommandKind.CANCEL:
            life.cancelled = True
        elif first and fresh and command.kind is CommandKind.ADD_TIME:
            life.confirmed_ms += command.add_ms
            life.added_at = now

    def fired(self, msg_id: str, due_at: int, now: int) -> None:
        """`due_at`, or until when it is held back, just after a fire now was applied for the first
        time."""
        _must(due_at <= now, f"{msg_id}: fired now, and due in {due_at - now} ms")

    def claimed(self, msg_id: str, claim: Claim, now: int) -> None:
        life = self.lives[msg_id]
        self.fires += 1
        _must(claim.attempt not in life.fired, f"{msg_id}: {claim.attempt} given twice")
        life.fired[claim.attempt] = now
        if life.finished is Ended.DEAD:
            self._revived(msg_id, claim)
        _must(
            claim.due_at <= life.base + life.issued_ms,
            f"{msg_id}: a command applied twice, or a release moved it",
        )
        commanded = life.issued_ms > 0 or life.fired_at < 1 << 60 or life.redrives > 0
        _must(commanded or now >= life.held_until, f"{msg_id}: claimed while it was held back")

    def _revived(self, msg_id: str, claim: Claim) -> None:
        life = self.lives[msg_id]
        life.revived += 1
        _must(life.revived <= life.redrives, f"{msg_id}: came back from the dead")
        _must(claim.tries == 1, f"{msg_id}: redriven, and at its attempt {claim.tries}")
        life.finished, life.base, life.confirmed_ms = None, 0, 0
        life.issued_ms += claim.due_at

    def called(self, msg_id: str, now: int, ends_at: int) -> None:
        """A request leaves."""
        life = self.lives[msg_id]
        due_at = min(life.base + life.confirmed_ms, life.fired_at)
        _must(now >= due_at, f"{msg_id}: called before it was due")
        _must(now >= life.busy_until, f"{msg_id}: two calls at once")
        _must(not life.cancelled, f"{msg_id}: called after a confirmed cancel")
        _must(life.finished is None, f"{msg_id}: called after it had finished")
        life.busy_until = ends_at
        life.calls += 1

    def settled(self, msg_id: str, attempt: int, ended: Ended, next_at: int) -> None:
        """The store took the outcome; `next_at` is now and its delay."""
        life = self.lives[msg_id]
        _must(life.finished is None, f"{msg_id}: finished twice")
        _must(not life.cancelled, f"{msg_id}: settled after a confirmed cancel")
        _must(attempt not in life.settled, f"{msg_id}: {attempt} settled twice")
        life.settled.add(attempt)
        _must(life.fired[attempt] >= life.added_at, f"{msg_id}: an added time was swallowed")
        if ended is Ended.RELEASED:
            self.released += 1
            life.held_until = next_at
        elif ended is Ended.RETRY:
            life.base, life.confirmed_ms = next_at, 0
        else:
            life.finished = ended
            self.died += ended is Ended.DEAD

    def ended(self, states: dict[str, State]) -> Counter[State]:
        """`states` at the end; returns how many of each."""
        for msg_id, life in self.lives.items():
            state = states[msg_id]
            _must(state is not State.PENDING, f"{msg_id} never ended")
            if state is State.CANCELLED:
                _must(life.cancel_issued, f"{msg_id} was never cancelled")
                redriven = life.finished is Ended.DEAD and life.redrives > life.revived
                _must(life.finished is None or redriven, f"{msg_id}: cancelled and {life.finished}")
            else:
                _must(life.calls > 0, f"{msg_id} was never called")
                _must(life.finished == state.value, f"{msg_id}: {life.finished}, not {state}")
                _must(not life.cancelled, f"{msg_id}: its cancel was forgotten")
        return Counter(states.values())


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenPromise(what)
