"""The summary of failing callbacks."""

from soraka.ports import Ended
from worker.failing import MAX_TOPICS, Failing


def test_only_failures_count_and_taking_begins_anew() -> None:
    failing = Failing()
    for ended in (Ended.SUCCEEDED, Ended.RELEASED):
        failing.add("t", ended, "")
    assert failing.take() is None
    failing.add("t", Ended.RETRY, "HTTP 500")
    failing.add("t", Ended.RETRY, "HTTP 500")
    failing.add("u", Ended.DEAD, "HTTP 410")
    assert failing.take() == {"retried": {"t": 2}, "dead": {"u": 1}, "example": "u: HTTP 410"}
    assert failing.take() is None


def test_a_line_stays_short_with_many_topics() -> None:
    failing = Failing()
    for i in range(10 * MAX_TOPICS):
        failing.add(f"t{i}", Ended.DEAD, "x" * 10_000)
    told = failing.take()
    assert told is not None
    assert len(told["dead"]) == MAX_TOPICS + 1
    assert sum(told["dead"].values()) == 10 * MAX_TOPICS
    assert len(told["example"]) <= 300
