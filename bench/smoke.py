"""Whether soraka has become much slower than it was, on whatever machine this is.

Each figure is by that of a bare Flask, measured just before on the same cores. Only a fall to less
than half of what it was is one: machines differ, and other work takes its part.
"""

from collections.abc import Mapping
from typing import Any

KNOWN: Mapping[str, float] = {
    "single submits": 1.2,
    "submits in batches of 100": 8.0,
    "callbacks of a burst": 1.8,
}
"""Per second, by the requests per second of a bare Flask with one process, on two idle cores."""
LEAST = 0.5
Row = Mapping[str, Any]


def figures(bare: Row, single: Row, batch: Row, burst: Row) -> dict[str, float]:
    """As KNOWN has them."""
    rates = (single["submit_rate"], batch["submit_rate"], burst["rate"])
    return {name: rate / bare["submit_rate"] for name, rate in zip(KNOWN, rates, strict=True)}


def fallen(found: Mapping[str, float]) -> list[str]:
    """What is less than half as fast as it was."""
    return [
        f"{name}: {found[name]:.2f} of a bare Flask, was {known:.2f}"
        for name, known in KNOWN.items()
        if found[name] < LEAST * known
    ]
