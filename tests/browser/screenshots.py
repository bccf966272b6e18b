"""`dev/screenshots`: a picture of each page over the sample."""

import sys
import tempfile
from pathlib import Path

from gevent.pywsgi import WSGIServer

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
DRAWN = "return [...document.querySelectorAll('.chart')].every((c) => c.dataset.drawn)"
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots")
    wanted = sys.argv[2:] or [*PAGES, *(f"{name}-empty" for name in EMPTY)]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        browser.zone("Europe/Lisbon")
        for empty in (False, True):
            app = sample_app(Path(scratch) / str(empty), empty=empty)
            server = WSGIServer(("127.0.0.1", 0), app, log=None)
            server.start()
            home = f"http://127.0.0.1:{server.server_port}"
            for name in wanted:
                if name.endswith("-empty") == empty:
                    _take(browser, home + PAGES[name.removesuffix("-empty")], folder / name)
            server.stop(timeout=1)


def _take(browser: Browser, url: str, path: Path) -> None:
    for width in (WIDE, NARROW):
        for dark in (False, True):
            browser.look(width=width, height=900 if width == WIDE else 844, dark=dark)
            browser.driver.get(url)
            wait_until(lambda: browser.driver.execute_script(DRAWN), 10, lambda: f"charts of {url}")
            too_wide = browser.driver.execute_script(OVERFLOW)
            shot = path.with_name(f"{path.name}-{width}-{'dark' if dark else 'light'}.png")
            shot.write_bytes(browser.picture())
            print(shot, f"{too_wide} px too wide" if too_wide > 0 else "", *browser.complaints())


if __name__ == "__main__":
    main()
