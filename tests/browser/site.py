"""The pages as a person uses them: by labels and by the words on buttons."""

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.acceptance.sink import wait_until
from tests.browser.chromium import Browser


class Site:
    def __init__(self, browser: Browser, home: str) -> None:
        self.browser = browser
        self.driver = browser.driver
        self._home = home

    def owns(self, url: str) -> bool:
        return url.startswith((self._home + "/", "data:"))

    def go(self, path: str) -> None:
        self.driver.get(self._home + path)

    @property
    def path(self) -> str:
        return self.driver.current_url.removeprefix(self._home)

    def text(self) -> str:
        """What is to be read in the page now; it may be changing."""
        try:
            return str(self.driver.find_element(By.TAG_NAME, "main").text)
        except WebDriverException:
            return ""

    def wait_text(self, text: str, timeout_s: float = 15.0) -> None:
        wait_until(lambda: text in self.text(), timeout_s, lambda: f"{text!r} in {self.text()}")

    def wait_no_text(self, text: str, timeout_s: float = 15.0) -> None:
        wait_until(
            lambda: text not in self.text(), timeout_s, lambda: f"no {text!r} in {self.text()}"
        )

    def wait_heading(self, text: str) -> None:
        def heading() -> str:
            found = self.driver.find_elements(By.TAG_NAME, "h1")
            try:
                return found[0].text if found else ""
            except StaleElementReferenceException:
                return ""

        wait_until(lambda: heading() == text, 10, lambda: f"heading {text!r}: {self.text()}")

    def fill(self, name: str, value: str) -> None:
        """The field of that name."""
        field = self.driver.find_element(By.NAME, name)
        field.clear()
        field.send_keys(value)

    def press(self, label: str, within: str = "main") -> None:
        """The button or link of that label, as soon as it is there."""
        wait_until(lambda: self._pressed(label, within), 10, lambda: f"button {label!r}")

    def agree(self, label: str) -> str:
        """To the question that is asked; returns its words."""
        wait_until(lambda: self._dialog() is not None, 5, lambda: "a question")
        words = self.driver.find_element(By.ID, "ask").text
        self.press(label, "dialog")
        return words

    def refuse(self) -> None:
        wait_until(lambda: self._dialog() is not None, 5, lambda: "a question")
        self.press("Keep as it is", "dialog")
        wait_until(lambda: self._dialog() is None, 5, lambda: "no question")

    def _dialog(self) -> WebElement | None:
        found = self.driver.find_elements(By.CSS_SELECTOR, "dialog[open]")
        return found[0] if found else None

    def _pressed(self, label: str, within: str) -> bool:
        path = f"//{within}//*[self::button or self::a][normalize-space()={label!r}]"
        try:
            for element in self.driver.find_elements(By.XPATH, path):
                if element.is_displayed():
                    element.click()
                    return True
        except WebDriverException:  # replaced just now by a newer one
            return False
        return False
