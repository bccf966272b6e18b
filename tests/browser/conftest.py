"""One soraka and one browser, logged in, for all tests here."""

import re
from collections.abc import Iterator

import pytest

from tests.acceptance.deployments import Standalone
from tests.acceptance.sink import Sink
from tests.browser.chromium import Browser, absent, chromium, installed
from tests.browser.site import Site


@pytest.fixture(scope="session")
def soraka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    made = Standalone(tmp_path_factory.mktemp("browser"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not installed():
        absent("chromium and chromedriver")
    with chromium() as made:
        yield made


@pytest.fixture(scope="session")
def password(soraka: Standalone) -> str:
    """Of the first account, as it is told at the first start."""
    told = re.search(r"as 'admin' with the password (\S+)", soraka.output())
    assert told is not None, soraka.output()
    return told[1]


@pytest.fixture(scope="session")
def logged_in(browser: Browser, soraka: Standalone, password: str) -> Site:
    site = Site(browser, f"http://127.0.0.1:{soraka.admin_port}")
    site.go("/topics")
    site.fill("name", "admin")
    site.fill("password", password)
    site.press("Log in")
    site.wait_heading("Topics")
    return site


@pytest.fixture
def site(logged_in: Site) -> Iterator[Site]:
    """Wide and light; a test fails when the browser has complained, or asked anybody else."""
    logged_in.browser.look()
    logged_in.browser.complaints()
    logged_in.browser.requested()
    yield logged_in
    assert logged_in.browser.complaints() == []
    strangers = [url for url in logged_in.browser.requested() if not logged_in.owns(url)]
    assert strangers == []


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()
