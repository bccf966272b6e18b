"""Metrics of what happens to every message, in one process: a tenth of the cost of the Prometheus
client's own, which take a lock or two each time."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Counts(Collector):
    """A counter with one label, whose values are known: each shows from the start."""

    def __init__(
        self, name: str, text: str, label: str, values: Iterable[str], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._label = name, text, label
        self._counts = dict.fromkeys(values, 0)
        registry.register(self)

    def inc(self, value: str) -> None:
        self._counts[value] += 1

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=[self._label])
        for value, count in self._counts.items():
            family.add_metric([value], count)
        yield family


class Durations(Collector):
    """A histogram of seconds."""

    def __init__(
        self, name: str, text: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text = name, text
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[Metric]:
        whole, buckets = 0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            whole += count
            buckets.append((_text(bound), whole))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)


def _text(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]
