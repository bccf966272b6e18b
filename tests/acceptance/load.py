"""Messages that flow while something breaks, and what must hold afterwards."""

import random

import gevent
import requests

from tests.acceptance.deployments import Deployment, now_ms
from tests.acceptance.sink import Sink, wait_until

DELAYS_MS = (0, 50, 300, 1000, 2500)
CANCELLED_SHARE = 0.3
CLOCK_MS = 2


class Load:
    """Submits for as long as it is let, cancelling some; remembers what was confirmed."""

    def __init__(
        self,
        deployment: Deployment,
        topic: str,
        sink: Sink,
        seed: int,
        *,
        cancelled_share: float = CANCELLED_SHARE,
    ) -> None:
        self._deployment = deployment
        self._topic = topic
        self._sink = sink
        self._url = sink.url("/load")
        self._random = random.Random(seed)
        self._cancelled_share = cancelled_share
        self._stopped = False
        self.accepted: dict[str, int] = {}
        """Least due time by message id."""
        self.cancelled: set[str] = set()
        self.refused = 0
        """Answers that were 503."""
        self._greenlets = [gevent.spawn(self._run) for _ in range(4)]

    def stop(self) -> None:
        self._stopped = True
        gevent.joinall(self._greenlets, timeout=40, raise_error=True)

    def verify(self, timeout_s: float) -> None:
        """All that was accepted is called, nothing early, nothing confirmed as cancelled."""
        assert len(self.accepted) - len(self.cancelled) > 100
        wait_until(
            lambda: not self._missing(),
            timeout_s,
            lambda: f"all of {len(self.accepted)} called, but not {list(self._missing())[:5]}",
        )
        assert not self._called() & self.cancelled
        calls = self._sink.calls
        assert [c for c in calls if c.at < c.due_at] == []
        # receive knows the store's clock to a millisecond or two
        early = [c for c in calls if c.at < self.accepted.get(c.msg_id, 0) - CLOCK_MS]
        assert early == []

    def _called(self) -> set[str]:
        return {call.msg_id for call in self._sink.calls}

    def _missing(self) -> set[str]:
        """Not called though it should be. A cancel whose answer got lost may have held."""
        missing = self.accepted.keys() - self.cancelled - self._called()
        if len(missing) > 50:
            return missing
        return {msg_id for msg_id in missing if self._deployment.state(msg_id) != "cancelled"}

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._submit()
            except requests.RequestException:
                gevent.sleep(0.05)  # killed just now: whether it was accepted is unknown
            gevent.sleep(0.002)

    def _submit(self) -> None:
        delay = self._random.choice(DELAYS_MS)
        before = now_ms()
        item = {
            "topic_name": self._topic,
            "delay_time": delay,
            "callback": {"request_type": "POST", "url": self._url},
        }
        _, body = self._deployment.post("submitBatch", json={"messages": [item] * 5})
        results = body["result"] or []
        self.refused += body["ec"] == 503 or any(result["ec"] == 503 for result in results)
        ids = [result["msgId"] for result in results if result["ec"] == 200]
        self.accepted.update(dict.fromkeys(ids, before + delay))
        if ids and delay and self._random.random() < self._cancelled_share:
            self._cancel(ids[0])

    def _cancel(self, msg_id: str) -> None:
        _, body = self._deployment.post(
            "cancel", json={"topic_name": self._topic, "msg_id": msg_id}
        )
        if body["ec"] == 200:
            self.cancelled.add(msg_id)
