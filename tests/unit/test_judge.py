from email.utils import formatdate

import pytest

from soraka.ports import Ended
from worker.judge import MAX_RETRY_AFTER_MS, Answer, Failure, Ruling, judge

NOW = 1_700_000_000_000
RETRY = (1_000, 10_000)


def ruling(result: Answer | Failure, attempt: int = 1) -> Ruling:
    return judge(result, attempt=attempt, retry_ms=RETRY, now_ms=NOW)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_succeeds(status: int) -> None:
    assert ruling(Answer(status)) == Ruling(Ended.SUCCEEDED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"false",
        b'{"result": true}',
        b'{"result": null}',
        b'{"result": 0}',
        b'{"result": "false"}',
        b'[{"result": false}]',
        b'{"inner": {"result": false}}',
        b'{"result": false',
        b'<html>"result": false</html>',
        b"[" * 60_000 + b"false",
        b'{"a": ' * 10_000 + b"false",
        b'\xff\xfe{"result": false}',
    ],
)
def test_a_body_that_does_not_refuse(body: bytes) -> None:
    assert ruling(Answer(200, body)).ended is Ended.SUCCEEDED


@pytest.mark.parametrize(
    "body", [b'{"result": false}', b' \n{"a": 1, "result":false }', b'{"\\u0072esult": false}']
)
def test_result_false_is_a_failure(body: bytes) -> None:
    assert ruling(Answer(200, body)) == Ruling(Ended.RETRY, 1_000, "HTTP 200, but result is false")


@pytest.mark.parametrize("status", [300, 302, 304, 307, 400, 404, 409, 500, 503])
def test_other_answers_are_tried_again_by_the_schedule(status: int) -> None:
    assert ruling(Answer(status), 1) == Ruling(Ended.RETRY, 1_000, f"HTTP {status}")
    assert ruling(Answer(status), 2) == Ruling(Ended.RETRY, 10_000, f"HTTP {status}")


def test_no_answer_is_tried_again() -> None:
    assert ruling(Failure("connection refused")) == Ruling(Ended.RETRY, 1_000, "connection refused")


def test_dead_when_the_schedule_is_exhausted() -> None:
    assert ruling(Answer(500), 3) == Ruling(Ended.DEAD, 0, "HTTP 500 (attempt 3, the last)")
    assert ruling(Failure("x"), 9).ended is Ended.DEAD


def test_dead_at_the_first_failure_without_retries() -> None:
    assert judge(Answer(500), attempt=1, retry_ms=(), now_ms=NOW).ended is Ended.DEAD


def test_410_stops_the_retries() -> None:
    assert ruling(Answer(410)) == Ruling(Ended.DEAD, 0, "HTTP 410")


def test_a_final_failure_stops_the_retries() -> None:
    assert ruling(Failure("no host", final=True)) == Ruling(Ended.DEAD, 0, "no host")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "delay_ms"),
    [
        ("5", 5_000),
        (" 5 ", 5_000),
        ("0", 1_000),
        (formatdate(NOW / 1000 + 7, usegmt=True), 7_000),
        (formatdate(NOW / 1000 - 7, usegmt=True), 1_000),
        ("86400", MAX_RETRY_AFTER_MS),
        ("9" * 5000, MAX_RETRY_AFTER_MS),
        ("-5", 1_000),
        ("1.5", 1_000),
        ("soon", 1_000),
        ("", 1_000),
        ("²", 1_000),
        ("Mon, 99 Foo 2024 00:00:00 GMT", 1_000),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_MS),
        (None, 1_000),
    ],
)
def test_retry_after(status: int, asked: str | None, delay_ms: int) -> None:
    assert ruling(Answer(status, retry_after=asked)) == Ruling(
        Ended.RETRY, delay_ms, f"HTTP {status}"
    )


def test_the_schedule_holds_when_it_is_later() -> None:
    assert ruling(Answer(503, retry_after="5"), 2).delay_ms == 10_000


def test_retry_after_counts_for_429_and_503_alone() -> None:
    assert ruling(Answer(500, retry_after="60")).delay_ms == 1_000


def test_retry_after_gives_no_attempt_more() -> None:
    assert ruling(Answer(503, retry_after="5"), 3).ended is Ended.DEAD
