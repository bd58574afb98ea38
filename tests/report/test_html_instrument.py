"""What the report says of the instrument is what a real run with a wrong instrument has found."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fpmtools
from fpmtools import storage
from fpmtools.cli import main
from fpmtools.formats import native
from fpmtools.report import html_folder, html_instrument, html_page, html_run
from fpmtools.runs.spec import Outputs

SIZE = (32, 38)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of noisy images through an objective that is not ideal, with an LED left out."""
    folder = tmp_path_factory.mktemp("instrument")
    data = fpmtools.simulate("thin", image_shape=SIZE, photons=2000, aberration_rad=0.6, seed=1)
    used = np.ones(data.n_images, bool)
    used[5] = False
    native.save(data.with_calibration(used=used), folder / "data.safetensors")
    spec = fpmtools.RunSpec(
        str(folder / "data.safetensors"), "epry", {"sweeps": 5}, calibrate="none", outputs=Outputs(pictures=())
    )
    fpmtools.run(spec, folder / "run")
    return folder / "run"


def test_a_run_alone_is_a_report_of_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    text = (run / "report.html").read_text()
    shown = re.findall('<section id="(.*?)"', text)
    assert shown[:6] == ["summary", "images", "error-maps", "leds", "spectrum", "instrument"]
    assert "storage" not in shown, "there is nothing to compare with"
    sources = json.loads(re.search('id="data">(.*?)</script>', text, re.S).group(1))["galleries"][0]["sources"]  # type: ignore[union-attr]
    assert [source["kind"] for source in sources] == ["result", "truth", "raw"]
    microscope = re.search('class="microscope">(.*?)<', text).group(1)  # type: ignore[union-attr]
    assert microscope.startswith("10×, NA 0.256 · λ 522.6 nm · pixel 0.345 µm · 68 LEDs to NA 0.25")
    assert microscope.endswith("images 32 × 38, 11 × 13.1 µm")


def test_each_leds_chi2_is_at_its_place(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    (group,) = html_instrument.led_maps(html_run.read(run))
    (shown,) = group["maps"]
    calibration = fpmtools.open_result(run).calibration
    assert calibration is not None
    places = np.array([[dot["x"], dot["y"]] for dot in shown["dots"]])
    scale = places[-1] @ calibration.na[-1] / (calibration.na[-1] @ calibration.na[-1])
    np.testing.assert_allclose(places, calibration.na * scale, atol=1e-9)
    assert np.abs(places).max() < 1
    assert shown["circle"] == pytest.approx(0.256 * scale)
    assert (shown["dots"][5]["colour"], shown["dots"][5]["label"]) == (None, "image 5: left out")
    values = record["fit"]["chi2_per_led"]
    assert [dot["chi2"] for k, dot in enumerate(shown["dots"]) if k != 5] == [v for k, v in enumerate(values) if k != 5]
    assert group["low"] <= min(values[:5]) <= max(values[:5]) <= group["high"] * (1 + 1e-9)


def test_the_pupil_that_was_found_is_in_waves(run: Path) -> None:
    (shown,) = html_instrument.instruments(html_run.read(run))
    calibration = fpmtools.open_result(run).calibration
    assert calibration is not None
    waves = calibration.pupil.zernike_rad / (2 * np.pi)
    assert float(shown["pupil"]["rms"]) == pytest.approx(np.linalg.norm(waves[3:]), abs=6e-4)
    listed = {int(mode["j"]): float(mode["waves"].replace("−", "-")) for mode in shown["pupil"]["modes"]}
    assert len(listed) >= 5
    for j, value in listed.items():
        assert value == pytest.approx(waves[j - 1], abs=6e-4)
    ends = [(mode["left"], mode["left"] + mode["width"]) for mode in shown["pupil"]["modes"]]
    assert all(0 <= low <= high <= 100 and 50 in (round(low, 6), round(high, 6)) for low, high in ends)
    assert shown["facts"]["images left out"] == "1"


def test_the_spectrum_is_where_the_leds_have_measured(run: Path) -> None:
    (shown,) = html_instrument.coverage(html_run.read(run))
    assert shown["leds"] == 67
    assert len(shown["circles"]) == 67
    assert shown["pupil"] < shown["outer"] < 1
    reach = max(np.hypot(at["x"], at["y"]) for at in shown["circles"])
    assert reach + shown["pupil"] == pytest.approx(shown["outer"], rel=1e-6)


def test_what_was_looked_for_is_told_whether_it_was_kept(run: Path) -> None:
    folder = html_run.read(run)
    known = folder.rows[0].calibration
    assert known is not None
    groups = {"pupil": {"kept": True, "without": 0.02, "with": 0.01}, "<b>": {"kept": False}, "odd": 3}
    joint = {"groups": groups, "moved": {"shift_na": [0.01, -0.02], "rest_na": 0.003}, "margin": 8, "exposure": "x"}
    known.found.update(board={"shift_na": [0.001, 0.0]}, joint=joint)  # type: ignore[attr-defined]
    (shown,) = html_instrument.instruments(folder)
    assert shown["groups"] == [
        {"what": "aberrations", "kept": True, "without": "0.0200", "with": "0.0100"},
        {"what": "<b>", "kept": False, "without": "–", "with": "–"},
        {"what": "odd", "kept": False, "without": "–", "with": "–"},
    ]
    assert shown["facts"]["board's shift"] == "NA (+0.0110, −0.0200)"
    assert shown["facts"]["LEDs moved besides"] == "NA 0.003 rms"
    assert shown["facts"]["margin that is solved"] == "8 camera pixels"
    assert "dark field's exposure" not in shown["facts"]
    page = html_page.page(folder)
    assert "<bdi>&lt;b&gt;</bdi>" in page


def test_gains_are_told_within_bright_and_dark_field(run: Path) -> None:
    folder = html_run.read(run)
    known, optics = folder.rows[0].calibration, folder.rows[0].optics
    assert known is not None
    assert optics is not None
    dark = np.linalg.norm(known.na, axis=1) > 0.2
    uneven = replace(known, gain=np.where(dark, 0.25, 1.0))
    folder.rows[0].__dict__["calibration"] = replace(uneven, found={"joint": {"exposure": 0.25}})
    folder.rows[0].__dict__["optics"] = replace(optics, na=0.2)
    (shown,) = html_instrument.instruments(folder)
    assert shown["facts"]["dark field's exposure"] == "× 0.25"
    assert "LED gains" not in shown["facts"]
    folder.rows[0].__dict__["calibration"] = uneven
    (shown,) = html_instrument.instruments(folder)
    assert shown["facts"]["LED gains"].endswith("%")


def test_a_run_without_a_result_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage.write_json(tmp_path / "run.json", {"status": "running"})
    assert main(["report", str(tmp_path)]) == 3
    assert "no result yet (status: running)" in capsys.readouterr().err


def test_a_folder_of_before_shows_what_it_has(comparison_folder: Path) -> None:
    """No calibration, no raw image, no χ²: the sections are not there, and nothing fails."""
    folder = html_folder.read(comparison_folder)
    assert html_instrument.led_maps(folder) == html_instrument.coverage(folder) == []
    assert html_instrument.instruments(folder) == []
    assert html_instrument.microscope(folder.rows) == ""
