"""The judges' page in a browser: without a server, by mouse and keyboard, and what it lets them download."""

from __future__ import annotations

import shutil
import time

import pytest

pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tinyplm.evaluation.judgement import make_sheet, read_ratings, write_sheet

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
FLAGS += "--disable-component-update --disable-sync"
ANSWERS = {
    "ada": {"Ask <b>": 'one, "two"\nthree', "文": "</script><script>alert(1)</script>"},
    "ben": {"Ask <b>": "four" * 200, "文": "five"},
}


@pytest.fixture
def browser(tmp_path):
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "saved")})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as driver:
        yield driver


@pytest.mark.parametrize("language", ["en", "zh"])
def test_judging_in_a_browser(browser, tmp_path, language):
    sheet = make_sheet(ANSWERS, criteria=["fluency", 'my "own", one'], key=1)
    write_sheet(sheet, tmp_path, language=language)
    page = (tmp_path / "page.html").as_uri()
    browser.get(page)

    def element(name):
        return browser.find_element(By.ID, name)

    def choose(criterion, choice):
        browser.find_element(By.CSS_SELECTOR, f"#criteria fieldset:nth-child({criterion + 1}) input[value={choice}]").click()

    for item in sheet.items:  # shown as they are, nothing of them read as HTML
        assert [element(name).get_property("textContent") for name in ("prompt", "left", "right")] == list(item[1:4])
        choose(0, "left")
        if item.number < len(sheet.items):
            element("next").send_keys(Keys.ENTER)
    choose(1, "same")
    element("save").click()  # without a name nothing is saved
    assert browser.switch_to.active_element == element("judge")
    element("judge").send_keys("Eva Ä")
    browser.get(page)  # what was chosen is kept
    assert element("judge").get_property("value") == "Eva Ä" and element("progress").get_property("value") == 1
    element("back").click()
    assert browser.execute_script("return document.documentElement.lang") == language
    for width in (360, 1280):
        browser.set_window_size(width, 800)
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    element("save").click()
    path, until = tmp_path / "saved" / "ratings-Eva_Ä.csv", time.monotonic() + 20
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    ratings = read_ratings(sheet, [path])
    assert [(r.judge, r.item, r.choice) for r in ratings] == [("Eva Ä", 1, "left"), ("Eva Ä", 2, "left"), ("Eva Ä", 2, "same")]
    assert ratings[2].criterion == 'my "own", one'
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
