"""A report of a real comparison, and a real browser that has it open from disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

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
def page(browser: webdriver.Chrome, report: Path) -> Iterator[Open]:
    """``page(width=1280, dark=False)`` opens the report; at the end the browser must have had no complaints."""

    def show(width: int = 1280, height: int = 800, *, dark: bool = False) -> webdriver.Chrome:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.get(report.as_uri())
        browser.execute_script("localStorage.clear()")
        browser.refresh()
        return browser

    browser.get_log("browser")
    yield show
    assert browser.get_log("browser") == []
