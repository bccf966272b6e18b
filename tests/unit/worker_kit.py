"""What the tests of the worker share: the real SQLite store, any number of loops on it."""

import socket
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent

from soraka.adapters.sqlite_store import SqliteStore
from soraka.config import WorkerConfig
from soraka.errors import StoreUnavailable
from soraka.message import Callback, Message, State, Stored
from soraka.ports import Claim, ClaimKind, DueId, Ended, NewMessage, Outcome
from tests.unit.machine import Withheld
from tests.unit.sinks import Reply, Seen, Sink, eventually, ok
from worker.admission import Why
from worker.callback import Caller
from worker.loop import Loop

OWNER = "10.0.0.1:30002"


class Switched:
    """The real store, which can be cut off: before a call takes effect, or after it.

    Of those in the `dark` it answers nothing, as when their shard is away: claims UNKNOWN, while
    a settle with others fails though the others are settled.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.down = False
        self.answers_lost = False
        self.dark: set[str] = set()
        self.asked_in_the_dark: list[str] = []
        self.claimed: Callable[[], None] = lambda: None
        self.claims: list[int] = []
        self.settles: list[int] = []
        self.pages = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def claim(self, msg_ids: Sequence[str], ahead_ms: int = 0) -> list[Claim]:
        self.claims.append(len(msg_ids))
        lit = [msg_id for msg_id in msg_ids if msg_id not in self.dark]
        found: list[Claim] = self._through(self._store.claim, lit, ahead_ms)
        answers = dict(zip(lit, found, strict=True))
        claims = [answers.get(msg_id, Claim(ClaimKind.UNKNOWN)) for msg_id in msg_ids]
        self.asked_in_the_dark += [msg_id for msg_id in msg_ids if msg_id in self.dark]
        self.claimed()
        return claims

    def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        self.settles.append(len(outcomes))
        if self.dark & {outcome.msg_id for outcome in outcomes}:
            self._store.settle([o for o in outcomes if o.msg_id not in self.dark])
            raise StoreUnavailable("a shard is away")
        answers: list[bool] = self._through(self._store.settle, outcomes)
        return answers

    def due(self, owner: str, until: int, limit: int) -> list[DueId]:
        rows: list[DueId] = self._through(self._store.due, owner, until, limit)
        self.pages += 1
        return rows

    def _through(self, method: Callable[..., Any], *args: Any) -> Any:
        if self.down:
            raise StoreUnavailable("switched off")
        answer = method(*args)
        if self.answers_lost:
            raise StoreUnavailable("the answer was lost")
        return answer


class Rig:
    """A store and any number of loops on it."""

    def __init__(self, path: Path, *, lease_margin_ms: int = 400) -> None:
        self.real = SqliteStore(
            path=path,
            retention_ms=600_000,
            dead_retention_ms=600_000,
            lease_margin_ms=lease_margin_ms,
            early_ms=60_000,
        )
        self.store = Switched(self.real)
        self.position = 0
        self.loops: list[Loop] = []
        self.caller = Caller(max_response_bytes=4096)
        self.fired: list[tuple[str, int]] = []
        self.done: list[tuple[str, Ended, int, str]] = []
        self.released: list[Why] = []

    def now(self) -> int:
        return self.real.now_ms()

    def loop(self, *, start: bool = True, store: Any = None, **options: Any) -> Loop:
        extra = {
            name: options.pop(name)
            for name in (
                "hand_back",
                "owner",
                "call",
                "topic_limit",
                "topic_rate",
                "is_paused",
                "signer",
                "shards",
            )
            if name in options
        }
        config = WorkerConfig(**{"page_ms": 100, "horizon_ms": 1000, **options})
        made = Loop(
            **{"owner": OWNER, "call": self.caller, **extra},
            store=store or self.store,
            clock=self.real,
            config=config,
            on_fire=lambda *args: self.fired.append(args),
            on_done=lambda d: self.done.append((d.topic, d.ended, d.duration_ms, d.reason)),
            on_release=self.released.append,
        )
        self.loops.append(made)
        if start:
            made.start()
        return made

    def put(
        self,
        url: str,
        *,
        in_ms: int = 0,
        count: int = 1,
        owner: str = OWNER,
        method: str = "POST",
        params: str | None = '{"a":1}',
        ttr_ms: int = 1000,
        retry_ms: tuple[int, ...] = (),
        topic: str = "orders",
    ) -> list[str]:
        """Messages in the store; their ids."""
        now = self.now()
        messages = [
            Message(
                msg_id=str(uuid.uuid4()),
                topic=topic,
                created_at=now,
                due_at=now + in_ms,
                ttr_ms=ttr_ms,
                callback=Callback(method=method, url=url, params=params),
                retry_ms=retry_ms,
            )
            for _ in range(count)
        ]
        before = self.position
        self.position += count
        entries = [NewMessage(before + i + 1, m, owner) for i, m in enumerate(messages)]
        self.real.schedule("p", (before if before else -1,), self.position, entries)
        return [m.msg_id for m in messages]

    def stored(self, msg_id: str) -> Stored:
        (found,) = self.real.get([msg_id])
        assert found is not None
        return found

    def ends(self, msg_id: str, limit_s: float = 5.0) -> Stored:
        """Waits until it is finished."""
        eventually(lambda: self.stored(msg_id).state is not State.PENDING, limit_s)
        return self.stored(msg_id)

    def all_end(self, msg_ids: Sequence[str], state: State, limit_s: float = 15.0) -> None:
        def ended() -> bool:
            return all(s and s.state is not State.PENDING for s in self.real.get(msg_ids))

        eventually(ended, limit_s)
        assert Counter(s.state for s in self.real.get(msg_ids) if s) == {state: len(msg_ids)}

    def close(self) -> None:
        for loop in self.loops:
            loop.stop()
        self.caller.close()
        self.real.close()


def calls(server: Sink) -> Counter[str]:
    return Counter(seen.headers["soraka-message-id"] for seen in server.seen)


BACKLOG_MS = 200
"""What piled up in a wait for the CPU makes those late, too, that fall due soon after it."""


def late_ms(seen: Seen, lost: Withheld | None = None) -> float:
    """How late it was called; with `lost`, but for what others took of this machine meanwhile."""
    due_at = int(seen.headers["soraka-due-at"])
    late = seen.at - due_at
    return late if lost is None else max(0.0, late - lost.between(due_at - BACKLOG_MS, seen.at))


def after(seconds: float, then: Reply | None = None) -> Reply:
    """Answers so late."""

    def reply(sock: socket.socket, seen: Seen) -> bool | None:
        gevent.sleep(seconds)
        return (then or ok())(sock, seen)

    return reply
