"""The page of ``fpmtools view`` in a real browser: pan, zoom, z, compare, lines, permalink, hostile names."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from fpmtools.leds import direction_sines, raster
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.simulation import simulate
from fpmtools.viewer.regions import Kept
from fpmtools.viewer.scene import Scene
from fpmtools.viewer.server import Server
from fpmtools.viewer.sources import FieldSource, ImageSource, Lights

HOSTILE = "</title><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
EXTENT = (20 * 0.345, 28 * 0.345)
Show = Callable[..., "webdriver.Chrome"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Two results of 60 × 84 pixels on z −3 … 3, one of a hostile name, raw images of 9 LEDs, and a plane far below."""
    data = simulate("tilted", image_shape=(20, 28), leds=direction_sines(raster(3, 3, 9.0), 74.0), tilt_um=2.0)
    y, x = np.mgrid[:60, :84]
    kept, z_um = Kept(), (-3.0, 0.0, 3.0)
    lights = Lights(data.na, data.calibration.used, data.optics.na, data.optics.wavelength_um)
    sources = []
    for name, pitch in (("first", 9.0), (HOSTILE, 13.0)):
        waves = [1 + 0.5 * np.cos(2 * np.pi * (x + z + y / 2) / pitch) for z in z_um]
        planes = np.stack([(w * np.exp(0.5j * w)).astype(np.complex64) for w in waves])
        stack = PlaneStack(planes, z_um, Grid((60, 84), EXTENT, (-3.0, 3.0)))
        sources.append(FieldSource.of(stack, name, kept, lights=lights, facts={name: name}))
    flat = PlaneStack(planes[:1], (-55.0,), Grid((60, 84), EXTENT, (-55.0, -55.0)))
    below = FieldSource.of(flat, "below", kept, lights=lights)
    scene = Scene([*sources, ImageSource.of(data, "raw images", kept, lights=lights), below], HOSTILE, [HOSTILE])
    with Server(scene) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
    scene.close()


@pytest.fixture
def show(browser: webdriver.Chrome, seen: Show, server: Server) -> Iterator[Show]:
    """``show(hash="", width=1200, dark=False)`` opens the page; in the end the browser must have had no complaints.

    Nothing may have gone anywhere else, and the page's policy must have had nothing to forbid.
    """

    def opened(after: str = "", width: int = 1200, height: int = 640, *, dark: bool = False) -> webdriver.Chrome:
        browser.get("about:blank")
        seen(server.url + after, width, height, dark=dark)
        settled(browser)
        return browser

    browser.get_log("browser")
    yield opened
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert all(name.startswith((f"http://127.0.0.1:{server.port}/", "data:", "blob:")) for name in loaded)
    # OpenSeadragon says so where a pane goes while its tiles are on their way.
    assert [entry for entry in browser.get_log("browser") if "loaded before reset" not in entry["message"]] == []


def by_id(browser, name):
    return browser.find_element(By.ID, name)


def shown(browser) -> list[str]:
    """What each pane says it shows: source/view/at/low/high."""
    return browser.execute_script("return [...document.querySelectorAll('.pane')].map((p) => p.dataset.shown ?? '')")


def settled(browser) -> list[str]:
    """As :func:`shown`, once no pane is busy and nothing moves."""
    state = """return JSON.stringify([[...document.querySelectorAll('.pane')].map((p) => [p.dataset.shown ?? '',
        p.classList.contains('busy'), p.dataset.drawn]), location.hash])"""
    known = None

    def still(_):
        nonlocal known
        before, known = known, browser.execute_script(state)
        panes = json.loads(known)[0]
        return known == before and panes and all(what and not busy for what, busy, _ in panes)

    WebDriverWait(browser, 15, poll_frequency=0.1).until(still)
    return shown(browser)


def picture(browser, k=0) -> np.ndarray:
    """What the canvas of pane ``k`` holds, float [y, x, rgb]."""
    settled(browser)
    uri = browser.execute_script(f"return document.querySelectorAll('.pane')[{k}].querySelector('canvas').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), dtype=float)


def differ(one, other) -> float:
    return float(np.abs(one - other).mean())


def press(browser, *keys):
    browser.execute_script("document.activeElement.blur()")
    ActionChains(browser).send_keys(*keys).perform()
    return settled(browser)


def hash_of(browser) -> str:
    return browser.execute_script("return location.hash")


def test_the_picture_is_the_field(show, server):
    """At 12 screen pixels per pixel each is a square of its own grey."""
    browser = show("#view=amplitude&of=0&z=3&at=5,3,3&range.amplitude=0.4,1.6,gray")
    canvas = picture(browser)
    per_um = canvas.shape[1] / 3
    field = np.abs(server.scene.sources[0].overview("amplitude", 3.0))
    step = EXTENT[1] / 84
    for row, column in ((26, 43), (22, 40), (30, 51)):
        x = canvas.shape[1] / 2 + (column * step - 5) * per_um
        y = canvas.shape[0] / 2 + (row * step - 3) * per_um
        expected = np.clip((field[row, column] - 0.4) / 1.2, 0, 1) * 255
        assert canvas[round(y), round(x), 0] == pytest.approx(expected, abs=1.5)


def test_regions_that_lie_apart_are_both_shown(show, server):
    """Moved together, one of them would be empty."""
    source = server.scene.sources[1]
    source.corner_um = (500.0, 0.0)
    try:
        browser = show("#view=amplitude&of=0&beside=1,same&z=0&at=5,3,4")
        assert "lie apart" in by_id(browser, "message").text
        assert all(picture(browser, k).std() > 5 for k in (0, 1))
        before = picture(browser, 1)
        press(browser, Keys.ARROW_RIGHT)
        assert differ(before, picture(browser, 1)) < 0.1
    finally:
        source.corner_um = (0.0, 0.0)
    browser = show("#view=amplitude&of=0&beside=1,same&z=0")
    assert not by_id(browser, "message").is_displayed()


def test_z_changes_the_picture(show):
    browser = show("#view=amplitude&of=0&z=0")
    middle = picture(browser)
    slider = by_id(browser, "z")
    slider.send_keys(Keys.END)
    top = picture(browser)
    assert shown(browser)[0].split("/")[2] == "3"
    assert by_id(browser, "z-number").get_attribute("value") == "3"
    assert differ(middle, top) > 1
    press(browser, "[")  # from plane to plane
    assert differ(middle, picture(browser)) < 0.1
    press(browser, Keys.PAGE_UP)
    assert differ(top, picture(browser)) < 0.1
    field = by_id(browser, "z-number")
    field.clear()
    field.send_keys("-1.25", Keys.ENTER)
    settled(browser)
    assert shown(browser)[0].split("/")[2] == "-1.25"


def test_the_slider_goes_as_far_as_what_is_shown(show):
    """And not as far as results that nobody looks at."""
    browser = show("#view=amplitude&of=0&z=0")
    slider = by_id(browser, "z")
    slider.send_keys(Keys.HOME)
    settled(browser)
    assert shown(browser)[0].split("/")[2] == "-3"
    show("#view=amplitude&of=0&beside=3,same&z=0")
    slider = by_id(browser, "z")
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == ("-55", "3")
    show("#view=amplitude&of=3&z=0")
    assert not by_id(browser, "z").is_displayed()
    assert by_id(browser, "one-z").text == "z = −55 µm"


def test_pan_and_zoom(show):
    browser = show("#view=amplitude&of=0&z=0")
    whole = picture(browser)
    stage = browser.find_element(By.CSS_SELECTOR, ".pane .picture")
    press(browser, "+", "+")
    near = picture(browser)
    assert differ(whole, near) > 1
    ActionChains(browser).drag_and_drop_by_offset(stage, 120, 40).perform()
    moved = picture(browser)
    assert differ(near, moved) > 1
    press(browser, Keys.ARROW_RIGHT)
    assert differ(moved, picture(browser)) > 1
    turn = {"type": "mouseWheel", "x": 400, "y": 300, "deltaX": 0, "deltaY": -240}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", turn)
    before = hash_of(browser)
    WebDriverWait(browser, 5).until(lambda _: hash_of(browser) != before)
    press(browser, "0")
    assert differ(whole, picture(browser)) < 0.5
    assert "at=" not in hash_of(browser)


def test_layers(show):
    browser = show("#view=amplitude&of=0&z=0")
    grey = picture(browser)
    assert np.ptp(grey[250:350, 300:600], axis=2).max() == 0
    for key, view in (("p", "phase"), ("u", "unwrapped"), ("c", "colour"), ("s", "spectrum"), ("r", "raw")):
        press(browser, key)
        assert shown(browser)[0].split("/")[1] == view
        assert differ(grey, picture(browser)) > 1
        pressed = browser.find_elements(By.CSS_SELECTOR, "#views [aria-pressed=true]")
        assert [button.get_attribute("data-view") for button in pressed] == [view]
    press(browser, "a")
    assert differ(grey, picture(browser)) < 0.1


def test_the_spectrum_has_the_circles_of_the_leds(show):
    browser = show("#view=spectrum&of=0&z=0&led=4")
    canvas = picture(browser).sum(axis=2)
    middle = browser.find_element(By.CSS_SELECTOR, ".circle.chosen")
    row, column = np.argwhere(canvas == canvas.max()).mean(axis=0)
    assert row == pytest.approx(float(middle.get_attribute("cy")), abs=12), "the brightest is what was not diffracted"
    assert column == pytest.approx(float(middle.get_attribute("cx")), abs=12)
    browser = show("#view=spectrum&of=0&z=0&led=3")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".circle")) == 10
    by_id(browser, "circles").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, ".circle")) == 1
    by_id(browser, "circles").click()
    chosen, *others = browser.find_elements(By.CSS_SELECTOR, ".circle.chosen")
    assert not others
    middle = browser.execute_script("return document.querySelector('.pane').clientWidth") / 2
    assert float(chosen.get_attribute("cx")) < middle - 10  # LED 3 stands left of the middle
    browser.find_element(By.CSS_SELECTOR, "#led-map [data-led='5']").click()
    settled(browser)
    chosen = browser.find_element(By.CSS_SELECTOR, ".circle.chosen")
    assert float(chosen.get_attribute("cx")) > middle + 10


def test_raw_images_of_any_led(show, server):
    browser = show("#view=amplitude&of=0&z=0")
    browser.find_element(By.CSS_SELECTOR, "#led-map [data-led='7']").click()  # shows what was clicked
    assert settled(browser)[0].split("/")[1:3] == ["raw", "7"]
    one = picture(browser)
    press(browser, ".")
    assert shown(browser)[0].split("/")[2] == by_id(browser, "led").get_attribute("value") == "8"
    assert differ(one, picture(browser)) > 1
    press(browser, "s")
    assert shown(browser)[0].split("/")[1] == "rawspectrum"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".circle.chosen")) == 2


def test_two_results_share_one_view(show):
    browser = show("#view=amplitude&of=0&beside=0,same&z=0")
    assert differ(picture(browser, 0)[100:-60, 150:-30], picture(browser, 1)[100:-60, 150:-30]) < 1
    stage = browser.find_elements(By.CSS_SELECTOR, ".pane .picture")[1]
    ActionChains(browser).double_click(stage).perform()
    ActionChains(browser).drag_and_drop_by_offset(stage, 60, 60).perform()
    near = [picture(browser, k)[100:-60, 150:-30] for k in (0, 1)]
    assert differ(*near) < 1.5
    other = browser.find_elements(By.CSS_SELECTOR, ".pane")[1].find_elements(By.TAG_NAME, "select")
    Select(other[0]).select_by_index(1)
    assert [what.split("/")[0] for what in settled(browser)] == ["0", "1"]
    assert differ(picture(browser, 0)[100:-60, 150:-30], picture(browser, 1)[100:-60, 150:-30]) > 5
    press(browser, "]")
    assert {what.split("/")[2] for what in shown(browser)} == {"3"}
    assert len({tuple(what.split("/")[3:]) for what in shown(browser)}) == 1  # one range for both
    press(browser, "x")
    assert [what.split("/")[0] for what in shown(browser)] == ["1", "0"]
    press(browser, "d")
    assert len(shown(browser)) == 1
    assert shown(browser)[0].split("/")[0] == "1"
    press(browser, "d")
    second = browser.find_elements(By.CSS_SELECTOR, ".pane")[1].find_elements(By.TAG_NAME, "select")[-1]
    Select(second).select_by_value("raw")
    assert [what.split("/")[1] for what in settled(browser)] == ["amplitude", "raw"]


def test_whatever_is_asked_for_in_haste_the_last_wish_is_shown(show):
    browser = show("#view=amplitude&of=0&beside=1,same&z=0")
    browser.execute_script(
        """window.said = []; const box = document.getElementById('message'), z = document.getElementById('z');
        new MutationObserver(() => box.hidden || said.push(box.textContent)).observe(box, {childList: true});
        const press = (key) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        for (let k = 0; k < 40; k++) setTimeout(() => {
          z.value = -3 + 0.1 * k;
          z.dispatchEvent(new Event('input'));
          if (k % 5 === 0) press('apucsr'[k % 6]);
          if (k % 9 === 2 || k === 39) press('d');
        }, 12 * k);
        setTimeout(() => press('a'), 520);"""
    )
    WebDriverWait(browser, 20).until(lambda _: settled(browser)[0].split("/")[:3] == ["0", "amplitude", "0.9"])
    assert settled(browser)[1].split("/")[:3] == ["1", "amplitude", "0.9"]
    assert browser.execute_script("return window.said") == []
    assert len({tuple(what.split("/")[3:]) for what in shown(browser)}) == 1


def test_a_line_is_measured(show, server):
    browser = show("#view=amplitude&of=0&beside=1,same&z=0")
    press(browser, "l")
    overlay = browser.find_element(By.CSS_SELECTOR, ".pane .overlay")
    actions = ActionChains(browser).move_to_element_with_offset(overlay, -80, -40).click_and_hold()
    actions.move_by_offset(60, 30).move_by_offset(60, 30).release().perform()
    WebDriverWait(browser, 5).until(lambda _: by_id(browser, "profile").is_displayed())
    settled(browser)
    ends = [float(by_id(browser, name).get_attribute("value")) for name in ("x0", "y0", "x1", "y1")]
    per_um = browser.execute_script("return document.querySelector('.pane').clientWidth") / (EXTENT[1] * 1.04)
    assert ends[2] - ends[0] == pytest.approx(120 / per_um, rel=0.05)
    assert ends[3] - ends[1] == pytest.approx(60 / per_um, rel=0.05)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#chart path")) == 2
    assert "µm" in by_id(browser, "measured").text
    assert len(browser.find_elements(By.CSS_SELECTOR, ".rule")) == 2
    x = by_id(browser, "x1")
    x.clear()
    x.send_keys("6", Keys.ENTER)
    WebDriverWait(browser, 5).until(lambda _: ",6," in hash_of(browser).replace("%2C", ","))
    press(browser, Keys.ESCAPE)
    assert not by_id(browser, "profile").is_displayed()
    assert "line" not in hash_of(browser)


def test_values_under_the_pointer(show, server):
    browser = show("#view=amplitude&of=0&z=0")
    stage = browser.find_element(By.CSS_SELECTOR, ".pane .picture")
    ActionChains(browser).move_to_element_with_offset(stage, 10, -20).perform()
    WebDriverWait(browser, 5).until(lambda _: "rad" in by_id(browser, "readout").text)
    place, amplitude, _ = by_id(browser, "readout").text.split(" · ")
    x, y = (float(part.split()[1]) for part in place.replace("µm", "").split(","))
    column, row = (round(v / (EXTENT[1] / 84)) for v in (x, y))
    field = np.abs(server.scene.sources[0].overview("amplitude", 0.0))
    near = field[row - 1 : row + 2, column - 1 : column + 2]
    assert near.min() - 1e-3 <= float(amplitude.split()[1]) <= near.max() + 1e-3


def test_the_range(show):
    browser = show("#view=amplitude&of=0&z=0")
    before = picture(browser)
    high = by_id(browser, "high")
    high.clear()
    high.send_keys("5", Keys.ENTER)
    settled(browser)
    assert shown(browser)[0].endswith("/5")
    dark = picture(browser)
    assert dark[250:350, 300:600].mean() < 0.6 * before[250:350, 300:600].mean()
    Select(by_id(browser, "colours")).select_by_value("magma")
    assert np.ptp(picture(browser)[250:350, 300:600], axis=2).max() > 20
    by_id(browser, "auto").click()
    assert differ(before, picture(browser)) < 0.1


def test_the_address_restores_what_is_seen(show):
    browser = show("#view=phase&of=1&beside=0,raw&z=-1.5&led=5&at=4,3,5&range.phase=-1,1,viridis&line=space,1,1,5,4")
    first, panes, address = [picture(browser, k) for k in (0, 1)], shown(browser), hash_of(browser)
    assert panes[0] == "1/phase/-1.5/-1/1"
    assert panes[1].startswith("2/raw/5/")
    show(address)
    assert shown(browser) == panes
    assert hash_of(browser) == address
    for k in (0, 1):
        assert differ(first[k], picture(browser, k)) < 0.1
    assert by_id(browser, "profile").is_displayed()
    browser.execute_script("location.hash = '#view=amplitude&of=0&z=2'")
    WebDriverWait(browser, 5).until(lambda _: len(shown(browser)) == 1)
    settled(browser)
    assert shown(browser)[0].startswith("0/amplitude/2/")
    assert "token" not in browser.current_url


@pytest.mark.parametrize(
    "after",
    [
        "#view=__proto__&of=99&beside=-1,constructor&z=1e999&led=-7&at=NaN,1,2&range.phase=3,1,evil&line=<b>,1",
        "#%%%&view&view=&=&range.amplitude=0,1,__proto__",
        f"#view={HOSTILE}&of={HOSTILE}&line={HOSTILE}",
    ],
)
def test_an_address_of_nonsense_does_nothing(show, after):
    browser = show(after)
    assert shown(browser)[0].startswith("0/amplitude/")
    assert "taken" not in browser.title or browser.title.startswith("</title>")


@pytest.mark.parametrize("view", ["amplitude", "spectrum"])
def test_nothing_of_a_hostile_name_runs(show, view):
    browser = show(f"#view={view}&of=1&beside=1,same&line=space,1,1,5,4")
    assert browser.title.startswith("</title><script>")
    assert browser.execute_script("return document.querySelectorAll('img[src=x], body script').length") == 0
    assert "<script>" in by_id(browser, "facts").text
    assert "onerror" in by_id(browser, "notes").text
    assert "<script>" in by_id(browser, "title").text


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1366, False), (1920, True)])
def test_it_fits_and_follows_the_theme(show, width, dark):
    browser = show("#view=amplitude&of=0&beside=1,same", width, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in colour.strip("rgb()").split(",")) / 3 < 60) == dark
    for pane in browser.find_elements(By.CSS_SELECTOR, ".pane"):
        assert pane.size["width"] > 0.3 * width
        assert pane.size["height"] > 200
    cut = "const views = document.getElementById('views'); return views.scrollWidth - views.clientWidth"
    assert browser.execute_script(cut) <= 0, "views are cut off"
    if width > 760:
        assert browser.execute_script("return document.documentElement.scrollHeight") <= 640


def test_every_control_can_be_reached_by_keyboard(show):
    browser = show("#view=spectrum&of=0&beside=1,amplitude&line=space,1,1,5,4")
    reached = set()
    for _ in range(70):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(browser.execute_script("return document.activeElement.id"))
    wanted = {"compare", "line", "fit", "link", "help", "low", "high", "auto", "led", "circles", "x0", "save-line", "z"}
    assert wanted <= reached
    press(browser, "?")
    assert by_id(browser, "keys").get_attribute("open") is not None
    nameless = browser.execute_script(
        """return [...document.querySelectorAll('button, input, select')].filter((e) => e.checkVisibility())
        .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))
        .map((e) => e.outerHTML)"""
    )
    assert nameless == []


@pytest.mark.parametrize(
    ("after", "width", "dark"),
    [("#view=spectrum&of=0", 390, True), ("#view=colour&of=0&beside=1,raw&line=space,1,1,5,4", 1366, False)],
)
def test_nobody_is_shut_out(show, shut_out, low_contrast, after, width, dark):
    browser = show(after, width, dark=dark)
    for dialog in ("", "document.getElementById('keys').showModal()"):
        browser.execute_script(dialog)
        assert shut_out(browser) == []
        assert low_contrast(browser) == []
