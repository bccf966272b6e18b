"""A deployment as admin sees it, made up: the pages at their fullest, and at their emptiest.

The same names and return types as admin_app.service.Service, without servers.
"""

import math
import time
from collections import Counter
from dataclasses import replace
from typing import Any

from admin_app.bulk import Job
from admin_app.instances import InstanceView, Load
from admin_app.messages import Detail, Filter, Page
from admin_app.monitor import COUNTS, LATE_MS, Calls, FlowPoint, Lateness, MinutePoint, WorkerDays
from admin_app.overview import Overview, Role
from admin_app.topics import TopicView
from soraka.errors import MessageNotFound, TopicNotFound
from soraka.limits import DAY_MS
from soraka.message import Attempt, Callback, Instance, Message, State, Stored, Topic, parked_owner
from soraka.ports import Backlog, Totals

NOW = int(time.time() * 1000)
MINUTE_MS = 60_000
LONG = "warehouse.returns.parcel-that-came-back-unopened.remind-customer.second-notice.eu-central"
WORKERS = ("10.20.0.11:30002", "10.20.0.12:30002", "10.20.0.13:30002", "10.20.0.14:30012")
TOPICS = (
    Topic(
        name="billing.dunning",
        business="Billing",
        worker_num=2,
        workers=WORKERS[:2],
        max_dispatches_per_second=200,
        created_at=NOW - 90 * DAY_MS,
    ),
    Topic(name="checkout.abandoned-cart", business="Shop", created_at=NOW - 60 * DAY_MS),
    Topic(
        name="courier.pickup-window",
        business="Logistics",
        paused=True,
        max_concurrent_dispatches=50,
        created_at=NOW - 41 * DAY_MS,
    ),
    Topic(
        name="orders.close-unpaid",
        business="Shop",
        balance="least_loaded",
        weigh_by="load",
        created_at=NOW - 200 * DAY_MS,
    ),
    Topic(
        name="trial.expiry",
        business="Growth",
        retention_ms=3 * DAY_MS,
        created_at=NOW - 12 * DAY_MS,
    ),
    Topic(
        name=LONG,
        business="Returns and everything that comes back to the warehouse",
        created_at=NOW - 5 * DAY_MS,
    ),
)
PENDING = (48_213, 312_904, 1_204, 1_048_576, 9, 0)
REASON = "HTTP 502 from https://hooks.shop.example/orders/close: upstream connect error"


def wave(minute: int, height: float, phase: float = 0.0) -> float:
    """A day's coming and going, with some noise that is always the same."""
    day = math.sin(2 * math.pi * (minute % DAY_MS) / DAY_MS + phase)
    noise = math.sin(minute / 61_000) * math.sin(minute / 197_000 + phase)
    return max(0.0, height * (0.62 + 0.3 * day + 0.12 * noise))


def msg_id(n: int) -> str:
    head = f"{NOW - 4_000_000 - n * 7_000:012x}"
    return (
        f"{head[:8]}-{head[8:]}-7{n * 37 % 4096:03x}-8{n * 91 % 4096:03x}-{n * 7919 % 2**48:012x}"
    )


_ENDS = {State.SUCCEEDED: 60_041, State.CANCELLED: 22_000, State.DEAD: 3_432_000}


def stored(n: int) -> Stored:
    state = (State.PENDING, State.PENDING, State.SUCCEEDED, State.DEAD, State.CANCELLED)[n % 5]
    topic = TOPICS[n % len(TOPICS)]
    created = NOW - 4_000_000 - n * 7_000
    message = Message(
        msg_id=msg_id(n),
        topic=topic.name,
        created_at=created,
        due_at=created + (4_900_000 if state is State.PENDING else 60_000),
        ttr_ms=1500,
        callback=Callback(
            method="POST",
            url="https://hooks.shop.example/orders/close",
            params='{"order": 7713042, "reason": "unpaid", "customer": {"language": "pt-BR"}}',
        ),
    )
    return Stored(
        message=message,
        state=state,
        owner=parked_owner(topic.name) if topic.paused else WORKERS[n % 4],
        due_at=message.due_at + (DAY_MS if n % 7 == 0 else 0),
        attempt={State.PENDING: n % 3 // 2, State.DEAD: 6}.get(state, 1),
        finished_at=0 if state is State.PENDING else created + _ENDS[state],
        reason=REASON if state is State.DEAD else "",
    )


class Sample:
    """`empty`: just set up, nothing submitted, no topic, no worker. `standalone`: one worker, in
    the process of all."""

    def __init__(self, *, empty: bool = False, standalone: bool = False) -> None:
        self.empty = empty
        self.standalone = standalone
        self.topics = self.instances = self.messages = self.monitor = self.bulk = self

    def now_ms(self) -> int:
        return NOW

    def overview(self) -> Overview:
        n = 0 if self.empty else 1
        return Overview(
            now_ms=NOW,
            roles=(
                Role("receive", 2 * n, 0),
                Role("admin", 1, 0),
                Role("center", 2 * n, 0),
                Role("worker", 4 * n, n),
            ),
            ports={"log": "", "store": "", "registry": "no center is registered" if not n else ""},
            minutes=self.minutes(NOW - 59 * MINUTE_MS, NOW),
            lateness=self.lateness(),
            totals=Totals({}, 80_412_339 * n, 0, 0, 0, 0),
            pending=sum(PENDING) * n,
            backlog=Backlog(37 * n, NOW - 4_210 if n else None, 1_204 * n),
        )

    def all(self, service: str | None = None) -> Any:
        """Topics; instances when asked with a service."""
        if service is not None:
            return [v for v in self._instances() if service in ("all", v.instance.service)]
        if self.empty:
            return []
        return [
            TopicView(
                topic,
                {
                    State.PENDING: n,
                    State.SUCCEEDED: n * 9 + 12,
                    State.CANCELLED: n // 7,
                    State.DEAD: n // 9000,
                },
            )
            for topic, n in zip(TOPICS, PENDING, strict=True)
        ]

    def get(self, name: str) -> Any:
        """A topic, or a job."""
        if name == "job":
            return self.jobs()[0]
        for view in self.all():
            if view.topic.name == name:
                return view
        raise TopicNotFound(f"topic {name!r} does not exist")

    def search(self, chosen: Filter, cursor: str = "", limit: int = 50) -> Page:
        found = [] if self.empty else [stored(n) for n in range(400)]
        wanted = [
            s
            for s in found
            if (not chosen.states or s.state in chosen.states)
            and (not chosen.topics or s.message.topic in chosen.topics)
            and s.message.msg_id.startswith(chosen.prefix)
        ][:24]
        return Page(wanted, wanted[-1].message.msg_id if len(wanted) == 24 else "")

    def detail(self, name: str) -> Detail:
        for n in range(0 if self.empty else 400):
            if msg_id(n) == name:
                return Detail(stored(n), self._history(stored(n)), TOPICS[n % len(TOPICS)])
        raise MessageNotFound("msg_id: the message does not exist")

    def cancel(self, name: str) -> None:
        self.detail(name)

    fire_now = redrive = cancel

    def minutes(
        self, since: int, until: int, topic: str = "", step_ms: int = MINUTE_MS
    ) -> list[MinutePoint]:
        share = 0 if self.empty else 0.2 if topic else 1
        return [
            MinutePoint(m, self._counts(m, share * step_ms / MINUTE_MS))
            for m in _minutes(since, until, step_ms)
        ]

    def calls(self, since: int, until: int, topic: str = "", step_ms: int = MINUTE_MS) -> Calls:
        flow = [
            FlowPoint(m, 0, None, None)
            if self.empty
            else FlowPoint(m, 4000, round(wave(m, 41, 1) + 20, 1), round(wave(m, 26, 1) + 12, 1))
            for m in _minutes(since, until, step_ms)
        ]
        return Calls(flow, self.lateness())

    def lateness(self) -> Lateness:
        counts = (812, 9_204, 61_330, 98_401, 40_233, 8_120, 1_904, 320, 71, 12, 3, 0, 0)
        ends: list[int | None] = [*LATE_MS, None]
        if self.empty:
            return Lateness(tuple((end, 0) for end in ends), None, None)
        return Lateness(tuple(zip(ends, counts, strict=True)), 10, 50)

    def worker_days(self) -> list[WorkerDays]:
        today = NOW // DAY_MS * DAY_MS
        days = [today - back * DAY_MS for back in reversed(range(7))]
        return [
            WorkerDays(
                w, tuple((d, int(wave(d + i * 9_000_000, 1_400_000 + i * 90_000))) for d in days)
            )
            for i, w in enumerate([] if self.empty else WORKERS)
        ]

    def absent(self) -> dict[str, int]:
        if self.empty:
            return {}
        return {parked_owner("courier.pickup-window"): 1_204, "10.20.0.19:30002": 12}

    def jobs(self) -> list[Job]:
        if self.empty:
            return []
        job = Job(
            id="job",
            action="redrive",
            started_by="admin",
            chosen="topics orders.close-unpaid",
            started_at=NOW - 42_000,
            looked_at=12_600,
            done=12_388,
            failed=0,
            refused=Counter({"TooLate": 207, "MessageNotFound": 5}),
        )
        return [
            job,
            replace(
                job,
                id="b",
                action="postpone",
                add_ms=300_000,
                state="done",
                finished_at=NOW - 9_000,
                started_at=NOW - 9_000_000,
            ),
        ]

    def _counts(self, minute: int, share: float) -> dict[str, int]:
        accepted, called = wave(minute, 21_000 * share), wave(minute, 20_400 * share, 0.4)
        failed = wave(minute, 900 * share, 2)
        counts = {
            "accepted": accepted,
            "called": called,
            "succeeded": called - failed,
            "failed": failed,
            "dead": wave(minute, 14 * share),
            "cancelled": wave(minute, 2_600 * share, 1),
        }
        return {name: round(counts.get(name, 0)) for name in COUNTS}

    def _history(self, of: Stored) -> list[Attempt]:
        delays = (1_000, 10_000, 60_000, 300_000, 3_000_000)
        return [
            Attempt(
                number=i + 1,
                started_at=of.message.due_at + sum(delays[:i]),
                duration_ms=37 + 211 * i,
                worker=WORKERS[i % 4],
                status=502,
                reason=REASON,
                ended="dead" if i == 5 else "retry",
                next_at=0 if i == 5 else of.message.due_at + sum(delays[: i + 1]),
            )
            for i in range(of.attempt)
        ]

    def _instances(self) -> list[InstanceView]:
        def made(service: str, address: str, **more: Any) -> Instance:
            return Instance(
                service=service,
                address=address,
                incarnation="i",
                version="0.1.0",
                started_at=NOW - 3 * DAY_MS,
                **more,
            )

        if self.empty:
            return [InstanceView(made("admin", "10.20.0.3:9087"))]
        views = [
            InstanceView(made(s, a))
            for s, a in (
                ("receive", "10.20.0.1:9088"),
                ("receive", "10.20.0.2:9088"),
                ("admin", "10.20.0.3:9087"),
                ("center", "10.20.0.4:30001"),
                ("center", "10.20.0.5:30001"),
            )
        ]
        for i, address in enumerate(WORKERS[:1] if self.standalone else WORKERS):
            load = Load(
                8_412 + i * 731,
                96 - i * 20,
                0.41 + i * 0.13,
                182_000_000 + i * 9_000_000,
                4,
                i == 3,
                3 - 2 * i,
                0,
                not self.standalone,
            )
            worker = made("worker", address, weight=100, draining=i == 3)
            lost = i == 2
            views.append(
                InstanceView(
                    worker,
                    None if lost else load,
                    "no heartbeat: timed out" if lost else "",
                    352_000 - i * 900,
                )
            )
        return views


def _minutes(since: int, until: int, step_ms: int) -> range:
    return range(since // step_ms * step_ms, until, step_ms)
