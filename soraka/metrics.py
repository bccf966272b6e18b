"""What soraka counts, for Prometheus. One `Metrics` per process.

No metric has a label whose values come from clients: there may be any number of topics, callback
hosts and ids. By topic there are the statistics in the store.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client import Gauge as AnyGauge

from soraka.counted import Counts, Durations
from soraka.ports import Ended

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_STORE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2)

# Among processes that share, a gauge has the value that one of them set last.
Gauge = partial(AnyGauge, multiprocess_mode="livemostrecent")


def share(folder: Path) -> None:
    """Each Metrics made from now on in this process, or one forked from it, shows the sum over all
    processes with that folder. Before the first Metrics: to be called after the fork.

    The client library decides at its import how to keep values, from the environment; it is
    imported by then, so it is made to decide again.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def forget_process(pid: int, folder: Path) -> None:
    """One that shared has ended: what it counted stays, its gauges go."""
    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class WorkerGauges:
    """What each worker said in its last heartbeat to this center, by address."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges = {
            name: Gauge(f"soraka_worker_{metric}", text, ["worker"], registry=registry)
            for name, metric, text in (
                ("held", "held_messages", "Messages of the near future in its memory"),
                ("in_flight", "in_flight_messages", "Messages it claims, calls or settles"),
                ("cpu", "cpu_cores", "Cores it used of late"),
                ("memory_bytes", "memory_bytes", "Memory it uses"),
                ("skew_s", "clock_skew_seconds", "Its clock ahead of the store's"),
                ("lag_s", "heartbeat_seconds", "How long it takes to answer, smoothed"),
                ("missed", "heartbeats_missed", "Heartbeats missed in a row"),
            )
        }
        self._shown: set[tuple[str, str]] = set()

    def set(self, address: str, values: Mapping[str, float]) -> None:
        """`values` by the names above; those left out stay as they are."""
        for name, value in values.items():
            self._gauges[name].labels(address).set(value)
            self._shown.add((name, address))

    def remove(self, address: str) -> None:
        """Safe to repeat."""
        for name in self._gauges:
            if (name, address) in self._shown:
                self._shown.remove((name, address))
                self._gauges[name].remove(address)


class Metrics:
    """Names begin with `soraka_`; times are in seconds. `shared`: the folder given to `share`."""

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._skew_ms: Callable[[], int] = lambda: 0
        disable_created_metrics()  # type: ignore[no-untyped-call]
        r = self.registry = CollectorRegistry()
        self.requests = Counter(
            "soraka_requests",
            "Submits, cancels and add-times by answer",
            ["operation", "ec"],
            registry=r,
        )
        self.scheduled = Counter(
            "soraka_scheduled_records", "Log records handed to the store", registry=r
        )
        self.undecodable = Counter(
            "soraka_undecodable_records", "Log records sent to the dead-letter log", registry=r
        )
        self.gaps = Counter(
            "soraka_store_gaps", "Times the store had lost its tail and was read up", registry=r
        )
        self.emptied = Counter(
            "soraka_store_emptied_shards",
            "Shards found without anything they had read: see `soraka rebuild`",
            registry=r,
        )
        self.vouched = Counter(
            "soraka_store_vouched", "Restarts of the store that were vouched for", registry=r
        )
        self.log_lag = Gauge(
            "soraka_log_lag_records",
            "Log records not yet read, each of up to 400 messages",
            registry=r,
        )
        self.reassigned = Counter(
            "soraka_reassigned_messages", "Messages moved to another worker", registry=r
        )
        self.to_move = Gauge(
            "soraka_takeover_messages",
            "Messages of workers that are gone, drain or stand still: those yet to be moved",
            registry=r,
        )
        self.resumed = Counter(
            "soraka_resumed_messages", "Messages of topics no longer paused, given out", registry=r
        )
        self.workers = WorkerGauges(r)
        self.callbacks = Counts(
            "soraka_callbacks", "Attempts by how they ended", "ended", map(str, Ended), r
        )
        self.lateness = Durations(
            "soraka_lateness_seconds", "From due time to the start of the callback", _SECONDS, r
        )
        self.callback_seconds = Durations(
            "soraka_callback_seconds", "Duration of callbacks", _SECONDS, r
        )
        self.flow_seconds = Durations(
            "soraka_flow_seconds", "From due time to the end of the callback", _SECONDS, r
        )
        self.pending = Gauge("soraka_pending_messages", "Messages not finished", registry=r)
        self.overdue = Gauge(
            "soraka_overdue_messages", "Messages whose time has come, not parked", registry=r
        )
        self.oldest_overdue = Gauge(
            "soraka_oldest_overdue_seconds", "How long the oldest of them is due", registry=r
        )
        self.parked = Gauge(
            "soraka_parked_messages", "Messages kept while their topic is paused", registry=r
        )
        self._store_seconds = Histogram(
            "soraka_store_seconds",
            "How long the store takes to answer a call",
            ["operation"],
            buckets=_STORE_SECONDS,
            registry=r,
        )
        self.held = Gauge("soraka_held_messages", "Messages a worker holds in memory", registry=r)
        self.clock_skew = Gauge(
            "soraka_clock_skew_seconds",
            "By how much the wall clock of this host is ahead of the store's clock",
            registry=r,
        )
        self.in_flight = Gauge("soraka_callbacks_in_flight", "Callbacks under way", registry=r)
        self.released = Counter(
            "soraka_released_claims",
            "Claims given back without a call, by why: host, topic, rate, paused, circuit, lease, "
            "drain",
            ["why"],
            registry=r,
        )
        self.open_circuits = Gauge(
            "soraka_open_circuits", "Callback hosts left alone after failures", registry=r
        )

    def store_timer(self, operation: str) -> Callable[[float], None]:
        """What gets the seconds of each call of an operation."""
        return self._store_seconds.labels(operation).observe

    def show_skew(self, skew_ms: Callable[[], int]) -> None:
        """From now on each exposition has the skew of that moment."""
        self._skew_ms = skew_ms

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        self.clock_skew.set(self._skew_ms() / 1000)
        registry = self.registry
        if self._shared is not None:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
