"""What is counted for every message reads as the Prometheus client's own would."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from soraka.counted import Counts, Durations

BUCKETS = (0.001, 0.01, 1, 2.5)


def test_durations_read_as_a_histogram_does() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Durations("d_seconds", "Text", BUCKETS, ours)
    other = Histogram("d_seconds", "Text", buckets=BUCKETS, registry=theirs)
    for seconds in (0.0, 0.001, 0.0011, 0.5, 1, 2.5, 2.6, 1000):
        mine.observe(seconds)
        other.observe(seconds)
    assert without_created(ours) == without_created(theirs)


def test_counts_read_as_a_counter_does() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Counts("c", "Text", "kind", ("a", "b"), ours)
    other = Counter("c", "Text", ["kind"], registry=theirs)
    for kind in ("a", "b"):
        other.labels(kind)
    for kind in ("a", "a", "b"):
        mine.inc(kind)
        other.labels(kind).inc()
    assert without_created(ours) == without_created(theirs)


def without_created(registry: CollectorRegistry) -> list[str]:
    """When a metric was made is told of theirs alone, unless that is switched off."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]
