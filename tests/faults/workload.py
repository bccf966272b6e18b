"""Clients that submit, cancel and postpone at a rate, whatever the answers: an open loop.

An operation of unknown outcome is sent again with the same ids, as a good client does.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from functools import partial

import gevent
from gevent.pool import Pool
from uuid_utils import uuid7

from tests.faults.clients import Clients, Reply
from tests.faults.history import Answer, Command, History, Submit, now_ms
from tests.faults.plan import BLOCK, TTR_MS, Plan, plan

MAX_UNDER_WAY = 800
"""Messages being sent or waiting for their commands; beyond, new ones are held back."""
PILE = 500
GIVE_UP_S = 30.0
"""After the end of the load, what is still unknown stays so."""
OPERATIONS_PER_MESSAGE = 1.38


class Workload:
    """Begins at once. `rate`: operations per second, with the commands; resends come on top. With
    0 there is only what is sent by `pile`."""

    def __init__(
        self, clients: Clients, history: History, *, seed: int, rate: float, first: int = 0
    ) -> None:
        self._clients = clients
        self._history = history
        self._seed = seed
        self._spacing_ms = 1000 * OPERATIONS_PER_MESSAGE / rate if rate else 0.0
        self._first = first
        self._under_way = Pool(MAX_UNDER_WAY)
        self._stopped_at: float | None = None
        self.held_back = 0
        self._pacer = gevent.spawn(self._run if rate else lambda: None)

    def stop(self) -> None:
        """Begins nothing new; returns when all that was begun is answered or given up."""
        self._stopped_at = now_ms()
        self._pacer.join()
        self._under_way.join(timeout=GIVE_UP_S + 15, raise_error=True)
        assert not len(self._under_way)

    @property
    def is_running(self) -> bool:
        return not self._pacer.ready() or len(self._under_way) > 0

    def kill(self) -> None:
        """Ends all at once, noting nothing more."""
        self._pacer.kill()
        self._under_way.kill()

    def pile(self, plans: Sequence[Plan]) -> None:
        """Sends these now, as fast as it goes; returns when all are accepted."""
        for start in range(0, len(plans), PILE):
            self._live_batch(list(plans[start : start + PILE]))

    def _run(self) -> None:
        started = now_ms()
        for block in itertools.count(self._first // BLOCK):
            plans = [plan(self._seed, block * BLOCK + i) for i in range(BLOCK)]
            for number, each in enumerate(plans):
                due = started + ((block * BLOCK - self._first) + number) * self._spacing_ms
                gevent.sleep(max(0.0, due - now_ms()) / 1000)
                if self._stopped_at is not None:
                    return
                if "batch" not in each.via:
                    self._begin(self._live, each)
                elif number == 0:
                    self._begin(self._live_batch, plans)

    def _begin(self, life: Callable[..., None], *arguments: object) -> None:
        if self._under_way.free_count() > 0:
            self._under_way.spawn(life, *arguments)
        else:
            self.held_back += 1

    # ------------------------------------------------------------------ lives

    def _live(self, each: Plan) -> None:
        msg_id = str(uuid7())
        self._again(lambda: self._submit(msg_id, each))
        self._command_all(msg_id, each)

    def _live_batch(self, plans: list[Plan]) -> None:
        left = [(str(uuid7()), each) for each in plans]
        all_of_them = list(left)

        def send() -> Answer:
            nonlocal left
            replies = self._submit_batch(left)
            left = [i for i, r in zip(left, replies, strict=True) if r[0] is Answer.UNKNOWN]
            return Answer.UNKNOWN if left else Answer.OK

        self._again(send)
        for msg_id, each in all_of_them:
            if each.cancel_ms is not None or each.adds:
                self._begin(self._command_all, msg_id, each)

    def _command_all(self, msg_id: str, each: Plan) -> None:
        answered = now_ms()
        steps = [*each.adds, *([(each.cancel_ms, 0)] if each.cancel_ms is not None else [])]
        for after_ms, add_ms in sorted(steps):
            gevent.sleep(max(0.0, answered + after_ms - now_ms()) / 1000)
            self._again(partial(self._command, msg_id, str(uuid7()), add_ms, each.via))

    def _again(self, send: Callable[[], Answer]) -> None:
        """Until the answer is definite, or the load is over."""
        pause_s = 0.1
        while send() is Answer.UNKNOWN:
            stopped = self._stopped_at
            if stopped is not None and now_ms() > stopped + GIVE_UP_S * 1000:
                return
            gevent.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2.0, pause_s * 2)

    # ------------------------------------------------------------------ one sending

    def _submit(self, msg_id: str, each: Plan) -> Answer:
        begin = now_ms()
        reply = self._clients.submit(msg_id, each)
        self._submitted(begin, msg_id, each, reply)
        return reply[0]

    def _submit_batch(self, items: list[tuple[str, Plan]]) -> list[Reply]:
        begin = now_ms()
        replies = self._clients.submit_batch(items)
        for (msg_id, each), reply in zip(items, replies, strict=True):
            self._submitted(begin, msg_id, each, reply)
        return replies

    def _submitted(self, begin: float, msg_id: str, each: Plan, reply: Reply) -> None:
        answer, ec = reply
        self._history.add(
            Submit(
                begin=begin,
                end=now_ms(),
                msg_id=msg_id,
                answer=answer,
                ec=ec,
                delay_ms=each.delay_ms,
                ttr_ms=TTR_MS,
                retry_ms=each.retry_ms,
                via=each.via,
            )
        )

    def _command(self, msg_id: str, command_id: str, add_ms: int, via: str) -> Answer:
        begin = now_ms()
        answer, ec = self._clients.command(msg_id, command_id, add_ms, via)
        self._history.add(
            Command(
                begin=begin,
                end=now_ms(),
                msg_id=msg_id,
                answer=answer,
                ec=ec,
                command_id=command_id,
                add_ms=add_ms,
                via=via,
            )
        )
        return answer
