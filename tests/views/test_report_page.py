"""The report page in a real browser: it opens without errors, the slider changes the mask, filters filter."""

import json
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from pseudolabel.views.report_page import Page, Picture, Table, labels_uri, photo_uri, render, scores_uri

webdriver = pytest.importorskip("selenium.webdriver")
waiting = pytest.importorskip("selenium.webdriver.support.ui")
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

pytestmark = pytest.mark.slow
TRICKY = "</script><b>bold</b> & 'quoted'"


def picture(key: str, label: int, confidence: float | None, **further) -> Picture:
    """A square of one class whose score rises from left to right."""
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    labels = np.where(ramp > 0.5, np.uint8(label), np.uint8(0))
    image = Image.fromarray(np.full((64, 64, 3), 120, np.uint8))
    uris = {"image": photo_uri(image), "maps": [scores_uri(ramp)], "mask": labels_uri(labels)}
    return Picture(key, [label], confidence=confidence, **uris, **further)


def page() -> Page:
    return Page(
        title=f"run {TRICKY}",
        tables=[Table("Counts", ["status", "number"], [["ok", "3"], [TRICKY, "1"]], bars={1: [1.0, 0.25]})],
        bins=[1, 0, 2],
        span=(0.2, 0.9),
        plots=[],
        names=["background", "cat", TRICKY],
        threshold=0.25,
        pictures=[
            picture("first/a", 1, 0.9, truth=labels_uri(np.zeros((64, 64), np.uint8))),
            picture(TRICKY, 2, 0.2),
            picture("third", 1, None, source="human"),
        ],
        note="All 3 samples.",
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver; on Debian: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_script_timeout(60)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(render(page()))
    opened.get(path.as_uri())
    yield opened
    opened.quit()


def wait(browser, condition: str) -> None:
    waiting.WebDriverWait(browser, 60).until(lambda _: browser.execute_script(f"return {condition}"))


def change(browser, element: str, value: object, event: str) -> None:
    script = "const [id, value, event] = arguments; const element = document.getElementById(id);"
    script += "element.value = value; element.dispatchEvent(new Event(event))"
    browser.execute_script(script, element, str(value), event)


def titles(browser) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('#gallery button')].map(b => b.title)")


def test_it_opens_without_errors_and_escapes_text(browser) -> None:
    assert browser.title == f"run {TRICKY}"
    assert TRICKY in browser.find_element("tag name", "table").text
    assert not browser.find_elements("tag name", "b")[1:]  # one of the page's own
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert (
        browser.find_element("css selector", ".bars")
        .get_attribute("aria-label")
        .endswith(" from 0.20 to 0.90: 1, 0, 2")
    )


def test_the_histogram_has_axes_and_the_table_bars(browser) -> None:
    assert browser.find_element("css selector", ".chart").text.split() == ["2", "0", "0.20", "0.55", "0.90"]
    bars = browser.find_elements("css selector", ".bars i")
    assert [bar.get_attribute("title") for bar in bars][-1] == "2 of 0.667 to 0.900"
    assert bars[2].size["height"] == pytest.approx(2 * bars[0].size["height"], abs=2)
    script = "return [...document.querySelectorAll('td.bar')].map(cell => getComputedStyle(cell).backgroundImage)"
    full, quarter = browser.execute_script(script)
    assert "100%" in full and "25%" in quarter  # noqa: PT018


def test_filters_and_order(browser) -> None:
    assert titles(browser) == [TRICKY, "first/a", "third"]  # least confident first
    change(browser, "order", "best", "change")
    assert titles(browser)[-1] == TRICKY
    change(browser, "class", 2, "change")
    assert titles(browser) == [TRICKY]
    change(browser, "class", "", "change")
    change(browser, "text", "FIRST", "input")
    assert titles(browser) == ["first/a"]
    assert browser.find_element("id", "count").text == "1 of 3"
    change(browser, "text", "CAT", "input")  # a class
    assert set(titles(browser)) == {"first/a", "third"}
    change(browser, "text", "", "input")
    change(browser, "order", "worst", "change")


def test_random_order_stays_while_filtering(browser) -> None:
    seen = set()
    for _ in range(60):  # of six orders
        change(browser, "order", "random", "change")
        order = titles(browser)
        seen.add(tuple(order))
        change(browser, "text", "cat", "input")
        change(browser, "text", "", "input")
        assert titles(browser) == order
    assert 1 < len(seen) <= 6
    assert all(sorted(order) == sorted(["first/a", TRICKY, "third"]) for order in seen)
    change(browser, "order", "worst", "change")


def test_a_click_shows_panels_and_the_slider_moves_the_mask(browser) -> None:
    browser.find_elements("css selector", "#gallery button")[1].click()
    wait(browser, "document.getElementById('at-threshold')?.dataset.pixels")
    captions = [caption.text for caption in browser.find_elements("css selector", "#panels figcaption")]
    assert captions == ["image", "score map: cat", "mask", "ground truth", "score maps at the threshold"]
    assert browser.find_element("id", "detail-facts").text == "cat · confidence 0.900"
    counted = []
    for threshold in (0.0, 0.25, 0.75, 1.0):
        change(browser, "slider", threshold, "input")
        counted.append(int(browser.find_element("id", "at-threshold").get_attribute("data-pixels")))
    expected = [64 * int((np.linspace(0, 1, 64) > threshold).sum()) for threshold in (0.0, 0.25, 0.75, 1.0)]
    assert np.abs(np.array(counted) - expected).max() <= 64  # one column, where 8 bits round
    assert counted == sorted(counted, reverse=True)


def test_keys_move_through_the_gallery(browser) -> None:
    for key, title in ((Keys.ARROW_RIGHT, "third"), ("k", "first/a"), (Keys.ARROW_LEFT, TRICKY), ("j", "first/a")):
        webdriver.ActionChains(browser).send_keys(key).perform()
        wait(browser, f"document.getElementById('detail-title').textContent === {json.dumps(title)}")
    webdriver.ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    wait(browser, "!document.getElementById('detail').open")


def test_keys_begin_again_in_a_filtered_list(browser) -> None:
    browser.find_elements("css selector", "#gallery button")[2].click()
    wait(browser, "document.getElementById('detail').open")
    webdriver.ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    wait(browser, "!document.getElementById('detail').open")
    change(browser, "text", "first", "input")
    browser.execute_script("document.activeElement.blur()")
    webdriver.ActionChains(browser).send_keys("j").perform()
    wait(browser, "document.getElementById('detail').open")
    assert browser.find_element("id", "detail-title").text == "first/a"
    webdriver.ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    wait(browser, "!document.getElementById('detail').open")
    change(browser, "text", "", "input")


def test_keys_of_the_browser_stay_its_own(browser) -> None:
    script = "const event = new KeyboardEvent('keydown', {...arguments[0], cancelable: true, bubbles: true});"
    script += "document.body.dispatchEvent(event); return event.defaultPrevented"
    for modifier in ("altKey", "ctrlKey", "metaKey"):
        assert browser.execute_script(script, {"key": "ArrowLeft", modifier: True}) is False


def test_filters_are_hidden_until_the_script_shows_them(browser) -> None:
    assert browser.find_element("id", "filters").is_displayed()
    browser.execute_script("document.getElementById('filters').hidden = true")
    assert not browser.find_element("id", "filters").is_displayed()
    browser.execute_script("document.getElementById('filters').hidden = false")
