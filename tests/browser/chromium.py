"""Debian's Chromium, headless, with what it complains of and whom it talks to."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--window-size=1280,900",
)
WIDE, NARROW = 1280, 390


def installed() -> bool:
    return all(shutil.which(name) for name in ("chromium", "chromedriver"))


def absent(what: str) -> NoReturn:
    """Skips the test, or fails it in CI."""
    told = f"{what} not installed: run dev/stack install"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Raises WebDriverException when it does not start."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(20)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def look(self, *, width: int = WIDE, height: int = 900, dark: bool = False) -> None:
        """As on a screen of that size, of people who prefer light or dark."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._cdp("Emulation.setEmulatedMedia", features=[scheme, still])

    def zone(self, name: str) -> None:
        self._cdp("Emulation.setTimezoneOverride", timezoneId=name)

    def complaints(self) -> list[str]:
        """Errors of scripts and of the content policy since the last call."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]

    def requested(self) -> list[str]:
        """The addresses asked for since the last call."""
        messages = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        sent = (m["params"] for m in messages if m["method"] == "Network.requestWillBeSent")
        return [params["request"]["url"] for params in sent]

    def picture(self, max_height: int = 20_000) -> bytes:
        """PNG of the whole page, as far down as that."""
        size = self._cdp("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "scale": 1}
        clip["height"] = min(size["height"], max_height)
        shot = self._cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def _cdp(self, method: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(method, parameters)
