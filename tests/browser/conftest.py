"""A report of a real comparison, and a real browser that has it open from disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from fpmtools.cli import main
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster
from fpmtools.report import html_page
from fpmtools.simulation import simulate

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (it is in the dev extra)")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,800",
)
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"

# Text whose contrast is less than 4.5, with it: its colour against the first opaque one behind it.
CONTRASTS = """
const rgba = (text) => {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = text;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data];
};
const bright = (colour) => colour.slice(0, 3).map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, k) => sum + part * [0.2126, 0.7152, 0.0722][k], 0);
const behind = (one) => {
  for (let at = one; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return rgba("white");
};
const bad = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text = texts.nextNode(); text; text = texts.nextNode()) {
  const one = text.parentElement;
  if (!text.data.trim() || !one.checkVisibility() || one.closest("script, .map, .stage, title, option")) continue;
  const style = getComputedStyle(one);
  const ink = rgba(one instanceof SVGElement ? style.fill : style.color);
  const [low, high] = [bright(ink), bright(behind(one))].sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) bad.push([text.data.trim(), ratio]);
}
return bad;
"""

Open = Callable[..., "webdriver.Chrome"]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two solvers at five z on a tilted sample of 20 × 28 pixels, and a third, of a hostile name, that failed."""
    folder = tmp_path_factory.mktemp("browser")
    dataset = simulate("tilted", image_shape=(20, 28), leds=direction_sines(raster(3, 3, 9.0), 74.0), tilt_um=2.0)
    data = native.save(dataset, folder / "data.safetensors")
    arguments = ["--solvers", "ap:sweeps=9,adam:sweeps=2", "--z", "-2:2:5", "--threads", "1", "--quiet"]
    assert main(["compare", "--data", str(data), *arguments, "--out", str(folder / "out")]) == 0
    results = folder / "out" / "results.json"
    document = json.loads(results.read_text())
    document["rows"].append({"solver": HOSTILE, "status": "failed", "reason": HOSTILE, "repeats": 1})
    results.write_text(json.dumps(document))
    return html_page.write(folder / "out")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium; the tests are skipped where it or its driver is not installed."""
    program = os.environ.get("FPMTOOLS_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with chromedriver here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def seen(browser: webdriver.Chrome) -> Open:
    """``seen(address, width=1280, dark=False)`` opens a page."""

    def show(address: str, width: int = 1280, height: int = 800, *, dark: bool = False) -> webdriver.Chrome:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.get(address)
        return browser

    return show


@pytest.fixture(scope="session")
def shut_out() -> Callable[[webdriver.Chrome], list[Any]]:
    """What axe-core finds on the page that is open: rule, and where."""
    axe = pytest.importorskip("axe_core_python", reason="axe-core is not installed (it is in the dev extra)")
    script = (resources.files(axe) / "axe.min.js").read_text(encoding="utf-8")

    def found(browser: webdriver.Chrome) -> list[Any]:
        browser.execute_script(script)
        said = browser.execute_async_script("const done = arguments[0]; axe.run().then((all) => done(all.violations))")
        return [(one["id"], [node["target"] for node in one["nodes"]]) for one in said]

    return found


@pytest.fixture(scope="session")
def low_contrast() -> Callable[[webdriver.Chrome], list[Any]]:
    """Text that does not stand out from what is behind it by 4.5 to 1, and how much it does."""
    return lambda browser: browser.execute_script(CONTRASTS)


@pytest.fixture
def page(browser: webdriver.Chrome, seen: Open, report: Path) -> Iterator[Open]:
    """``page(width=1280, dark=False)`` opens the report; at the end the browser must have had no complaints."""

    def show(*size: int, **look: bool) -> webdriver.Chrome:
        seen(report.as_uri(), *size, **look)
        browser.execute_script("localStorage.clear()")
        browser.refresh()
        return browser

    browser.get_log("browser")
    yield show
    assert browser.get_log("browser") == []
