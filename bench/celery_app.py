"""The peer: a Celery app whose one task makes the callback that soraka would make.

Started as `python -m celery -A bench.celery_app worker -P gevent`; `BENCH_BROKER` is the URL of
its Redis. Acknowledged late, for at-least-once as soraka has it; no results are kept.
"""

import os
import sys
from typing import Any
from urllib.parse import urlsplit

from celery import Celery  # type: ignore[import-untyped]
from celery.signals import worker_ready  # type: ignore[import-untyped]
from geventhttpclient import HTTPClient

CONCURRENCY = 200

app = Celery("bench", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    # with the default of 10, tasks that end at one time fail to acknowledge
    broker_transport_options={"max_connections": 2 * CONCURRENCY},
)
_clients: dict[str, HTTPClient] = {}


@worker_ready.connect  # type: ignore[untyped-decorator]
def _say_ready(**_: object) -> None:
    """What the benchmark waits for; the log level is above Celery's own words."""
    print("ready.", file=sys.stderr, flush=True)


@app.task(bind=True, name="bench.call", max_retries=5)  # type: ignore[untyped-decorator]
def call(self: Any, url: str, due_at: int, params: str) -> None:
    """POSTs `params` to `url`, with the headers the sink reads. `due_at` in epoch ms."""
    parts = urlsplit(url)
    client = _clients.get(parts.netloc)
    if client is None:
        client = HTTPClient.from_url(url, concurrency=CONCURRENCY)
        _clients[parts.netloc] = client
    headers = {
        "Content-Type": "application/json",
        "Soraka-Message-Id": self.request.id,
        "Soraka-Due-At": str(due_at),
    }
    answer = client.post(parts.path, params, headers=headers)
    answer.read()
    if not 200 <= answer.status_code < 300:
        raise self.retry(countdown=1)
