"""What is done to a target and what is read off: one function per kind of figure."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.load import Result
from bench.numbers import percentile
from bench.processes import Usage, wait_until
from bench.systems import Servers
from bench.targets import SinkProcess, SorakaTarget, Target

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
QUIET_S = 15.0
"""Without a callback for so long, the rest is missing."""
PROBES = 64
DUE_WHILE_DOWN_S = 1.5
"""Less than `center.absent_ms`: it stays the message of that worker."""
SETTLED_S = 3.0
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Program:
    """A flow of messages. `rate` (messages/s) 0: a burst, all due at one moment `lead_ms` from
    its beginning; otherwise each is due `lead_ms` after its slot."""

    name: str
    count: int
    rate: float = 0.0
    lead_ms: int = 2000
    protocol: str = "http"
    batch: int = 100
    connections: int = 8

    def send(self, target: Target) -> Result:
        deliver_at = 0 if self.rate else int(time.time() * 1000) + self.lead_ms
        return target.send(
            protocol=self.protocol,
            count=self.count,
            rate=self.rate,
            lead_ms=self.lead_ms,
            deliver_at=deliver_at,
            batch=self.batch,
            connections=self.connections,
            keep_ids=True,
        )


def end_to_end(target: Target, sink: SinkProcess, program: Program) -> Row:
    """Submits and waits for the callbacks. See README.md for the columns."""
    sink.take()
    usage = Usage({**target.pids, "sink": sink.pid})
    sent = program.send(target)
    _wait_for(sink, target, sent.accepted)
    time.sleep(0.5)  # what settles after the last callback belongs to it
    used = usage.read()
    calls = sink.take()
    return {
        "target": target.name,
        "program": program.name,
        "accepted": sent.accepted,
        "refused": sent.refused + sent.broken,
        "submit_rate": round(sent.rate),
        "submit_ms": sent.latency_ms,
        "lag_ms": round(sent.lag_ms, 1),
        "error": sent.first_error,
        **_arrivals(calls, sent.ids, burst=not program.rate),
        **_costs(used, sent, sent.accepted),
    }


def warm_up(target: Target, sink: SinkProcess) -> None:
    """Compiles the JVMs' hot paths and fills caches; its figures are thrown away."""
    end_to_end(target, sink, Program(name="warm-up", count=5000, rate=1000, lead_ms=500))


def _wait_for(sink: SinkProcess, target: Target, count: int, quiet_s: float = QUIET_S) -> None:
    """Until the sink has `count` calls, or gets none for `quiet_s`."""
    last, since = -1, time.monotonic()
    while (now := sink.count()) < count and time.monotonic() - since < quiet_s:
        if now != last:
            last, since = now, time.monotonic()
        target.check()
        time.sleep(0.1)


def _arrivals(calls: Sequence[tuple[str, int, float]], ids: Sequence[str], *, burst: bool) -> Row:
    late = sorted(at - due for _, due, at in calls)
    times = Counter(msg_id for msg_id, _, _ in calls)
    if not calls:
        return {"rate": 0, "late_ms": (0, 0, 0), "early": 0, "missing": len(ids), "doubles": 0}
    first = min(due for _, due, _ in calls) if burst else min(at for *_, at in calls)
    span_s = (max(at for *_, at in calls) - first) / 1000
    return {
        "rate": round(len(calls) / max(span_s, 0.001)),
        "late_ms": tuple(round(percentile(late, p), 1) for p in (0.5, 0.99, 1.0)),
        "early": sum(lateness < 0 for lateness in late),
        "missing": len(set(ids) - set(times)),
        "doubles": sum(n - 1 for n in times.values()),
    }


def _costs(used: dict[str, dict[str, float]], sent: Result, messages: int) -> Row:
    """CPU µs per message and MB by process; `others` is what the machine did beside us, cores."""
    machine = used.pop("machine")
    ours = sum(figures["cpu_s"] for figures in used.values()) + sent.cpu_s
    per = max(messages, 1) / 1e6
    return {
        "cpu_us": {name: round(figures["cpu_s"] / per, 1) for name, figures in used.items()}
        | {"load": round(sent.cpu_s / per, 1)},
        "rss_mb": {name: round(figures["rss_mb"]) for name, figures in used.items()},
        "others": round(max(0.0, machine["cpu_s"] - ours) / machine["wall_s"], 2),
    }


# --------------------------------------------------------------------------- submits


def reference(target: Target, *, connections: int, seconds: float) -> Row:
    """A closed loop of requests that do nothing."""
    target.send(connections=connections, seconds=1)
    usage = Usage(target.pids)
    sent = target.send(connections=connections, seconds=seconds)
    return {
        "target": target.name,
        "program": "reference",
        "connections": connections,
        "accepted": sent.accepted,
        "refused": sent.refused + sent.broken,
        "submit_rate": round(sent.rate),
        "submit_ms": sent.latency_ms,
        "error": sent.first_error,
        **_costs(usage.read(), sent, sent.accepted),
    }


def submits(
    target: SorakaTarget,
    sink: SinkProcess,
    *,
    protocol: str,
    batch: int,
    connections: int,
    seconds: float,
) -> Row:
    """A closed loop of submits due in an hour; `stored_s`: until center had them all in store."""
    sink.take()
    usage = Usage(target.pids)
    sent = target.send(
        protocol=protocol,
        batch=batch,
        connections=connections,
        seconds=seconds,
        lead_ms=HOUR_MS,
    )
    accepting = usage.read()
    stored_s = wait_stored(target, sink)
    whole = _costs(usage.read(), sent, sent.accepted)
    return {
        "target": target.name,
        "program": f"{protocol} " + ("single" if batch == 1 else f"batch of {batch}"),
        "connections": connections,
        "accepted": sent.accepted,
        "refused": sent.refused + sent.broken,
        "submit_rate": round(sent.rate),
        "submit_ms": sent.latency_ms,
        "stored_s": round(stored_s, 1),
        "error": sent.first_error,
        "cpu_while_accepting": _costs(accepting, sent, sent.accepted)["cpu_us"],
        **whole,
    }


def wait_stored(target: SorakaTarget, sink: SinkProcess, limit_s: float = 600.0) -> float:
    """Seconds until all that was submitted before is in the store.

    The log keeps the order of each partition: messages due at once, on every partition, are
    called back after whatever lies before them was stored.
    """
    began = time.monotonic()
    wanted = sink.count()
    sent = target.send(count=PROBES, batch=1, connections=4, lead_ms=-1000)
    wanted += sent.accepted
    wait_until(lambda: sink.count() >= wanted, limit_s, "the center has read up the log")
    return time.monotonic() - began


# --------------------------------------------------------------------------- pending


def restart(target: SorakaTarget, system: Servers, sink: SinkProcess) -> Row:
    """Stops a worker and starts it again at its address, as an upgrade does, with a message of its
    own due meanwhile. `called_s`: from the start of the process to that callback."""
    name = next(name for name in system.pids if name.startswith("worker"))
    calls = sink.count()
    target.send(count=1, batch=1, connections=1, lead_ms=int(DUE_WHILE_DOWN_S * 1000))
    stopped = time.monotonic()
    with system.stopped(name):
        time.sleep(max(0.0, stopped + DUE_WHILE_DOWN_S - time.monotonic()))
    started = time.monotonic()
    wait_until(lambda: sink.count() > calls, QUIET_S, "the worker calls again", every_s=0.005)
    called_s = round(time.monotonic() - started, 2)
    time.sleep(SETTLED_S)
    rss_mb = {name: round(Usage(system.pids).rss_mb(name))}
    return {
        "target": target.name,
        "program": f"restart of {name}",
        "called_s": called_s,
        "rss_mb": rss_mb,
    }


def pending(
    target: SorakaTarget,
    sink: SinkProcess,
    *,
    count: int,
    near: Program,
    say: Callable[[Row], None],
) -> list[Row]:
    """`near` before and after `count` messages due in a day were submitted; says each row."""
    rows = [{**end_to_end(target, sink, near), "program": f"{near.name}, before"}]
    say(rows[0])
    rows.append(_fill(target, sink, count))
    say(rows[1])
    rows.append({**end_to_end(target, sink, near), "program": f"{near.name}, after"})
    say(rows[2])
    return rows


def _fill(target: SorakaTarget, sink: SinkProcess, count: int) -> Row:
    sink.take()
    before = target.system.sizes_mb()
    usage = Usage(target.pids)
    sent = target.send(protocol="thrift", batch=500, connections=4, count=count, lead_ms=DAY_MS)
    stored_s = wait_stored(target, sink)
    sizes = target.system.sizes_mb()
    return {
        "target": target.name,
        "program": f"{count:,} pending",
        "accepted": sent.accepted,
        "refused": sent.refused + sent.broken,
        "submit_rate": round(sent.rate),
        "submit_ms": sent.latency_ms,
        "submit_s": round(sent.seconds, 1),
        "stored_s": round(stored_s, 1),
        "error": sent.first_error,
        "size_mb": {name: (round(before.get(name, 0)), round(mb)) for name, mb in sizes.items()},
        **_costs(usage.read(), sent, sent.accepted),
    }
