"""The pages without a browser: over the sample, and as text."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

import admin_app
from admin_app import words
from admin_app.accounts import Account
from admin_app.bulk import Job
from admin_app.pages_jobs import job_tone
from soraka.errors import InvalidParams
from tests.browser import sample
from tests.browser.sample import LONG, WORKERS, Sample, msg_id
from tests.browser.sample_app import OPERATOR, VIEWER, sample_app
from tests.browser.screenshots import EMPTY, PAGES
from tests.unit.admin_kit import Kit

STATIC = Path(admin_app.__file__).parent / "static"
CHARTS = ("counts", "flow", "lateness", "workers")
FOR_OPERATORS = ("access", "audit", "topic-new")


def client(folder: Path, *, user: Account = OPERATOR, empty: bool = False) -> FlaskClient:
    return sample_app(folder, empty=empty, user=user).test_client()


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with client(tmp_path_factory.mktemp("pages")) as made:
        yield made


def test_vendored_files_are_those_of_the_manifest() -> None:
    entries = json.loads((STATIC / "vendor" / "manifest.json").read_text())
    listed = {name: file["sha512"] for e in entries for name, file in e["files"].items()}
    found = {
        path.name: hashlib.sha512(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").iterdir()
        if path.name != "manifest.json"
    }
    assert found == listed


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_page_is_shown_and_nothing_in_it_breaks_the_content_policy(
    operator: FlaskClient, path: str
) -> None:
    answer = operator.get(path)
    assert answer.status_code == 200
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", answer.text)
    assert not re.search(r"""(?:src|href|action)="(?:https?:)?//""", answer.text)


@pytest.mark.parametrize("name", EMPTY)
def test_empty_page_says_what_to_do_next(tmp_path: Path, name: str) -> None:
    answer = client(tmp_path, empty=True).get(PAGES[name])
    assert answer.status_code == 200
    assert 'class="empty"' in answer.text or 'class="note"' in answer.text


@pytest.mark.parametrize("name", sorted(set(PAGES) - set(FOR_OPERATORS)))
def test_viewer_gets_no_button_that_changes_anything(tmp_path: Path, name: str) -> None:
    page = client(tmp_path, user=VIEWER).get(PAGES[name]).text
    posts = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', page)
    assert posts == ["/logout"] or name == "account"
    assert 'type="checkbox"' not in page


def test_form_of_a_new_topic_is_for_operators(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    refused = kit.client("viewer").flask.get("/topics/new")
    assert refused.status_code == 403
    assert "Changes are for operators" in refused.text
    assert kit.client("operator").flask.get("/topics/new").status_code == 200
    kit.close()


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("empty", [False, True])
def test_chart_has_a_value_for_each_x(tmp_path: Path, chart: str, empty: bool) -> None:
    got = client(tmp_path, empty=empty).get(f"/charts/{chart}.json?minutes=10080").get_json()
    assert all(len(series["values"]) == len(got["x"]) for series in got["series"])
    assert len(got["x"]) <= 720


def test_change_is_asked_for_once_without_scripts(operator: FlaskClient) -> None:
    path = f"/messages/{msg_id(0)}/cancel"
    question = operator.post(path)
    assert question.status_code == 200
    assert f"Cancel message {msg_id(0)}?" in question.text
    done = operator.post(path, data={"confirmed": "yes"})
    assert (done.status_code, done.location) == (303, f"/messages/{msg_id(0)}")
    assert "it will not be called" in operator.get(done.location).text


def test_question_keeps_what_the_form_had(operator: FlaskClient) -> None:
    given = {"action": "postpone", "add_time": "5m", "msg_id": ["a", "b"], "scope": "ticked"}
    question = operator.post("/messages/bulk", data=given).text
    assert "Postpone 2 messages?" in question
    kept = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', question)
    assert {("action", "postpone"), ("add_time", "5m"), ("msg_id", "a"), ("msg_id", "b")} <= {*kept}


def test_worker_that_shares_its_process_has_no_drain_but_the_reason(tmp_path: Path) -> None:
    page = sample_app(tmp_path, standalone=True).test_client().get("/instances").text
    assert "/drain" not in page
    assert f"{WORKERS[0]} shares its process with other roles" in page


def test_drain_of_the_last_worker_says_that_messages_wait(
    operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/instances/{WORKERS[0]}/drain"
    assert "messages go to other workers" in operator.post(path).text
    assert "last worker" not in operator.get("/instances").text
    monkeypatch.setattr(sample, "WORKERS", (WORKERS[0],))
    question = operator.post(path).text
    assert "all messages wait until another worker starts" in question.replace("\n", " ")
    assert 'data-ask-label="Drain the last worker"' in operator.get("/instances").text


@pytest.mark.parametrize(
    ("job", "tone"),
    [
        ({}, "good"),
        ({"refused": Counter(TooLate=2)}, "warn"),
        ({"refused": Counter(TooLate=2), "failed": 1}, "bad"),
        ({"state": "running", "refused": Counter(TooLate=2)}, "pending"),
        ({"state": "stopped"}, "warn"),
        ({"state": "failed"}, "bad"),
    ],
)
def test_bulk_work_is_good_only_when_nothing_was_refused(job: dict[str, Any], tone: str) -> None:
    made = Job(id="j", action="cancel", started_by="a", chosen="2 ids", started_at=1)
    assert job_tone(replace(made, **{"state": "done", **job})) == tone


def test_list_of_bulk_work_tells_what_was_refused(operator: FlaskClient) -> None:
    page = operator.get("/jobs").text
    assert '<td class="num tone-warn" data-label="Refused">212</td>' in page
    assert '<td class="num" data-label="Failed">0</td>' in page


def test_bulk_work_on_no_message_is_not_asked_about(operator: FlaskClient) -> None:
    form = {"action": "cancel", "scope": "ticked", "here": "dead", "topic": LONG}
    for more in ({}, {"confirmed": "yes"}):
        answer = operator.post("/messages/bulk", data={**form, **more})
        assert (answer.status_code, answer.location) == (303, f"/dead?topic={LONG}")
        assert "Not done. Select messages" in operator.get(answer.location).text


def test_every_wrong_field_is_told(operator: FlaskClient) -> None:
    form = {
        "topic_name": "not one",
        "business": "B" * 2000,
        "worker_num": "many",
        "workers": "10.0.0.1:1, nowhere",
        "max_dispatches_per_second": "-1",
        "retry_ms": "1s, soon",
        "retention_ms": "1ms",
    }
    answer = operator.post("/topics/new", data=form)
    assert answer.status_code == 400
    errors = notes(answer.text)
    assert errors["retry_ms"].startswith("Number 2: must be a number and a unit, such as")
    assert errors["workers"].startswith("Number 2: &#39;nowhere&#39; must be ip:port")
    others = {"topic_name", "business", "worker_num", "max_dispatches_per_second", "retention_ms"}
    assert all(errors[field].startswith("Must be ") for field in others)
    assert errors.keys() >= others
    assert 'value="1s, soon"' in answer.text


def notes(page: str) -> dict[str, str]:
    """What is wrong, by the field it stands at."""
    return dict(re.findall(r'class="error" id="\w-(\w+)-note">([^<]*)<', page))


def test_all_that_is_wrong_with_an_account_is_told_at_once(operator: FlaskClient) -> None:
    form = {"name": "a b", "password": "short", "role": "king"}
    answer = operator.post("/access/accounts", data=form)
    assert answer.status_code == 400
    assert notes(answer.text) == {
        "name": "Must be 1 to 64 of the characters A-Z a-z 0-9 . _ @ -.",
        "password": "Must be from 10 to 256 characters long.",
        "role": "Must be one of viewer, operator.",
    }
    again = operator.post("/access/tokens", data={"name": "nightly-redrive", "role": "viewer"})
    assert notes(again.text) == {"name": "Token &#39;nightly-redrive&#39; exists already."}


def test_refused_change_names_the_field_by_its_label(operator: FlaskClient) -> None:
    told = operator.post(
        f"/messages/{msg_id(0)}/postpone", data={"add_time": "x"}, follow_redirects=True
    ).text
    assert "Not done. Postpone by: must be a number and a unit" in told


def test_nothing_is_searched_by_a_wrong_filter(operator: FlaskClient) -> None:
    for path in ("/messages?since=garbage", "/dead?until=x"):
        page = operator.get(path).text
        assert "Nothing was searched" in page
        assert "matches" not in page
        assert 'id="live"' not in page  # an error again and again would say that nobody answers
    page = operator.get("/messages?since=2001-02-03T04:05&until=2001-02-03T04:05").text
    assert notes(page)["until"].startswith("Must be after ")


@pytest.mark.parametrize("query", ["state=asleep", "since=yesterday", "until=99999-01-01"])
def test_wrong_filter_is_told_beside_its_field(operator: FlaskClient, query: str) -> None:
    answer = operator.get(f"/messages?{query}")
    assert answer.status_code == 400
    assert f'id="f-{query.partition("=")[0]}-note"' in answer.text


@pytest.mark.parametrize(
    "query",
    [
        "topic=trial.expiry&topic=billing.dunning",
        "topics=trial.expiry,%20billing.dunning",
        "topics=trial.expiry&topics=billing.dunning",
        "topic=trial.expiry&topics=billing.dunning&topic_name=trial.expiry",
    ],
)
@pytest.mark.parametrize("path", ["/messages", "/dead"])
def test_topics_are_given_under_any_of_their_names(
    operator: FlaskClient, path: str, query: str
) -> None:
    page = operator.get(f"{path}?{query}").text
    shown = set(re.findall(r'data-label="Topic"><span class="clip" title="([^"]+)"', page))
    assert shown == {"trial.expiry", "billing.dunning"}
    kept = 'name="topic" value="trial.expiry, billing.dunning"'
    assert page.count(kept) == 2  # in the filter, and for bulk work
    older = re.search(r'href="(/\w+\?[^"]*cursor=[^"]*)"', page)
    assert older is not None
    assert "topic=trial.expiry%2C+billing.dunning" in older[1]


def test_bulk_work_keeps_to_the_topics_given(
    operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = {"action": "cancel", "scope": "all", "topics": ["a", "b"], "msg_id": "x"}
    question = operator.post("/messages/bulk", data=form).text
    assert "all messages that match" in question
    started: list[Any] = []

    def start(service: Sample, *_: object, **named: Any) -> Job:
        started.append(named["chosen"].topics)
        return service.jobs()[0]

    monkeypatch.setattr(Sample, "start", start, raising=False)
    answer = operator.post("/messages/bulk", data={**form, "confirmed": "yes"})
    assert answer.location == "/jobs/job"
    assert started == [("a", "b")]


@pytest.mark.parametrize("start", ["9" * 5000, "9" * 9, "-1", "x"])
def test_a_strange_page_of_topics_is_shown(operator: FlaskClient, start: str) -> None:
    assert operator.get(f"/topics?start={start}").status_code == 200


def test_next_page_keeps_the_filter(operator: FlaskClient) -> None:
    page = operator.get(f"/messages?topic={LONG}&since=2001-02-03T04:05").text
    older = re.search(r'href="(/messages\?[^"]*cursor=[^"]*)"', page)
    assert older is not None
    assert f"topic={LONG}&amp;since=2001-02-03T04%3A05&amp;cursor=" in older[1]


@pytest.mark.parametrize(
    ("path", "status", "words_of_it"),
    [
        (f"/messages/{msg_id(999)}", 404, "The message does not exist."),
        ("/topics/none-of-that", 404, "No such topic"),
    ],
)
def test_what_is_not_there_is_explained(
    operator: FlaskClient, path: str, status: int, words_of_it: str
) -> None:
    answer = operator.get(path)
    assert answer.status_code == status
    assert words_of_it in answer.text


@pytest.mark.parametrize(
    ("old", "new", "told", "status"),
    [
        ("x", "correct horse", {"old": "Is not your present password."}, 401),
        (
            "",
            "short",
            {
                "old": "Is needed.",
                "password": "Must be from 10 to 256 characters long.",
                "again": "Is not the same.",
            },
            400,
        ),
    ],
)
def test_own_password_is_refused_beside_its_fields(
    operator: FlaskClient, old: str, new: str, told: dict[str, str], status: int
) -> None:
    form = {"old": old, "password": new, "again": "correct horse"}
    answer = operator.post("/account", data=form)
    assert answer.status_code == status
    assert notes(answer.text) == told


def test_new_token_is_shown_once(operator: FlaskClient) -> None:
    made = operator.post("/access/tokens", data={"name": "once", "role": "viewer"}).text
    secret = re.search(r"soraka_[\w-]{20,}", made)
    assert secret is not None
    assert secret[0] not in operator.get("/access").text


@pytest.mark.parametrize(
    ("text", "ms"),
    [("90", 90), ("500ms", 500), (" 10 s ", 10_000), ("5min", 300_000), ("3d", 259_200_000)],
)
def test_durations_are_read(text: str, ms: int) -> None:
    assert words.read_duration("x", text) == ms


@pytest.mark.parametrize("text", ["", "s", "1.5s", "-1s", "5 weeks", "1s 2s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams, match=r"^x: must be a number and a unit"):
        words.read_duration("x", text)


@pytest.mark.parametrize("ms", [0, 1, 999, 1000, 61_000, 300_000, 7_200_000, 259_200_000])
def test_durations_are_written_as_they_are_read(ms: int) -> None:
    assert words.read_duration("x", words.write_duration(ms)) == ms


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1500, "1 s"),
        (90_061, "1 min 30 s"),
        (90_000_000, "1 d 1 h"),
        (None, words.NOTHING),
    ],
)
def test_durations_are_told_in_two_units(ms: int | None, told: str) -> None:
    assert words.duration(ms) == told


def test_moments_are_told_exactly() -> None:
    assert words.exact(1_688_063_454_358) == "2023-06-29 18:30:54.358 UTC = 1688063454358 ms"
    assert words.read_moment("x", words.iso(1_688_063_454_358)) == 1_688_063_454_358
    assert words.read_moment("x", "2023-06-29T18:30") == 1_688_063_400_000
    assert words.moment_input("2023-06-29T20:30+02:00") == "2023-06-29T18:30"
