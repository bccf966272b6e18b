"""What soraka counts, for Prometheus. One `Metrics` per process."""

from collections.abc import Callable, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


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
    """Names begin with `soraka_`; times are in seconds."""

    def __init__(self) -> None:
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
        self.log_lag = Gauge("soraka_log_lag_records", "Log records not yet read", registry=r)
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
        self.callbacks = Counter(
            "soraka_callbacks", "Attempts by how they ended", ["ended"], registry=r
        )
        self.lateness = Histogram(
            "soraka_lateness_seconds",
            "From due time to the start of the callback",
            buckets=_SECONDS,
            registry=r,
        )
        self.callback_seconds = Histogram(
            "soraka_callback_seconds", "Duration of callbacks", buckets=_SECONDS, registry=r
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
            "Claims given back without a call, by why: host, topic, circuit, lease, drain",
            ["why"],
            registry=r,
        )
        self.open_circuits = Gauge(
            "soraka_open_circuits", "Callback hosts left alone after failures", registry=r
        )

    def show_skew(self, skew_ms: Callable[[], int]) -> None:
        """From now on each exposition has the skew of that moment."""
        self.clock_skew.set_function(lambda: skew_ms() / 1000)

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
