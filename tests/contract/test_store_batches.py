"""Batches of every make: Redis writes what they add together, SQLite one after the other."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from soraka.message import Command, Message, State
from soraka.ports import Entry, FullStore, NewCommand, NewMessage, Query
from tests.contract.store_kit import (
    OTHER,
    OWNER,
    TurnedClock,
    add_time,
    cancel,
    fire_now,
    message,
    redis_store,
    sqlite_store,
)
from tests.servers import Server

OWNERS = (OWNER, OTHER, "third")
TOPICS = ("orders", "a", "b")
FAR = 1 << 52
SIZES = (1, 7, 80, 1200)
"""A shard writes up to 1,000 messages at once."""


@pytest.fixture
def stores(redis_server: Server, clock: TurnedClock, tmp_path: Path) -> Iterator[list[FullStore]]:
    with (
        redis_store(redis_server.url, shards=1, now_ms=clock) as one,
        sqlite_store(tmp_path / "store.db", now_ms=clock) as other,
    ):
        yield [one, other]


def batch(chance: random.Random, known: list[Message], places: range, now: int) -> list[Entry]:
    """New messages among repeated ones, and commands for any of them."""
    entries: list[Entry] = []
    commands = chance.choice((0, 0.02, 0.4))
    for position in places:
        if not known or chance.random() < 0.9 - commands:
            due, topic = now + chance.randrange(9_000), chance.choice(TOPICS)
            known.append(message(due, topic=topic))
        record = known[-1] if chance.random() < 0.7 else chance.choice(known)
        if chance.random() < commands:
            entries.append(NewCommand(position, command(chance, record)))
        else:
            entries.append(NewMessage(position, record, chance.choice(OWNERS)))
    return entries


def command(chance: random.Random, m: Message) -> Command:
    made = chance.randrange(3)
    if made == 0:
        return cancel(m.msg_id, topic=m.topic)
    if made == 1:
        return add_time(m.msg_id, 500, topic=m.topic)
    return fire_now(m.msg_id)  # of the topic `orders`: not found for others


def all_in(store: FullStore, known: list[Message]) -> tuple[object, ...]:
    """What the two must have alike."""
    every, cursor = Query(TOPICS, list(State)), ""
    listed: list[str] = []
    while True:
        page, cursor = store.search(every, cursor, 500)
        listed += [stored.message.msg_id for stored in page]
        if not cursor:
            break
    return (
        store.get([m.msg_id for m in known]),
        [store.due(owner, FAR, 100_000) for owner in OWNERS],
        store.owners(),
        store.counts(),
        store.totals(),
        store.positions("p"),
        listed,
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_batch_does_what_its_entries_do_one_by_one(
    stores: list[FullStore], clock: TurnedClock, seed: int
) -> None:
    chance, known, at = random.Random(seed), list[Message](), -1
    for size in (*SIZES, *chance.choices(SIZES[:3], k=6)):
        early = [message(clock.now + 50) for _ in range(chance.randrange(3))]
        waiting = [command(chance, m) for m in early]
        assert stores[0].command(waiting) == stores[1].command(waiting)
        known += early
        entries = batch(chance, known, range(at + 1, at + 1 + size), clock.now)
        for store in stores:
            store.schedule("p", (at,), at + size, entries)
        at += size
        clock.turn(chance.randrange(300))
        one, other = (all_in(store, known) for store in stores)
        assert one == other


def test_a_batch_of_more_than_one_call_of_lua_can_have(stores: list[FullStore]) -> None:
    messages = [message(i) for i in range(4_500)]
    entries = [NewMessage(i, m, OWNER) for i, m in enumerate(messages)]
    for store in stores:
        store.schedule("p", (-1,), len(entries), entries)
    one, other = (all_in(store, messages) for store in stores)
    assert one == other
