"""Sends the peer its tasks: `python -m bench.celery_load`; as `bench.load`, on the same terms."""

import dataclasses
import gc
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from bench.celery_app import app, call
from bench.load import Result, Spec
from bench.messages import PARAMS
from bench.numbers import percentile


def send(spec: Spec) -> Result:
    """One task at a time over one kept connection: Celery has no batch."""
    result, params, latencies = Result(), json.dumps(PARAMS), []
    cpu, start, start_ms = time.process_time(), time.monotonic(), time.time() * 1000
    with app.producer_pool.acquire(block=True) as producer:
        for i in range(spec.count):
            began = time.monotonic()
            slot = i / spec.rate if spec.rate else began - start
            if (early := start + slot - began) > 0:
                time.sleep(early)
                began = start + slot
            result.lag_ms = max(result.lag_ms, (began - start - slot) * 1000)
            due = spec.deliver_at or int(start_ms + slot * 1000 + spec.lead_ms)
            eta = datetime.fromtimestamp(due / 1000, UTC)
            sent = call.apply_async((spec.url, due, params), eta=eta, producer=producer)
            latencies.append(time.monotonic() - start - slot)
            result.ids.append(str(sent.id))
    result.accepted = spec.count
    result.seconds = time.monotonic() - start
    result.rate = spec.count / result.seconds
    result.cpu_s = time.process_time() - cpu
    latencies.sort()
    p50, p99, worst = (round(percentile(latencies, p) * 1000, 2) for p in (0.5, 0.99, 1.0))
    result.latency_ms = (p50, p99, worst)
    return result


def main() -> None:
    gc.disable()
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    print(json.dumps(dataclasses.asdict(send(Spec(**given)))), flush=True)


if __name__ == "__main__":
    main()
