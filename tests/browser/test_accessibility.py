"""axe-core on every page, light and dark, over the sample: full and empty."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from soraka.http import make_server
from soraka.process import listen
from tests.acceptance.sink import wait_until
from tests.browser.chromium import NARROW, WIDE, Browser, absent
from tests.browser.sample_app import sample_app
from tests.browser.screenshots import DRAWN, EMPTY, OVERFLOW, PAGES
from tests.browser.site import Site

DEV = Path(__file__).resolve().parents[2] / "dev"
CONTRAST = ["color-contrast", "target-size"]
SERIOUS = """
const [rules, done] = arguments;
const only = rules ? {runOnly: rules} : {};
axe.run(document, {resultTypes: ["violations"], ...only}).then((found) => done(found.violations
  .filter((v) => ["serious", "critical"].includes(v.impact))
  .map((v) => v.id + ": " + v.nodes.map((n) => n.html.slice(0, 160)).join(" | "))));
"""


@pytest.fixture(scope="module")
def axe() -> str:
    where = "from stacklib import npm; print(npm.axe())"
    path = Path(subprocess.check_output([sys.executable, "-c", where], cwd=DEV, text=True).strip())
    if not path.exists():
        absent("axe-core")
    return path.read_text()


@pytest.fixture(scope="module", params=["full", "empty"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Which sample, and where it is."""
    folder = tmp_path_factory.mktemp("sample")
    app = sample_app(folder, empty=request.param == "empty")
    server = make_server(listen("127.0.0.1", 0), app)
    server.start()
    yield request.param, f"http://127.0.0.1:{server.server_port}"
    server.stop(timeout=1)


@pytest.mark.timeout(240)  # some seconds, but for a machine under load
def test_no_serious_fault_and_nothing_too_wide(
    browser: Browser, served: tuple[str, str], axe: str
) -> None:
    kind, home = served
    pages = {name: PAGES[name] for name in EMPTY} if kind == "empty" else PAGES
    faults = [fault for path in pages.values() for fault in _faults(browser, f"{home}{path}", axe)]
    assert faults == []


def _faults(browser: Browser, url: str, axe: str) -> list[str]:
    """All rules wide and light; dark and narrow those that this may change."""
    driver, found = browser.driver, []
    browser.look(width=WIDE)
    driver.get(url)
    wait_until(lambda: driver.execute_script(DRAWN), 10, lambda: f"charts of {url}")
    driver.execute_script(axe)
    for width, rules in ((WIDE, None), (NARROW, CONTRAST)):
        browser.look(width=width, dark=width == NARROW)
        faults = driver.execute_async_script(SERIOUS, rules)
        found += [f"{url} {width}: {fault}" for fault in faults]
        if driver.execute_script(OVERFLOW) > 0:
            found.append(f"{url} is wider than {width}")
    return found + browser.complaints()


def test_login_page(browser: Browser, logged_in: Site, axe: str) -> None:
    """As one who is not logged in sees it."""
    driver = browser.driver
    logged_in.go("/")
    kept = driver.get_cookies()
    driver.delete_all_cookies()
    logged_in.go("/login")
    driver.execute_script(axe)
    assert driver.execute_async_script(SERIOUS, None) == []
    for cookie in kept:
        driver.add_cookie(cookie)
