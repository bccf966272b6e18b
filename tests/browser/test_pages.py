"""A person at work: the pages of a real standalone in a real browser."""

import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium.webdriver.common.by import By

from tests.acceptance.deployments import Standalone
from tests.acceptance.sink import Answer, Sink, wait_until
from tests.browser.chromium import NARROW
from tests.browser.site import Site

HOUR_MS = 3_600_000


@pytest.fixture
def topic(site: Site) -> str:
    """Added by hand."""
    name = f"topic-{uuid.uuid4().hex[:8]}"
    site.go("/topics")
    site.press("Add topic")
    site.wait_heading("Add topic")
    site.fill("topic_name", name)
    site.fill("business", "Shop")
    site.press("Add topic")
    site.wait_heading(name)
    return name


def test_message_is_postponed_and_cancelled(
    site: Site, soraka: Standalone, topic: str, sink: Sink
) -> None:
    msg_id = soraka.submit(topic, sink.url("/later"), delay_time=HOUR_MS)
    soraka.wait_state(msg_id, "pending")
    site.go(f"/messages?topic={topic}&state=pending")
    site.press(msg_id)
    site.wait_text("in 59 min")
    site.fill("add_time", "2h")
    site.press("Postpone")
    site.wait_text("Postponed by 2 h.")
    site.wait_text("in 2 h 59 min")
    site.press("Cancel")
    site.refuse()
    assert soraka.state(msg_id) == "pending"
    site.press("Cancel")
    assert msg_id in site.agree("Cancel message")
    site.wait_text("Cancelled: it will not be called")
    site.wait_text("cancelled")
    assert soraka.state(msg_id) == "cancelled"
    site.press(topic)
    site.wait_heading(topic)


def test_dead_letter_is_redriven(site: Site, soraka: Standalone, topic: str, sink: Sink) -> None:
    sink.answer("/gone", Answer(status=410))
    msg_id = soraka.submit(topic, sink.url("/gone"), delay_time=0)
    soraka.wait_state(msg_id, "dead")
    site.go(f"/dead?topic={topic}")
    site.wait_text("410")
    site.press(msg_id)
    site.wait_text("HTTP 410")
    sink.answer("/gone", Answer())
    site.go(f"/dead?topic={topic}")
    site.press("Redrive", "td")
    site.agree("Redrive")
    soraka.wait_state(msg_id, "succeeded")
    site.go(f"/messages/{msg_id}")
    site.wait_text("HTTP 200")


def test_message_is_fired_now(site: Site, soraka: Standalone, topic: str, sink: Sink) -> None:
    msg_id = soraka.submit(topic, sink.url("/now"), delay_time=HOUR_MS)
    soraka.wait_state(msg_id, "pending")
    site.go(f"/messages/{msg_id}")
    site.press("Fire now")
    site.agree("Fire now")
    sink.wait(msg_id)
    site.wait_text("HTTP 200")  # by itself


def test_bulk_work_by_filter(site: Site, soraka: Standalone, topic: str, sink: Sink) -> None:
    ids = [soraka.submit(topic, sink.url("/later"), delay_time=HOUR_MS) for _ in range(3)]
    for msg_id in ids:
        soraka.wait_state(msg_id, "pending")
    site.go(f"/messages?topic={topic}")
    site.driver.find_element(By.NAME, "scope").send_keys("all")
    site.press("Cancel")
    assert "all messages that match" in site.agree("Cancel them")
    site.wait_heading("Bulk cancel")
    site.wait_text("done")
    assert [soraka.state(msg_id) for msg_id in ids] == ["cancelled"] * 3


def test_what_is_ticked_stays_while_the_page_is_live(
    site: Site, soraka: Standalone, topic: str, sink: Sink
) -> None:
    first = soraka.submit(topic, sink.url("/later"), delay_time=HOUR_MS)
    soraka.wait_state(first, "pending")
    site.go(f"/messages?topic={topic}")
    site.driver.find_element(By.ID, f"t-{first}").click()
    site.wait_text("1 selected")
    site.fill("add_time", "3h")
    second = soraka.submit(topic, sink.url("/later"), delay_time=HOUR_MS)
    site.wait_text(second)
    assert site.driver.find_element(By.ID, f"t-{first}").is_selected()
    assert not site.driver.find_element(By.ID, f"t-{second}").is_selected()
    assert site.driver.find_element(By.NAME, "add_time").get_property("value") == "3h"
    site.press("Postpone")
    assert "1 message" in site.agree("Postpone them")
    site.wait_text("done")
    site.go(f"/messages/{first}")
    site.wait_text("in 3 h 59 min")


def test_bulk_work_needs_a_message(site: Site, soraka: Standalone, topic: str, sink: Sink) -> None:
    msg_id = soraka.submit(topic, sink.url("/later"), delay_time=HOUR_MS)
    soraka.wait_state(msg_id, "pending")
    site.go(f"/messages?topic={topic}")
    buttons = site.driver.find_elements(By.CSS_SELECTOR, "#bulk button")

    def enabled() -> set[bool]:
        return {button.is_enabled() for button in buttons}

    assert enabled() == {False}
    site.driver.find_element(By.ID, f"t-{msg_id}").click()
    assert enabled() == {True}
    site.driver.find_element(By.ID, f"t-{msg_id}").click()
    assert enabled() == {False}
    site.driver.find_element(By.NAME, "scope").send_keys("all")
    assert enabled() == {True}


def test_values_of_a_card_end_at_one_edge(
    site: Site, soraka: Standalone, topic: str, sink: Sink
) -> None:
    soraka.wait_state(soraka.submit(topic, sink.url("/later"), delay_time=HOUR_MS), "pending")
    edges = """
        return [...document.querySelectorAll(".cards [data-label]")].map((cell) => {
          const content = document.createRange();
          content.selectNodeContents(cell);
          return Math.round(content.getBoundingClientRect().right);
        }).filter((right) => right);
    """
    site.browser.look(width=NARROW)
    for path in (f"/messages?topic={topic}", "/instances", "/topics"):
        site.go(path)
        found = site.driver.execute_script(edges)
        assert len(found) > 3
        assert max(found) - min(found) <= 1, path


def test_worker_of_a_standalone_says_why_it_has_no_drain(site: Site) -> None:
    site.go("/instances")
    site.wait_text("shares its process with other roles")
    assert "Drain" not in site.text()


def test_topic_pauses_and_resumes(site: Site, soraka: Standalone, topic: str, sink: Sink) -> None:
    site.press("Pause")
    site.agree("Pause topic")
    site.wait_text("Its messages wait")
    msg_id = soraka.submit(topic, sink.url("/now"), delay_time=0)
    soraka.wait_state(msg_id, "pending")
    site.go(f"/messages/{msg_id}")
    site.wait_text("nobody while its topic is paused")
    assert sink.of(msg_id) == []
    site.go(f"/topics/{topic}")
    site.press("Resume")
    site.wait_no_text("Its messages wait")
    sink.wait(msg_id)


def test_wrong_field_is_told_beside_it(site: Site, topic: str) -> None:
    site.fill("retry_ms", "1s, soon")
    site.fill("business", "Kept as it was typed")
    site.press("Save settings")
    field = "retry_ms"
    wait_until(lambda: site.driver.find_elements(By.ID, f"f-{field}-note"), 10)
    site.wait_text("Number 2: must be a number and a unit")
    assert site.driver.find_element(By.NAME, field).get_attribute("aria-invalid") == "true"
    business = site.driver.find_element(By.NAME, "business").get_attribute("value")
    assert business == "Kept as it was typed"
    complaints = site.browser.complaints()  # Chromium notes the 400 of the page itself
    assert all("400" in complaint for complaint in complaints)


def test_charts_are_read(site: Site, soraka: Standalone, topic: str, sink: Sink) -> None:
    sink.wait(soraka.submit(topic, sink.url("/now"), delay_time=0))

    def called() -> bool:
        site.go(f"/monitor?topic={topic}")
        return "Callbacks\n1\n" in site.text()

    wait_until(called, 20, lambda: site.text())
    drawn = "return document.querySelectorAll('.chart[data-drawn] canvas').length"
    wait_until(lambda: site.driver.execute_script(drawn) == 3, 10, lambda: "three charts")
    legends = [e.text for e in site.driver.find_elements(By.CSS_SELECTOR, ".u-legend")]
    assert "callback" in legends[0]
    site.driver.find_element(By.CSS_SELECTOR, ".chart-table summary").click()
    site.wait_text("Minute")


def test_minutes_that_stand_alone_are_drawn_and_times_have_their_unit(site: Site) -> None:
    site.go("/monitor")
    script = """
        const flow = {label: "flow", tone: "chart-1", values: [6100, null, 20, 30, null, 4000]};
        const data = {kind: "lines", unit: "ms", x: [0, 60, 120, 180, 240, 300], series: [flow]};
        const element = document.querySelector(".chart");
        draw(element, data);
        const chart = charts.get(element).chart;
        const values = flow.values.map((_, at) => chart.series[1].value(chart, 0, 1, at));
        return requestAnimationFrame(() => arguments[0](
          [chart.series[1].points.filter(chart, 1, false, null), values, chart.axes[1]._values]));
    """
    points, values, axis = site.driver.execute_async_script(script)
    assert points == [0, 5]
    assert values == ["6.1 s", "–", "20 ms", "30 ms", "–", "4 s"]  # noqa: RUF001 (a dash)
    assert (axis[0], axis[-1]) == ("0 s", "6 s")


def test_theme_is_chosen_and_kept(site: Site) -> None:
    site.go("/")
    site.press("Dark", "header")
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert site.driver.execute_script(ground) == "rgb(15, 19, 23)"
    site.go("/topics")
    assert site.driver.execute_script(ground) == "rgb(15, 19, 23)"
    site.press("Light", "header")
    assert site.driver.execute_script(ground) == "rgb(245, 246, 247)"
    site.driver.execute_script("localStorage.clear()")


def test_one_who_is_logged_out_is_led_to_the_login(site: Site) -> None:
    site.go("/instances?service=worker")
    kept = site.driver.get_cookies()
    site.driver.delete_all_cookies()
    wait_until(lambda: site.path.startswith("/login?next=/instances"), 10, lambda: site.path)
    for cookie in kept:
        site.driver.add_cookie(cookie)
    complaints = site.browser.complaints()  # Chromium notes the answer that led there
    assert all("401" in complaint for complaint in complaints)


class _BadGateway(BaseHTTPRequestHandler):
    """As a proxy answers when nobody listens behind it."""

    def do_GET(self) -> None:
        self.send_error(502)

    def log_message(self, *_: object) -> None:
        pass


def test_page_outlives_an_outage(site: Site, soraka: Standalone, topic: str) -> None:
    site.go(f"/topics/{topic}")
    site.wait_heading(topic)
    site.fill("business", "Typed before")
    (standalone,) = soraka.processes.values()
    standalone.stop()
    try:
        site.wait_text("No answer, trying again")
        with ThreadingHTTPServer(("127.0.0.1", soraka.admin_port), _BadGateway) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            try:
                wait_until(lambda: any("502" in c for c in site.browser.complaints()), 20)
                assert "No answer, trying again" in site.text()
            finally:
                proxy.shutdown()
    finally:
        standalone.start()
        soraka.wait_ready()
    site.wait_no_text("No answer, trying again")
    site.wait_text("Live")
    assert site.driver.find_element(By.NAME, "business").get_property("value") == "Typed before"
    site.browser.complaints()  # Chromium notes each answer that did not come


def test_moments_are_of_the_zone_of_the_browser(
    site: Site, soraka: Standalone, topic: str, sink: Sink
) -> None:
    msg_id = soraka.submit(topic, sink.url("/later"), deliver_at=_tomorrow_ms())
    soraka.wait_state(msg_id, "pending")
    site.browser.zone("Asia/Kolkata")
    site.go(f"/messages/{msg_id}")
    due = site.driver.find_element(By.CSS_SELECTOR, "dd time")
    assert "05:30:00" in due.text
    assert f"00:00:00.000 UTC = {_tomorrow_ms()} ms" in str(due.get_attribute("title"))
    site.browser.zone("UTC")


def _tomorrow_ms() -> int:
    return (int(time.time()) // 86_400 + 1) * 86_400_000
