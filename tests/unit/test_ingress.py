"""From requests to records: rules, idempotency keys, batches, commands."""

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from soraka import commands, wire
from soraka.config import StoreConfig
from soraka.errors import (
    DelayTooLong,
    InvalidParams,
    LogUnavailable,
    MessageNotFound,
    ReservedTopicName,
    SorakaError,
    TooLate,
    TopicNotFound,
)
from soraka.limits import DEFAULT_RETRY_MS, MAX_DELAY_MS
from soraka.message import (
    ID_AHEAD_MS,
    RESERVED_TOPICS,
    Callback,
    Command,
    CommandKind,
    Message,
    State,
    Submission,
)
from soraka.ports import Record
from tests.unit.receive_kit import TOPIC, URL, Kit, uuid7

EARLY_MS = StoreConfig().early_ms


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    yield made
    made.close()


def submission(**changes: Any) -> Submission:
    base = Submission(
        topic=TOPIC, callback=Callback(method="POST", url=URL, params='{"a":1}'), delay_ms=60_000
    )
    return replace(base, **changes)


def with_callback(**changes: Any) -> Submission:
    return submission(callback=replace(submission().callback, **changes))


def refused(kit: Kit, wrong: Submission) -> InvalidParams:
    with pytest.raises(InvalidParams) as caught:
        kit.ingress.submit(wrong)
    assert kit.logged() == []
    return caught.value


# ---------------------------------------------------------------------- submit


def test_a_submitted_message_is_in_the_log_when_its_id_is_returned(kit: Kit) -> None:
    before = kit.now_ms()
    msg_id = kit.ingress.submit(submission(ttr_ms=1500))
    (message,) = kit.logged()
    assert isinstance(message, Message)
    assert message == Message(
        msg_id=msg_id,
        topic=TOPIC,
        created_at=message.created_at,
        due_at=message.created_at + 60_000,
        ttr_ms=1500,
        callback=submission().callback,
        retry_ms=DEFAULT_RETRY_MS,
    )
    assert before <= message.created_at <= kit.now_ms()


def test_an_append_that_fails_is_no_success(kit: Kit) -> None:
    kit.log.down.add(TOPIC)
    with pytest.raises(LogUnavailable):
        kit.ingress.submit(submission())


@pytest.mark.parametrize("delay_ms", [0, 1, MAX_DELAY_MS])
def test_delays_up_to_seven_days_are_accepted(kit: Kit, delay_ms: int) -> None:
    kit.ingress.submit(submission(delay_ms=delay_ms))
    (message,) = kit.logged()
    assert isinstance(message, Message)
    assert message.due_at == message.created_at + delay_ms


@pytest.mark.parametrize("delay_ms", [MAX_DELAY_MS + 1, 1 << 70])
def test_longer_delays_are_refused(kit: Kit, delay_ms: int) -> None:
    error = refused(kit, submission(delay_ms=delay_ms))
    assert isinstance(error, DelayTooLong)
    assert error.field == "delay_time"


def test_deliver_at_is_the_due_time(kit: Kit) -> None:
    moment = kit.now_ms() + 12_345
    kit.ingress.submit(submission(delay_ms=None, deliver_at=moment))
    (message,) = kit.logged()
    assert isinstance(message, Message)
    assert message.due_at == moment


@pytest.mark.parametrize("moment", [0, 1_700_000_000_000])
def test_a_deliver_at_in_the_past_means_now(kit: Kit, moment: int) -> None:
    kit.ingress.submit(submission(delay_ms=None, deliver_at=moment))
    (message,) = kit.logged()
    assert isinstance(message, Message)
    assert message.due_at == message.created_at


def test_a_deliver_at_after_seven_days_is_refused(kit: Kit) -> None:
    far = kit.now_ms() + MAX_DELAY_MS + 10_000
    error = refused(kit, submission(delay_ms=None, deliver_at=far))
    assert isinstance(error, DelayTooLong)
    assert error.field == "deliver_at"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"topic": ""}, "topic_name"),
        ({"topic": "a" * 129}, "topic_name"),
        ({"topic": "a/b"}, "topic_name"),
        ({"topic": "orders\n"}, "topic_name"),
        ({"topic": "ördérs"}, "topic_name"),
        ({"delay_ms": -1}, "delay_time"),
        ({"delay_ms": None}, "delay_time"),
        ({"deliver_at": 1}, "deliver_at"),
        ({"delay_ms": None, "deliver_at": -1}, "deliver_at"),
        ({"ttr_ms": 0}, "ttr"),
        ({"ttr_ms": -5}, "ttr"),
        ({"ttr_ms": 60_001}, "ttr"),
        ({"retry_ms": (1,) * 33}, "retry"),
        ({"retry_ms": (1, -1)}, "retry.1"),
        ({"retry_ms": (MAX_DELAY_MS + 1,)}, "retry.0"),
        ({"msg_id": "abc"}, "msg_id"),
        ({"msg_id": "f47ac10b-58cc-4372-a567-0e02b2c3d479"}, "msg_id"),
        ({"msg_id": uuid7(1_700_000_000_000)}, "msg_id"),
    ],
)
def test_wrong_fields_are_refused_by_name(kit: Kit, changes: dict[str, Any], field: str) -> None:
    error = refused(kit, submission(**changes))
    assert (error.code, error.field) == (401, field)
    assert str(error).startswith(f"{field}: ")


@pytest.mark.parametrize("name", sorted(RESERVED_TOPICS))
def test_reserved_topic_names_are_refused(kit: Kit, name: str) -> None:
    assert isinstance(refused(kit, submission(topic=name)), ReservedTopicName)
    with pytest.raises(ReservedTopicName):
        kit.ingress.cancel(name, uuid7(kit.now_ms()), None)


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "HTTPS://a.example:8443/x?y=%20#z",
        "http://under_score.local/",
        "http://[::1]:80/",
        "http://127.0.0.1:65535?q",
        "http://a.example./",
        "http://a/" + "x" * 2039,
    ],
)
def test_good_urls(kit: Kit, url: str) -> None:
    kit.ingress.submit(with_callback(url=url))
    assert len(kit.logged()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example/x",
        "ftp://a.example/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http:///x",
        "http:a",
        "http://",
        "http://:80/",
        "http://a~b/",
        "http://user@a.example/",
        "http://user:secret@a.example/",
        "http://a.example:0/",
        "http://a.example:65536/",
        "http://a.example:/",
        "http://a.example:8x/",
        "http://a..example/",
        "http://.example/",
        "http://" + "a" * 64 + ".example/",
        "http://[::1/",
        "http://[::g]/",
        "http://a.example\\@evil/",
        "http://a.example/\r\nHost: evil",
        "http://a.example/x\n",
        "http://a.example/a b",
        "http://a.example/\t",
        "http://a.example/\x00",
        "http://a.example/\x7f",
        "http://a.example/é",
        "http://exämple/",
        "http://a.example/\ud800",
        " http://a.example/",
        "http://a/" + "x" * 2040,
    ],
)
def test_bad_urls_are_refused(kit: Kit, url: str) -> None:
    assert refused(kit, with_callback(url=url)).field == "callback.url"


def test_why_a_url_is_refused_is_said(kit: Kit) -> None:
    for url, words in (
        ("ftp://a/", "http:// or https://"),
        ("http://user:secret@a/", "user name or password"),
        ("http://a:0/", "port"),
        ("http://a..b/", "host"),
        ("http://a/ ", "character at 9"),
    ):
        assert words in refused(kit, with_callback(url=url)).reason


def test_another_method_is_refused(kit: Kit) -> None:
    assert refused(kit, with_callback(method="PUT")).field == "callback.request_type"


def test_an_unknown_topic_is_refused(kit: Kit) -> None:
    with pytest.raises(TopicNotFound):
        kit.ingress.submit(submission(topic="nowhere"))
    assert kit.logged() == []


def test_a_wrong_submission_and_a_command_create_no_topic(tmp_path: Path) -> None:
    kit = Kit(tmp_path, auto_create=True)
    try:
        refused(kit, submission(topic="fresh", ttr_ms=0))
        with pytest.raises(TopicNotFound):
            kit.ingress.cancel("fresh", uuid7(kit.now_ms()), None)
        assert set(kit.parts.registry.topics()) == {TOPIC}
        kit.ingress.submit(submission(topic="fresh"))
        assert set(kit.parts.registry.topics()) == {TOPIC, "fresh"}
    finally:
        kit.close()


def test_retries_are_the_topics_unless_given(kit: Kit) -> None:
    kit.parts.topics.add(dataclasses.replace(kit.parts.topics.new("quick"), retry_ms=(7, 8)))
    kit.ingress.submit(submission(topic="quick"))
    kit.ingress.submit(submission(topic="quick", retry_ms=()))
    kit.ingress.submit(submission(topic="quick", retry_ms=(1, MAX_DELAY_MS)))
    retries = [m.retry_ms for m in kit.logged() if isinstance(m, Message)]
    assert retries == [(7, 8), (), (1, MAX_DELAY_MS)]


def test_retries_of_a_topic_that_others_wrote_wrong_are_refused(kit: Kit) -> None:
    topic = kit.parts.topics.new("quick")
    kit.parts.topics.add(topic)
    wrong = dataclasses.replace(topic, retry_ms=(1000, -1))
    kit.parts.topics.registry.put_topic(wrong, was=topic)
    reason = refused(kit, submission(topic="quick"))
    assert reason.field == "topic_name"
    assert reason.reason.startswith("'quick' must be set anew, its retry.1: must be from 0")
    kit.ingress.submit(submission(topic="quick", retry_ms=(5,)))
    kit.parts.topics.update("quick", lambda topic: dataclasses.replace(topic, retry_ms=(7,)))
    kit.ingress.submit(submission(topic="quick"))
    assert [m.retry_ms for m in kit.logged() if isinstance(m, Message)] == [(5,), (7,)]


@pytest.mark.parametrize("offset_ms", [-EARLY_MS + 30_000, 0, ID_AHEAD_MS - 5_000])
def test_an_id_of_ones_own_is_an_idempotency_key(kit: Kit, offset_ms: int) -> None:
    msg_id = uuid7(kit.now_ms() + offset_ms)
    assert kit.ingress.submit(submission(msg_id=msg_id, delay_ms=1000)) == msg_id
    assert kit.ingress.submit(submission(msg_id=msg_id, delay_ms=90_000)) == msg_id
    kit.deliver()
    stored = kit.ingress.get(msg_id)
    assert stored.due_at == stored.message.created_at + 1000
    assert kit.parts.store.totals().scheduled == 1


@pytest.mark.parametrize("offset_ms", [-EARLY_MS - 1, ID_AHEAD_MS + 5_000])
def test_an_id_far_from_now_is_refused(kit: Kit, offset_ms: int) -> None:
    error = refused(kit, submission(msg_id=uuid7(kit.now_ms() + offset_ms)))
    assert (error.field, error.reason) == (
        "msg_id",
        "its time must be at most 600 s ago and 60 s ahead",
    )


@pytest.mark.parametrize("offset_ms", [-EARLY_MS + 30_000, ID_AHEAD_MS - 5_000])
def test_whatever_id_is_accepted_can_be_cancelled_at_once(kit: Kit, offset_ms: int) -> None:
    msg_id = uuid7(kit.now_ms() + offset_ms)
    kit.ingress.submit(submission(msg_id=msg_id))
    kit.ingress.cancel(TOPIC, msg_id, None)
    kit.deliver()
    assert kit.ingress.get(msg_id).state is State.CANCELLED


# ---------------------------------------------------------------------- batches


def test_a_batch_answers_each_in_order(kit: Kit) -> None:
    parse_error = InvalidParams("ttr", "no integer")
    answers = kit.ingress.submit_batch(
        [submission(), parse_error, submission(delay_ms=-1), submission(topic="no"), submission()]
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [str, InvalidParams, InvalidParams, TopicNotFound, str]
    assert answers[1] is parse_error
    logged = [m.msg_id for m in kit.logged() if isinstance(m, Message)]
    assert logged == [answers[0], answers[4]]


def test_a_topic_that_cannot_be_appended_to_spares_the_others(kit: Kit) -> None:
    kit.parts.topics.add(kit.parts.topics.new("other"))
    kit.log.down.add(TOPIC)
    answers = kit.ingress.submit_batch(
        [submission(), submission(topic="other"), submission(), submission(ttr_ms=0)]
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [LogUnavailable, str, LogUnavailable, InvalidParams]
    assert [m.msg_id for m in kit.logged()] == [answers[1]]


def test_a_batch_appends_once_per_topic(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.parts.topics.add(kit.parts.topics.new("other"))
    sizes: list[tuple[str, int]] = []
    append = kit.log.append

    def noted(topic: str, records: Sequence[Record]) -> None:
        sizes.append((topic, len(records)))
        append(topic, records)

    monkeypatch.setattr(kit.log, "append", noted)
    kit.ingress.submit_batch([submission(topic=t) for t in (TOPIC, "other", TOPIC, TOPIC)])
    assert sizes == [(TOPIC, 3), ("other", 1)]


def test_a_batch_over_many_dead_topics_ends(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each append takes 3 s to fail; the batch does not take 3 s times the topics."""
    names = [f"t{i}" for i in range(20)]
    for name in names:
        kit.parts.topics.add(kit.parts.topics.new(name))
    now = [kit.now_ms()]
    tried: list[str] = []

    def append(topic: str, records: Any) -> None:
        tried.append(topic)
        now[0] += 3000
        raise LogUnavailable("in vain")

    monkeypatch.setattr(kit.log, "append", append)
    monkeypatch.setattr(type(kit.parts.clock), "now_ms", lambda _: now[0])
    answers = kit.ingress.submit_batch([submission(topic=name) for name in names])
    assert all(isinstance(a, SorakaError) and a.retriable for a in answers)
    assert tried == ["t0", "t1"]


def test_the_error_of_a_topic_does_not_grow_with_its_messages(kit: Kit) -> None:
    answers = kit.ingress.submit_batch([submission(topic="no") for _ in range(300)])
    depth, trace = 0, answers[0].__traceback__  # type: ignore[union-attr]
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 20
    gc.collect()


# ---------------------------------------------------------------------- commands


def test_a_cancel_is_in_the_log_and_applied(kit: Kit) -> None:
    msg_id = kit.ingress.submit(submission())
    kit.deliver()
    kit.ingress.cancel(TOPIC, msg_id, "c-1")
    assert kit.ingress.get(msg_id).state is State.CANCELLED
    assert kit.logged() == [
        Command(command_id="c-1", msg_id=msg_id, topic=TOPIC, kind=CommandKind.CANCEL)
    ]


def test_a_repeated_cancel_gets_the_same_answer_another_is_too_late(kit: Kit) -> None:
    msg_id = kit.ingress.submit(submission())
    kit.deliver()
    kit.ingress.cancel(TOPIC, msg_id, "c-1")
    kit.ingress.cancel(TOPIC, msg_id, "c-1")
    with pytest.raises(TooLate):
        kit.ingress.cancel(TOPIC, msg_id, None)


def test_a_command_sent_again_is_counted_once(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LATELY", 5)
    ids = [kit.ingress.submit(submission()) for _ in range(8)]
    kit.deliver()
    for msg_id in ids:
        for _ in range(3):
            kit.ingress.add_time(TOPIC, msg_id, 1, "a-1")
    for _ in range(3):
        kit.ingress.cancel(TOPIC, ids[0], "c-1")
    kit.ingress.add_time(TOPIC, ids[-1], 1, None)
    with pytest.raises(TooLate):
        kit.ingress.add_time(TOPIC, ids[0], 1, "a-2")
    assert kit.tallied == {
        (TOPIC, "accepted"): 8,
        (TOPIC, "postponed"): 9,
        (TOPIC, "cancelled"): 1,
    }
    assert len(kit.ingress._commands._lately) == 5


def test_a_cancel_before_its_message_reaches_the_store_holds(kit: Kit) -> None:
    msg_id = kit.ingress.submit(submission())
    kit.ingress.cancel(TOPIC, msg_id, None)
    kit.deliver()
    assert kit.ingress.get(msg_id).state is State.CANCELLED


def test_a_cancel_that_the_log_did_not_take_changes_nothing(kit: Kit) -> None:
    msg_id = kit.ingress.submit(submission())
    kit.deliver()
    kit.log.down.add(TOPIC)
    with pytest.raises(LogUnavailable):
        kit.ingress.cancel(TOPIC, msg_id, None)
    assert kit.ingress.get(msg_id).state is State.PENDING


def test_added_time_moves_the_due_time(kit: Kit) -> None:
    msg_id = kit.ingress.submit(submission())
    kit.deliver()
    due = kit.ingress.get(msg_id).due_at
    kit.ingress.add_time(TOPIC, msg_id, MAX_DELAY_MS, "a-1")
    kit.ingress.add_time(TOPIC, msg_id, MAX_DELAY_MS, "a-1")
    kit.ingress.add_time(TOPIC, msg_id, 1, None)
    assert kit.ingress.get(msg_id).due_at == due + MAX_DELAY_MS + 1


@pytest.mark.parametrize(
    ("add_ms", "code"), [(0, 401), (-1, 401), (MAX_DELAY_MS + 1, 501), (1 << 70, 501)]
)
def test_wrong_added_times_are_refused(kit: Kit, add_ms: int, code: int) -> None:
    with pytest.raises(InvalidParams) as caught:
        kit.ingress.add_time(TOPIC, uuid7(kit.now_ms()), add_ms, None)
    assert (caught.value.code, caught.value.field) == (code, "add_time")
    assert kit.logged() == []


@pytest.mark.parametrize("command_id", ["", "a b", "x" * 65, "é", "a\n"])
def test_wrong_command_ids_are_refused(kit: Kit, command_id: str) -> None:
    with pytest.raises(InvalidParams, match="command_id"):
        kit.ingress.cancel(TOPIC, uuid7(kit.now_ms()), command_id)
    assert kit.logged() == []


def test_commands_for_ids_that_cannot_be_leave_no_record(kit: Kit) -> None:
    now = kit.now_ms()
    old, ahead = uuid7(now - 700_000), uuid7(now + ID_AHEAD_MS + 5_000)
    for msg_id in ("", "abc", "f47ac10b-58cc-4372-a567-0e02b2c3d479", old, ahead):
        with pytest.raises(MessageNotFound):
            kit.ingress.cancel(TOPIC, msg_id, None)
    assert kit.logged() == []


def test_an_old_message_that_is_known_can_be_cancelled(kit: Kit) -> None:
    """Older than the early window by now; submitted when it was not."""
    kit.ingress.submit(submission())
    (made,) = kit.logged()
    old = replace(made, msg_id=uuid7(kit.now_ms() - EARLY_MS - 1))
    kit.log.append(TOPIC, [Record(old.msg_id, wire.encode(old))])
    kit.deliver()
    kit.ingress.cancel(TOPIC, old.msg_id, None)
    assert kit.ingress.get(old.msg_id).state is State.CANCELLED


def test_a_cancel_under_another_topic_finds_nothing(kit: Kit) -> None:
    kit.parts.topics.add(kit.parts.topics.new("other"))
    msg_id = kit.ingress.submit(submission())
    kit.deliver()
    with pytest.raises(MessageNotFound):
        kit.ingress.cancel("other", msg_id, None)
    with pytest.raises(TopicNotFound):
        kit.ingress.cancel("nowhere", msg_id, None)
    assert kit.ingress.get(msg_id).state is State.PENDING


def test_a_claimed_message_is_too_late_to_cancel(kit: Kit) -> None:
    msg_id = kit.ingress.submit(submission(delay_ms=0))
    kit.deliver()
    kit.parts.store.claim([msg_id])
    with pytest.raises(TooLate):
        kit.ingress.cancel(TOPIC, msg_id, None)


def test_get_of_an_unknown_message(kit: Kit) -> None:
    for msg_id in ("nonsense", uuid7(kit.now_ms())):
        with pytest.raises(MessageNotFound):
            kit.ingress.get(msg_id)
