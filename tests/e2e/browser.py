"""A real browser, headless, as a person would use it: by what is written on a page and by the keyboard.
It runs no script of ours, since our pages have none."""

import os
import pathlib
import shutil
import tempfile

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 30
SIZES = {"phone": (390, 844, True), "desktop": (1280, 800, False)}


class Browser:
    def __init__(self, language="en"):
        self.folder = tempfile.mkdtemp(prefix="rolecall-browser-")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
        for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                     "--no-first-run", "--disable-background-networking", "--disable-sync",
                     "--disable-component-update", "--disable-dev-shm-usage",
                     f"--user-data-dir={self.folder}", "--window-size=1280,800"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_page_load_timeout(PATIENCE)
        # Nothing of a page is missing without scripts.
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})

    def close(self):
        self.driver.quit()
        shutil.rmtree(self.folder, ignore_errors=True)

    def open(self, url):
        self.driver.get(url)

    @property
    def title(self):
        return self.driver.title

    @property
    def text(self):
        return self.driver.find_element(By.TAG_NAME, "body").text

    @property
    def language(self):
        return self.driver.find_element(By.TAG_NAME, "html").get_attribute("lang")

    def field(self, label):
        """The field that a label names, found as a screen reader finds it."""
        found = self.driver.find_element(By.XPATH, f"//label[normalize-space()='{label}']")
        return self.driver.find_element(By.ID, found.get_attribute("for"))

    def type(self, label, text):
        field = self.field(label)
        field.clear()
        field.send_keys(text)

    def press(self, words):
        """Presses the button or follows the link that says so, and waits for the next page."""
        said = f"[normalize-space()='{words}']"
        target = self.driver.find_element(By.XPATH, f"//button{said}|//a{said}")
        target.click()
        WebDriverWait(self.driver, PATIENCE).until(lambda _: gone(target))

    def press_enter(self):
        focused = self.driver.switch_to.active_element
        focused.send_keys(Keys.ENTER)
        WebDriverWait(self.driver, PATIENCE).until(lambda _: gone(focused))

    def tab_to(self, label):
        """Moves with the tab key alone to what a label, a button or a link says."""
        for _ in range(20):
            webdriver.ActionChains(self.driver).send_keys(Keys.TAB).perform()
            focused = self.driver.switch_to.active_element
            name = focused.accessible_name
            if name == label:
                return focused
        raise AssertionError(f"no way to {label!r} by keyboard")

    def complaints(self):
        """What the browser complains about, such as a policy that a page breaks. That a page answers
        422 or 404 is no complaint about the page; nor is what the browser says of its own pages."""
        told = [entry["message"] for entry in self.driver.get_log("browser")
                if not entry["message"].startswith("chrome://")]
        return [message for message in told
                if "favicon.ico" not in message and "the server responded with a status" not in message]

    def size(self, name):
        width, height, mobile = SIZES[name]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile})

    def fits(self):
        """Whether nothing of the page is cut off to the right."""
        metrics = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})
        return metrics["cssContentSize"]["width"] <= metrics["cssLayoutViewport"]["clientWidth"]

    def picture(self, name):
        """Keeps pictures of the page in the folder that ROLECALL_PICTURES names, if it does."""
        folder = os.environ.get("ROLECALL_PICTURES")
        for size in SIZES:
            self.size(size)
            assert self.fits(), f"{name} is cut off on a {size}"
            if folder:
                pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
                self.driver.save_screenshot(f"{folder}/{name}-{size}.png")


def gone(element):
    try:
        element.is_enabled()
        return False
    except Exception:
        return True
