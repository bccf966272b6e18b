"""The peer: a Celery app whose one task makes the callback that soraka would make.

Started as `python -m celery -A bench.celery_app worker -P gevent`; `BENCH_BROKER` is the URL of
its Redis. Acknowledged late, for at-least-once as soraka has it; no results are kept.
"""

import os
from typing import Any
from urllib.parse import urlsplit

from celery import Celery  # type: ignore[import-untyped]
from geventhttpclient import HTTPClient

CONCURRENCY = 200

app = Celery("bench", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
_clients: dict[str, HTTPClient] = {}


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
