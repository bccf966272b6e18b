"""What soraka counts, for Prometheus. One `Metrics` per process."""

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
        self.log_lag = Gauge("soraka_log_lag_records", "Log records not yet read", registry=r)
        self.reassigned = Counter(
            "soraka_reassigned_messages", "Messages taken over from absent workers", registry=r
        )
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
        self.in_flight = Gauge("soraka_callbacks_in_flight", "Callbacks under way", registry=r)

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
