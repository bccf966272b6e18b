"""One run: a deployment under load, faults, and the verdict on all that happened."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import gevent
from gevent.pool import Pool

import idl
from soraka import tls
from tests.acceptance.sink import wait_until
from tests.faults.checker import Checker, Report, has_ended, percentiles
from tests.faults.clients import Address, Clients, Unanswered
from tests.faults.history import Fault, Final, History, now_ms
from tests.faults.rules import Life
from tests.faults.sink import Sink
from tests.faults.workload import Workload

LEASE_MARGIN_MS = 1000
RATE = 300.0
ASKING = 8
SHOWN = 10
FORGET_UNKNOWN_MS = 10_000
"""A submit of unknown outcome that the API does not know so long after was not accepted."""
DEFECTS = re.compile(
    r"Traceback|(?:loop|pager|timer|claim|call|settler|settle|hand_back|thrift)\.failed|"
    r"settle\.dropped|log\.lost_its_(?:tail|head)"
)
"""In a log line: nothing that a fault outside of the process may bring about."""


@dataclass(slots=True)
class Striking:
    """A fault that is on."""

    fault: Fault

    def struck(self, within_ms: int = 0) -> None:
        """It hurts nothing more that was not in flight by now, or `within_ms` from now."""
        self.fault = replace(self.fault, strikes_until=now_ms() + within_ms)


class Logged(Protocol):
    def output(self) -> str:
        """What it has logged so far."""


class Deployed(Protocol):
    """What is under load: where its receives are, and its processes by name."""

    @property
    def receives(self) -> list[Address]: ...

    @property
    def processes(self) -> Mapping[str, Logged]: ...

    def output(self) -> str:
        """The end of what all have logged."""


class Run:
    """Begins the load at once. `verify` ends it; `close` in any case."""

    def __init__(
        self,
        deployment: Deployed,
        topic: str,
        folder: Path,
        *,
        seed: int,
        rate: float = RATE,
        name: str = "run",
        address: str = "127.0.0.1",
        secured: tls.Context | None = None,
    ) -> None:
        """`address` is where callbacks come to; `secured`: the deployment is spoken to by TLS."""
        self.deployment = deployment
        self.name = name
        self.path = folder / "history.jsonl"
        self.checker = Checker(LEASE_MARGIN_MS)
        self.history = History(self.path, self.checker.add)
        self.history.note(name=name, seed=seed, rate=rate)
        self.seed = seed
        self.sink = Sink(self.history, folder / "calls.jsonl", address)
        self.clients = Clients(deployment.receives, topic, self.sink.url, secured)
        self._logs = {name: len(p.output()) for name, p in deployment.processes.items()}
        self._faults = 0
        self.verified = False
        self.load = Workload(self.clients, self.history, seed=seed, rate=rate)

    # ------------------------------------------------------------------ while it runs

    def flow(self, calls: int = 200, timeout_s: float = 60.0) -> None:
        """Returns when so many more callbacks have come."""
        before = self.sink.calls
        wait_until(
            lambda: self.sink.calls >= before + calls,
            timeout_s,
            lambda: f"{calls} more callbacks: {self.sink.calls - before}\n{self._where()}",
        )

    def called(self, calls: int, timeout_s: float = 60.0) -> None:
        """Returns when so many callbacks have come since the begin."""
        self.flow(calls - self.sink.calls, timeout_s)

    @contextlib.contextmanager
    def fault(self, name: str, *, may_repeat: bool = False, lost_ms: int = 0) -> Iterator[Striking]:
        """Something is broken for the length of the block; see `history.Fault`."""
        striking = self.begin_fault(name, may_repeat=may_repeat, lost_ms=lost_ms)
        try:
            yield striking
        finally:
            self.end_fault(striking)

    def begin_fault(self, name: str, *, may_repeat: bool = False, lost_ms: int = 0) -> Striking:
        self._faults += 1
        fault = Fault(
            number=self._faults,
            name=name,
            begin=now_ms(),
            may_repeat=may_repeat or lost_ms > 0,
            lost_ms=lost_ms,
        )
        self.history.add(fault)
        return Striking(fault)

    def end_fault(self, striking: Striking) -> None:
        now = now_ms()
        fault = striking.fault
        self.history.add(replace(fault, end=now, strikes_until=min(now, fault.strikes_until)))

    def refused_for_now(self) -> int:
        """Answers so far that left it unknown: 503, none, a broken connection."""
        counts = self.checker.report.counts
        return counts["submit unknown"] + counts["command unknown"]

    # ------------------------------------------------------------------ the end

    def verify(self, *, go_on_s: float = 2.0, timeout_s: float = 90.0) -> Report:
        """Lets the load go on a little, ends it, waits until all is settled, and judges."""
        gevent.sleep(go_on_s)
        self.load.stop()
        self.settle(timeout_s)
        self.sink.close()
        report = self.checker.finish()
        self.close()
        assert report.counts["accepted"] > 50, "hardly anything was accepted"
        assert not report.violations, self._told(report)
        self._look_into_logs()
        self.verified = True
        return report

    def settle(self, timeout_s: float) -> None:
        """Asks for the state of every message; of one that has not ended, until it has."""
        deadline = now_ms() + timeout_s * 1000
        left = {life.msg_id: life for life in self.checker.lives() if life.submits}
        turn = 0
        while left and now_ms() < deadline:
            asked = [life for life in left.values() if has_ended(life) or turn % 5 == 4]
            self.ask(asked, left.pop)
            gevent.sleep(0.2)
            turn += 1
        self.ask(list(left.values()), lambda _: None, whatever=True)

    def ask(
        self, lives: list[Life], ended: Callable[[str], object], *, whatever: bool = False
    ) -> None:
        """Notes the states of those that are final, telling `ended`; or of all."""

        def one(life: Life) -> None:
            try:
                info = self.clients.get(life.msg_id)
            except Unanswered:
                return
            final = _final(life, info)
            if whatever or _is_final(life, final):
                self.history.add(final)
                ended(life.msg_id)

        pool = Pool(ASKING)
        for life in lives:
            pool.spawn(one, life)
        pool.join(raise_error=True)

    def close(self) -> None:
        """Safe to repeat."""
        if self.load.is_running:
            self.load.kill()
        self.sink.close()
        self.clients.close()
        self.history.close()

    def _look_into_logs(self) -> None:
        for name, process in self.deployment.processes.items():
            said = process.output()[self._logs.get(name, 0) :]
            found = [line for line in said.splitlines() if DEFECTS.search(line)]
            assert not found, f"{name} logged a defect:\n" + "\n".join(found[:5])

    def _told(self, report: Report) -> str:
        shown = "\n".join(map(str, report.violations[:SHOWN]))
        return f"{report.counts['violations']} violations\n{shown}\n{self._where()}"

    def _where(self) -> str:
        return f"seed {self.seed}, history {self.path}\n{self.deployment.output()}"


def _final(life: Life, info: Any | None) -> Final:
    if info is None:
        return Final(at=now_ms(), msg_id=life.msg_id, state="absent")
    state = idl.soraka.MessageState._VALUES_TO_NAMES[info.state].lower()
    return Final(
        at=now_ms(),
        msg_id=life.msg_id,
        state=state,
        due_at=info.due_at,
        reason=info.reason or "",
    )


def _is_final(life: Life, final: Final) -> bool:
    if final.state == "absent":
        last = max(submit.end for submit in life.submits)
        return not life.accepted and final.at > last + FORGET_UNKNOWN_MS
    return final.state != "pending" or (life.least_due > final.at and not life.cancelled)


def row(name: str, report: Report, held_back: int) -> str:
    """One line of the table of figures; `HEAD` names the columns."""
    p50, p99, most = percentiles(report.lateness)
    f50, f99, fmost = percentiles(report.lateness_in_fault)
    counts = report.counts
    return (
        f"{name:<44.44} {report.operations:>7} {counts['call']:>7} {counts['duplicates']:>5} "
        f"{held_back:>5} {p50:>7.0f} {p99:>7.0f} {most:>7.0f} {f50:>7.0f} {f99:>7.0f} {fmost:>7.0f}"
    )


HEAD = (
    f"{'':<44} {'opera-':>7} {'':>7} {'dupli':>5} {'held':>5} {'late, ms':>23} {'in faults':>23}\n"
    f"{'run':<44} {'tions':>7} {'calls':>7} {'cates':>5} {'back':>5} "
    + " ".join(f"{word:>7}" for word in ("p50", "p99", "max") * 2)
)
