"""The report in a real browser: table, viewer, theme, by pointer and by keyboard."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait


def by_id(browser, name):
    return browser.find_element(By.ID, name)


def painted(browser) -> np.ndarray:
    """What the viewer's canvas shows, float [y, x, rgb], once it has settled."""
    state = "const c = document.getElementById('canvas'); return [c.dataset.painted, c.dataset.shows]"
    known = None

    def settled(_):
        nonlocal known
        before, known = known, browser.execute_script(state)
        return known[0] is not None and known == before

    WebDriverWait(browser, 10, poll_frequency=0.06).until(settled)
    uri = browser.execute_script("return document.getElementById('canvas').toDataURL()")
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(image.convert("RGB"), dtype=float)


def differ(one, other) -> float:
    return float(np.abs(one - other).mean())


def choose(browser, name, value):
    browser.find_element(By.CSS_SELECTOR, f"[name={name}][value={value}]").click()


def column(browser, k):
    rows = browser.find_elements(By.CSS_SELECTOR, "#summary-table tbody tr")
    return [row.find_elements(By.XPATH, "./*")[k].text for row in rows]


def heading(browser, name):
    headings = browser.find_elements(By.CSS_SELECTOR, "#summary-table thead th")
    place = next(k for k, one in enumerate(headings) if one.text.startswith(name))
    return place, headings[place]


def test_nothing_of_a_hostile_name_runs(page):
    browser = page()
    assert "taken" not in browser.title
    assert "<script>" in by_id(browser, "failures").text
    assert "onerror" in column(browser, 0)[2]


@pytest.mark.parametrize("by", ["click", "keyboard"])
def test_sorting_by_a_column(page, by):
    browser = page()
    place, head = heading(browser, "PSNR")
    button = head.find_element(By.TAG_NAME, "button")

    def press():
        if by == "click":
            button.click()
        else:
            browser.execute_script("arguments[0].focus()", button)
            ActionChains(browser).send_keys(Keys.ENTER).perform()
        return [float(text) for text in column(browser, place) if text != "–"], column(browser, place)[-1]

    up, last = press()
    assert (up, last) == (sorted(up), "–")
    assert head.get_attribute("aria-sort") == "ascending"
    down, last = press()
    assert (down, last) == (sorted(up, reverse=True), "–")
    assert head.get_attribute("aria-sort") == "descending"
    other, other_head = heading(browser, "solver")
    other_head.find_element(By.TAG_NAME, "button").click()
    assert head.get_attribute("aria-sort") == "none"
    names = column(browser, other)
    assert names[1:] == ["adam:sweeps=2", "ap:sweeps=9"] or names[:2] == ["adam:sweeps=2", "ap:sweeps=9"]


def test_further_numbers_on_request(page):
    browser = page()
    before = len(
        [head for head in browser.find_elements(By.CSS_SELECTOR, "#summary-table thead th") if head.is_displayed()]
    )
    by_id(browser, "more").click()
    after = len(
        [head for head in browser.find_elements(By.CSS_SELECTOR, "#summary-table thead th") if head.is_displayed()]
    )
    assert after > before


def test_the_z_slider_changes_the_plane(page):
    browser = page()
    focused, slider = painted(browser), by_id(browser, "z")
    assert by_id(browser, "z-value").text == "each pixel at its own"
    assert by_id(browser, "focus").is_selected()  # beside the truth that is the fair view
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    first = painted(browser)
    assert by_id(browser, "z-value").text == "0.00 µm"
    assert not by_id(browser, "focus").is_selected()
    assert differ(focused[:, : focused.shape[1] // 4], first[:, : first.shape[1] // 4]) > 1
    assert by_id(browser, "right-tag").text == "truth (at its true depth)"
    slider.send_keys(Keys.END)
    last = painted(browser)
    assert by_id(browser, "z-value").text == "2.00 µm"
    half = first.shape[1] // 2 - 20
    assert differ(first[:, :half], last[:, :half]) > 1
    assert differ(first[:, half + 40 :], last[:, half + 40 :]) < 0.1  # the truth has no planes
    slider.send_keys(Keys.ARROW_LEFT)
    assert by_id(browser, "z-value").text == "1.00 µm"
    slider.send_keys(Keys.ARROW_LEFT)
    assert differ(first, painted(browser)) < 0.1
    by_id(browser, "focus").click()
    assert differ(focused, painted(browser)) < 0.1


def test_the_divider_follows_pointer_and_keys(page):
    browser = page()
    Select(by_id(browser, "left")).select_by_visible_text("truth")
    Select(by_id(browser, "right")).select_by_visible_text("adam:sweeps=2")
    divider, before = by_id(browser, "divider"), painted(browser)
    width = before.shape[1]
    ActionChains(browser).drag_and_drop_by_offset(divider, -width // 4, 0).perform()
    assert int(divider.get_attribute("aria-valuenow")) == pytest.approx(25, abs=1)
    after = painted(browser)
    changed = np.flatnonzero(np.abs(before - after).max(axis=(0, 2)) > 4)
    assert changed.min() == pytest.approx(width / 4, abs=4)
    assert changed.max() == pytest.approx(width / 2, abs=4)
    divider.send_keys(Keys.ARROW_RIGHT)
    assert int(divider.get_attribute("aria-valuenow")) == pytest.approx(27, abs=1)
    divider.send_keys(Keys.END)
    assert divider.get_attribute("aria-valuenow") == "100"
    whole = painted(browser)
    divider.send_keys(Keys.HOME)
    assert divider.get_attribute("aria-valuenow") == "0"
    assert differ(whole, painted(browser)) > 1


def test_amplitude_phase_and_error(page):
    browser = page()
    amplitude = painted(browser)
    choose(browser, "quantity", "phase")
    phase = painted(browser)
    assert by_id(browser, "bar-label").text == "phase (rad)"
    assert -3.14 < float(by_id(browser, "bar-low").text.replace("−", "-")) < 0  # it does not wrap
    assert np.ptp(amplitude, axis=2).max() <= 3  # grey
    assert np.ptp(phase, axis=2).max() > 20
    choose(browser, "quantity", "error")
    assert differ(phase, painted(browser)) > 1
    assert not by_id(browser, "z").is_enabled()
    assert "no error" in by_id(browser, "right-tag").text  # the truth has none: then the other takes all the room
    assert not by_id(browser, "divider").is_displayed()
    shown = painted(browser)
    assert (shown[:, shown.shape[1] // 2 :].max(axis=2) > 8).mean() > 0.3


def test_the_raw_image_lies_beside_the_result(page):
    browser = page()
    Select(by_id(browser, "right")).select_by_visible_text("raw image 4")
    both = painted(browser)
    half = both.shape[1] // 2 + 20
    assert both[:, half:].std() > 5
    choose(browser, "quantity", "phase")
    assert by_id(browser, "right-tag").text == "raw image 4 (no phase here)"
    assert painted(browser)[:, half:].std() > 5, "the result's phase is there instead"


def test_contrast_is_chosen_and_reset(page):
    browser = page()
    before, low = painted(browser), by_id(browser, "bar-low").text
    by_id(browser, "darkest").send_keys(*[Keys.ARROW_RIGHT] * 40)
    assert float(by_id(browser, "bar-low").text) > float(low)
    darker = painted(browser)
    assert darker.mean() < before.mean() - 5
    by_id(browser, "darkest").send_keys(Keys.END)  # beyond the other end, which gives way
    assert float(by_id(browser, "bar-low").text) < float(by_id(browser, "bar-high").text)
    by_id(browser, "contrast-reset").click()
    assert by_id(browser, "bar-low").text == low
    assert differ(before, painted(browser)) < 0.1


def test_a_click_chooses_the_row_of_the_profile(page):
    browser = page()
    painted(browser)
    canvas, row = by_id(browser, "canvas"), by_id(browser, "row")

    def curves():
        lines = browser.find_elements(By.CSS_SELECTOR, "#profile polyline")
        return [[float(at.split(",")[1]) for at in one.get_attribute("points").split()] for one in lines]

    first, width = curves(), len(curves()[0])
    assert width == 56, "one value for each pixel of the result"
    assert len(first) == 2
    ActionChains(browser).move_to_element_with_offset(canvas, 50, -canvas.size["height"] // 4).click().perform()
    painted(browser)
    assert int(row.get_attribute("value")) == pytest.approx(10, abs=1)  # of 40 rows
    assert curves() != first
    title = by_id(browser, "profile-title").text
    assert title.startswith("amplitude along y = ")
    row.send_keys(Keys.ARROW_RIGHT)
    painted(browser)
    assert by_id(browser, "profile-title").text != title


def test_every_link_leads_to_a_section_that_is_not_empty(page):
    browser = page()
    for link in browser.find_elements(By.CSS_SELECTOR, "nav a"):
        place = link.get_attribute("href").rpartition("#")[2]
        assert browser.execute_script("return document.getElementById(arguments[0]).children.length", place) > 1, place


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1366, True), (1366, False)])
def test_nobody_is_shut_out(page, shut_out, low_contrast, width, dark):
    """axe-core finds nothing, and all text stands out from what is behind it by 4.5 to 1."""
    browser = page(width, dark=dark)
    painted(browser)
    assert shut_out(browser) == []
    assert low_contrast(browser) == []


def test_zoom_is_linked_and_goes_by_button_key_and_wheel(page):
    browser = page()
    choose(browser, "layout", "pair")
    Select(by_id(browser, "left")).select_by_visible_text("truth")
    canvas = by_id(browser, "canvas")
    canvas.click()  # which chooses the row of the profile
    whole = painted(browser)
    half = whole.shape[1] // 2

    def sides(picture):  # without scale bars and edges
        return picture[40:-60, 4 : half - 4], picture[40:-60, -half + 4 : -4]

    assert differ(*sides(whole)) < 1
    by_id(browser, "zoom-in").click()
    near = painted(browser)
    assert differ(whole, near) > 1
    assert differ(*sides(near)) < 1
    canvas.send_keys("+")
    assert by_id(browser, "zoom-value").text == "2.3 ×"
    canvas.send_keys(Keys.ARROW_RIGHT)
    moved = painted(browser)
    assert differ(*sides(moved)) < 1
    ActionChains(browser).drag_and_drop_by_offset(canvas, -60, 25).perform()
    assert differ(moved, painted(browser)) > 1
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    box = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", canvas)
    turn = {"type": "mouseWheel", "x": box["x"] + 100, "y": box["y"] + 60, "deltaX": 0, "deltaY": -300}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", turn)
    painted(browser)
    assert float(by_id(browser, "zoom-value").text.split()[0]) > 3
    canvas.send_keys("0")
    assert differ(whole, painted(browser)) < 0.1


def test_values_under_the_pointer(page):
    browser = page()
    canvas = by_id(browser, "canvas")
    painted(browser)
    ActionChains(browser).move_to_element_with_offset(canvas, 40, 30).perform()
    text = by_id(browser, "readout").text
    assert text.startswith("x ")
    left, right = (float(part.split()[1]) for part in text.split(" · ")[1:])
    assert 0.2 < left < 1.6
    assert 0.2 < right < 1.6


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_follows_the_system_until_told_otherwise(page, dark):
    browser = page(dark=dark)

    def brightness():
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.strip("rgb()").split(",")) / 3

    def line():
        return browser.execute_script("return getComputedStyle(document.querySelector('.chart .s0 path')).stroke")

    system, button, ink = brightness(), by_id(browser, "theme"), line()
    assert (system < 60) if dark else (system > 200)
    button.click()
    assert (button.text, brightness() < 60) == ("Theme: dark", True)
    assert (line() == ink) == dark
    browser.refresh()
    assert by_id(browser, "theme").text == "Theme: dark"
    by_id(browser, "theme").click()
    assert brightness() > 200
    by_id(browser, "theme").click()
    assert brightness() == system


@pytest.mark.parametrize("width", [360, 390, 768, 1366, 1920])
def test_no_width_makes_the_page_scroll_sideways(page, width):
    browser = page(width)
    painted(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cut = "const nav = document.querySelector('nav'); return nav.scrollWidth - nav.clientWidth"
    assert browser.execute_script(cut) <= 0, "links to sections are cut off"
    stage = browser.find_element(By.CSS_SELECTOR, ".stage")
    assert stage.size["width"] > 0.45 * width
    assert stage.size["height"] < 1.1 * stage.size["width"]


def test_every_control_can_be_reached_by_keyboard(page):
    browser = page()
    reached = set()
    for _ in range(60):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(browser.execute_script("return document.activeElement.id"))
    assert {"theme", "more", "canvas", "divider", "left", "right", "z", "play", "focus", "zoom-in"} <= reached
