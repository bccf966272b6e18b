"""`dev/screenshots`: a picture of each page over the sample."""

import itertools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soraka.http import make_server
from soraka.process import listen
from tests.acceptance.sink import wait_until
from tests.browser.chromium import NARROW, WIDE, Browser, chromium
from tests.browser.sample import LONG, msg_id
from tests.browser.sample_app import sample_app

PAGES = {
    "overview": "/",
    "topics": "/topics",
    "topic": "/topics/billing.dunning",
    "topic-long": f"/topics/{LONG}",
    "topic-new": "/topics/new",
    "messages": "/messages",
    "message": f"/messages/{msg_id(5)}",
    "message-dead": f"/messages/{msg_id(3)}",
    "dead": "/dead",
    "job": "/jobs/job",
    "jobs": "/jobs",
    "monitor": "/monitor?minutes=360",
    "instances": "/instances",
    "access": "/access",
    "audit": "/audit",
    "account": "/account",
}
EMPTY = ("overview", "topics", "messages", "dead", "jobs", "monitor", "instances", "audit")
DOCS = (
    ("overview", WIDE, False),
    ("messages", WIDE, False),
    ("monitor", WIDE, True),
    ("overview", NARROW, True),
)
"""Those of docs/images."""
DOCS_HEIGHT = {WIDE: 900, NARROW: 844}
DRAWN = "return [...document.querySelectorAll('.chart')].every((c) => c.dataset.drawn)"
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def main() -> None:
    docs = sys.argv[1:] == ["--docs"]
    folder = Path(
        "docs/images" if docs else sys.argv[1] if len(sys.argv) > 1 else "build/screenshots"
    )
    wanted = sys.argv[2:] or [*PAGES, *(f"{name}-empty" for name in EMPTY)]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        browser.zone("Europe/Lisbon")
        for empty in (False, True):
            with _served(Path(scratch) / str(empty), empty) as home:
                for name in wanted:
                    if name.endswith("-empty") == empty:
                        url = home + PAGES[name.removesuffix("-empty")]
                        for width, dark in _looks(name, docs):
                            _take(browser, url, folder / name, width, dark, whole=not docs)


@contextmanager
def _served(folder: Path, empty: bool) -> Iterator[str]:
    """Its address."""
    server = make_server(listen("127.0.0.1", 0), sample_app(folder, empty=empty))
    server.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stop(timeout=1)


def _looks(name: str, docs: bool) -> list[tuple[int, bool]]:
    """Width and whether dark."""
    if docs:
        return [(width, dark) for page, width, dark in DOCS if page == name]
    return list(itertools.product((WIDE, NARROW), (False, True)))


def _take(browser: Browser, url: str, path: Path, width: int, dark: bool, *, whole: bool) -> None:
    browser.look(width=width, height=DOCS_HEIGHT[width], dark=dark)
    browser.driver.get(url)
    wait_until(lambda: browser.driver.execute_script(DRAWN), 10, lambda: f"charts of {url}")
    too_wide = browser.driver.execute_script(OVERFLOW)
    shot = path.with_name(f"{path.name}-{width}-{'dark' if dark else 'light'}.png")
    shot.write_bytes(browser.picture() if whole else browser.picture(DOCS_HEIGHT[width]))
    print(shot, f"{too_wide} px too wide" if too_wide > 0 else "", *browser.complaints())


if __name__ == "__main__":
    main()
