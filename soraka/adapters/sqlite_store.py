"""The store in one SQLite file: one shard, one connection.

synchronous=NORMAL: power loss may undo the last commits, but never a part of one. The store
knows its position in the log, so what it lost is read again. Commands alone are committed FULL.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from soraka.adapters.sqlite_archive import SqliteArchive, attempt_of, stored_of
from soraka.adapters.sqlite_keys import SqliteKeys
from soraka.adapters.sqlite_store_rows import DUE, SCAN, Rows
from soraka.adapters.store_rules import Row, Rules, new_row
from soraka.errors import Gap, StoreUnavailable
from soraka.message import Command, State, Stored
from soraka.ports import (
    DOOR_MS,
    MAX_WAITING,
    Claim,
    ClaimKind,
    DueId,
    Ended,
    Entry,
    Move,
    NewMessage,
    Outcome,
    Totals,
    Verdict,
)


class SqliteStore(SqliteArchive, SqliteKeys):
    """Implements FullStore. Safe for use by many greenlets, not by two processes.

    `now_ms` replaces the clock in tests.
    """

    def __init__(
        self,
        *,
        path: Path,
        retention_ms: int,
        dead_retention_ms: int,
        lease_margin_ms: int,
        early_ms: int,
        door_ms: int = DOOR_MS,
        max_waiting: int = MAX_WAITING,
        timeout_ms: int = 5000,
        now_ms: Callable[[], int] | None = None,
        rules: type[Rules] = Rules,
    ) -> None:
        super().__init__(path, timeout_ms=timeout_ms, now_ms=now_ms)
        self._rules = rules(
            retention_ms=retention_ms,
            dead_retention_ms=dead_retention_ms,
            lease_margin_ms=lease_margin_ms,
            early_ms=early_ms,
            kept_ms=self._kept_ms,
        )
        self._door_ms = door_ms
        self._max_waiting = max_waiting

    def positions(self, partition: str) -> tuple[int, ...]:
        return (self._run(lambda rows: rows.position(partition)),)

    def schedule(
        self, partition: str, previous: tuple[int, ...], last: int, entries: Sequence[Entry]
    ) -> tuple[int, ...]:
        (known,) = previous

        def work(rows: Rows) -> int:
            standing = rows.position(partition)
            if standing < known:
                raise Gap(partition, (standing,))
            folding = rows.any_waiting()
            for entry in entries:
                if entry.position > standing:
                    self._apply(rows, entry, folding)
            if last > standing:
                rows.set_position(partition, last)
            rows.purge(len(entries))
            return max(standing, last)

        return (self._run(work),)

    def rewind(self, partition: str, position: int) -> None:
        def work(rows: Rows) -> None:
            if rows.position(partition) > position:
                rows.set_position(partition, position)

        self._run(work)

    def adopt(self, positions: Mapping[str, int]) -> int:
        return int(self._run(lambda rows: rows.adopt(positions)))

    def restarts(self) -> frozenset[str]:
        """None: what was confirmed here is not lost with the process."""
        return frozenset()

    def vouch(self, processes: frozenset[str]) -> None:
        """Nothing asks for it."""

    def command(self, commands: Sequence[Command]) -> list[Verdict]:
        # durable: once confirmed, a cancel must not be undone by what power loss undoes
        return self._run(lambda rows: [self._command(rows, c) for c in commands], durable=True)

    def claim(self, msg_ids: Sequence[str], ahead_ms: int = 0) -> list[Claim]:
        return self._run(lambda rows: [self._claim(rows, msg_id, ahead_ms) for msg_id in msg_ids])

    def life(self, msg_id: str) -> str:  # noqa: ARG002 -- the port's
        """None: what ends this process ends its calls, too."""
        return ""

    def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        def work(rows: Rows) -> list[bool]:
            answers = [self._settle(rows, outcome) for outcome in outcomes]
            rows.purge(len(outcomes))
            return answers

        return self._run(work)

    def due(self, owner: str, until: int, limit: int, since: int = 0) -> list[DueId]:
        found = self._query(DUE, (owner, since, until, max(0, limit)))
        return [DueId(look_at, msg_id) for look_at, msg_id in found]

    def assign(self, moves: Sequence[Move]) -> list[int | None]:
        return self._run(lambda rows: [self._assign(rows, move) for move in moves])

    def close(self) -> None:
        self._thread.close()

    def owners(self) -> set[str]:
        return {name for (name,) in self._query("SELECT name FROM owner WHERE pending > 0")}

    def scan(self, owner: str, cursor: str, limit: int) -> tuple[list[DueId], str]:
        # by id, which never changes; others' messages are passed over
        found = self._query(SCAN, (cursor, limit))
        ids = [
            DueId(at, msg_id)
            for msg_id, at, whose, state in found
            if (whose, state) == (owner, State.PENDING)
        ]
        return ids, found[-1][0] if len(found) == limit else ""

    def get(self, msg_ids: Sequence[str]) -> list[Stored | None]:
        found = self._run(lambda rows: [rows.load(msg_id) for msg_id in msg_ids])
        return [None if row is None else stored_of(row) for row in found]

    def totals(self) -> Totals:
        counts = dict(self._query("SELECT name, value FROM counter"))
        pending = dict(self._query("SELECT name, pending FROM owner WHERE pending > 0"))
        return Totals(
            pending=pending,
            scheduled=counts.get("scheduled", 0),
            succeeded=counts.get(State.SUCCEEDED, 0),
            cancelled=counts.get(State.CANCELLED, 0),
            dead=counts.get(State.DEAD, 0),
            attempts=counts.get("attempts", 0),
            redriven=counts.get("redriven", 0),
        )

    def _apply(self, rows: Rows, entry: Entry, folding: bool) -> None:
        if isinstance(entry, NewMessage):
            self._insert(rows, new_row(entry), folding)
            return
        row = rows.load(entry.command.msg_id)
        if row is not None:
            self._rules.command(row, entry.command, rows.now)
            rows.save(row)

    def _insert(self, rows: Rows, row: Row, folding: bool) -> None:
        if rows.load(row.msg_id) is not None:
            return
        rows.insert(row)
        waiting = rows.waiting(row.msg_id) if folding else []
        if waiting:
            for command in waiting:
                self._rules.command(row, command, rows.now)
            rows.save(row)
            rows.clear_door(row.msg_id)

    def _command(self, rows: Rows, command: Command) -> Verdict:
        row = rows.load(command.msg_id)
        if row is not None:
            verdict = self._rules.command(row, command, rows.now)
            rows.save(row)
            return verdict
        waiting = rows.waiting(command.msg_id)
        verdict = self._rules.early(waiting, command, rows.now)
        if verdict is Verdict.EARLY and command.command_id not in {c.command_id for c in waiting}:
            self._refuse_when_full(rows)
            rows.leave_at_door(command, rows.now + self._door_ms)
        return verdict

    def _refuse_when_full(self, rows: Rows) -> None:
        if rows.at_doors() >= self._max_waiting:
            rows.purge(0)
            if rows.at_doors() >= self._max_waiting:
                raise StoreUnavailable("too many commands wait for messages not yet here")

    def _claim(self, rows: Rows, msg_id: str, ahead_ms: int) -> Claim:
        row = rows.load(msg_id)
        claim = self._rules.claim(row, rows.now, ahead_ms)
        if row is not None and claim.kind is ClaimKind.FIRE:
            rows.save(row)
        return claim

    def _settle(self, rows: Rows, outcome: Outcome) -> bool:
        row = rows.load(outcome.msg_id)
        if row is None or not self._rules.settle(row, outcome, rows.now):
            return False
        rows.save(row)
        if outcome.ended is not Ended.RELEASED:
            rows.add_attempt(row, attempt_of(row, outcome))
        return True

    def _assign(self, rows: Rows, move: Move) -> int | None:
        row = rows.load(move.msg_id)
        look_at = self._rules.assign(row, move)
        if row is not None and look_at is not None:
            rows.save(row)
        return look_at
