"""Stores with one rule taken out, to see that the simulation misses it.

A mutation is a fragment of the source, found exactly once, and what stands there instead.
"""

import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soraka.adapters import sqlite_store, store_rules
from soraka.adapters.redis_scripts import load_scripts

Fragment = tuple[str, str, str]
"""Where (a Lua file, or a Python module), what, and what instead."""


@dataclass(frozen=True)
class Mutation:
    rule: str
    redis: Fragment
    sqlite: Fragment


MUTATIONS = (
    Mutation(
        "busy while a lease runs",
        ("claim", "if r.lease > now then", "if false then"),
        (
            "rules",
            "if row.lease_until > now:\n            return Claim",
            "if False:\n            return Claim",
        ),
    ),
    Mutation(
        "not before it is due",
        ("claim", "at = math.max(r.due, r.not_before)", "at = r.not_before"),
        ("rules", "at = max(row.due_at, row.not_before)", "at = row.not_before"),
    ),
    Mutation(
        "not before what it is held back to",
        ("claim", "at = math.max(r.due, r.not_before)", "at = r.due"),
        ("rules", "at = max(row.due_at, row.not_before)", "at = row.due_at"),
    ),
    Mutation(
        "held back, it keeps its due time",
        ("settle", "r.not_before = now + delay", "r.due = now + delay"),
        ("rules", "row.not_before = now + outcome", "row.due_at = now + outcome"),
    ),
    Mutation(
        "gone when finished",
        ("claim", "if r.state ~= PENDING then", "if false then"),
        (
            "rules",
            "if row is None or row.state is not State.PENDING:\n            return Claim",
            "if row is None:\n            return Claim",
        ),
    ),
    Mutation(
        "attempts grow",
        ("claim", "r.attempt, r.tries = r.attempt + 1,", "r.attempt, r.tries = 1,"),
        ("rules", "row.attempt += 1", "row.attempt = 1"),
    ),
    Mutation(
        "a stale settle is ignored",
        ("settle", "or r.lease ~= lease or r.attempt ~= attempt then", "then"),
        (
            "rules",
            "or outcome.lease != (row.attempt, row.lease_until):",
            ":",
        ),
    ),
    Mutation(
        "a finished message is not settled",
        (
            "settle",
            "if not r or r.state ~= PENDING then return 0 end\n"
            "  if r.lease == 0 or r.lease ~= lease or",
            "if not r then return 0 end\n  if",
        ),
        (
            "rules",
            "row.state is not State.PENDING:\n            return False\n"
            "        if row.lease_until == 0 or outcome.lease != (row.attempt, row.lease_until)",
            "False:\n            return False\n        if outcome.lease[0] != row.attempt",
        ),
    ),
    Mutation(
        "a released attempt is not given twice",
        ("settle", "r.tries = r.tries - 1", "r.tries = r.tries - 1 r.attempt = r.attempt - 1"),
        ("rules", "row.tries -= 1", "row.tries -= 1; row.attempt -= 1"),
    ),
    Mutation(
        "reassigning leaves the lease",
        ("assign", "r.owner = target\n", "r.owner = target r.lease = 0\n"),
        ("rules", "row.owner = move.target\n", "row.owner = move.target; row.lease_until = 0\n"),
    ),
    Mutation(
        "a lost tail is a gap",
        ("schedule", "if standing < own[1] then", "if false then"),
        ("store", "if standing < known:", "if False:"),
    ),
    Mutation(
        "insert if absent",
        (
            "schedule",
            "redis.call('EXISTS', unpack(keys)) > 0",
            "false",
        ),
        ("store", "if rows.load(row.msg_id) is not None:\n            return", ""),
    ),
    Mutation(
        "early commands are folded in",
        ("schedule", "for _, id in pairs(new.ids) do fold_early(id) end", ""),
        ("store", "waiting = rows.waiting(row.msg_id) if folding else []", "waiting = []"),
    ),
    Mutation(
        "command ids are remembered",
        ("apply", "if known then return known end", ""),
        ("rules", "if known is not None:\n            return known", ""),
    ),
    Mutation(
        "a refusal is remembered",
        ("apply", "    remember(r, id, 'too_late')\n", ""),
        (
            "rules",
            "return _remember(row, command.command_id, Verdict.TOO_LATE)",
            "return Verdict.TOO_LATE",
        ),
    ),
    Mutation(
        "no command while a lease runs",
        ("apply", "r.state ~= PENDING or r.lease > now", "r.state ~= PENDING"),
        (
            "rules",
            "row.state is not State.PENDING or row.lease_until > now",
            "row.state is not State.PENDING",
        ),
    ),
    Mutation(
        "no command on a finished message",
        ("apply", "r.state ~= PENDING or r.lease > now", "r.lease > now"),
        (
            "rules",
            "row.state is not State.PENDING or row.lease_until > now",
            "row.lease_until > now",
        ),
    ),
    Mutation(
        "added time ends a lease that ran out",
        ("apply", "  r.lease = 0\n", ""),
        (
            "rules",
            "added time.\n                row.lease_until = 0",
            "added time.\n                pass",
        ),
    ),
    Mutation(
        "fired now, it is due",
        ("apply", "r.due, r.not_before, r.lease = math.min(r.due, now), 0, 0", "r.lease = 0"),
        (
            "rules",
            "row.due_at, row.not_before, row.lease_until = min(row.due_at, now), 0, 0",
            "row.lease_until = 0",
        ),
    ),
    Mutation(
        "fired now, it is not held back",
        (
            "apply",
            "r.due, r.not_before, r.lease = math.min(r.due, now), 0, 0",
            "r.due, r.lease = math.min(r.due, now), 0",
        ),
        (
            "rules",
            "row.due_at, row.not_before, row.lease_until = min(row.due_at, now), 0, 0",
            "row.due_at, row.lease_until = min(row.due_at, now), 0",
        ),
    ),
    Mutation(
        "only the dead are redriven",
        ("apply", "return r.state ~= DEAD", "return r.state == PENDING"),
        ("rules", "return row.state is not State.DEAD", "return row.state is State.PENDING"),
    ),
    Mutation(
        "redriven, it has all its retries",
        (
            "apply",
            "r.state, r.due, r.tries, r.releases, r.finished = PENDING, now, 0, 0, 0",
            "r.state = PENDING",
        ),
        ("rules", "State.PENDING, now, 0, 0\n", "State.PENDING, now, row.tries, 0\n"),
    ),
    Mutation(
        "redriven, its attempts go on",
        ("apply", "r.state, r.due, r.tries", "r.attempt = 0 r.state, r.due, r.tries"),
        ("rules", "State.PENDING, now, 0, 0\n", "State.PENDING, now, 0, 0; row.attempt = 0\n"),
    ),
)


def redis_options(mutation: Mutation | None) -> dict[str, Any]:
    """What to give to RedisStore."""
    if mutation is None:
        return {}
    where, what, instead = mutation.redis
    scripts = load_scripts()
    for name in ("schedule", "command") if where == "apply" else (where,):
        scripts[name] = _replaced(scripts[name], what, instead)
    return {"scripts": scripts}


def sqlite_parts(mutation: Mutation | None) -> tuple[type[Any], dict[str, Any]]:
    """The class of the store, and what to give to it."""
    if mutation is None:
        return sqlite_store.SqliteStore, {}
    where, what, instead = mutation.sqlite
    module = store_rules if where == "rules" else sqlite_store
    mutated = _mutated(module, what, instead)
    if where == "rules":
        return sqlite_store.SqliteStore, {"rules": mutated.Rules}
    return mutated.SqliteStore, {}


def _mutated(module: types.ModuleType, what: str, instead: str) -> Any:
    assert module.__file__ is not None
    source = _replaced(Path(module.__file__).read_text(), what, instead)
    mutated = types.ModuleType(f"mutated_{module.__name__}")
    exec(compile(source, module.__file__, "exec"), mutated.__dict__)
    return mutated


def _replaced(source: str, what: str, instead: str) -> str:
    assert source.count(what) == 1, f"{what!r} is there {source.count(what)} times"
    return source.replace(what, instead)
