"""Simulated slides: the sample anywhere, what changes over the frame, and that images are those of the truth."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fpmtools
from fpmtools import slide as slides
from fpmtools.cli import main
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, OptionError, OutputError
from fpmtools.problem import prepare
from fpmtools.slide import sample, simulate_slide

SHAPE = (150, 194)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 LEDs, nine of them bright field, one pupil, one plane; angles change over the frame."""
    return simulate_slide(
        tmp_path_factory.mktemp("slide") / "plain", image_shape=SHAPE, leds=5, pitch_mm=1.77, height_mm=30,
        aberration_rad=0, tilt_um=0, bow_um=0, progress=False,
    )  # fmt: skip


def read(folder: Path, **how: object) -> Dataset:
    return fpmtools.load(folder / "images.npy", config=folder / "microscope.yaml", **how)


def test_any_part_of_the_sample_can_be_made_alone() -> None:
    whole = sample.transmission(3, 0.55, (-70, 130), (-10, 240))
    part = sample.transmission(3, 0.55, (-11, 90), (100, 201))
    assert np.array_equal(part, whole[59:160, 110:211])
    assert not np.allclose(part, sample.transmission(4, 0.55, (-11, 90), (100, 201)), atol=0.1)
    assert 0.3 < np.abs(whole).min() < np.abs(whole).max() <= 1 + 1e-6
    assert np.angle(whole).std() > 0.2


def test_its_images_are_those_of_its_truth(plain: Path) -> None:
    """A part off the middle, by the forward model: its own angles, and the curvature of the waves in the object."""
    y, x, h, w = 20, 84, 96, 96
    data, u = read(plain), 2
    part = data.crop(y, x, h, w)
    field = np.load(plain / "truth_field.npy", mmap_mode="r")
    object_ = np.array(field[y * u : (y + h) * u, x * u : (x + w) * u])
    pixel, k = data.optics.pixel_um / u, 2 * np.pi / data.optics.wavelength_um
    sy, sx = ((np.arange(n * u) - n * u / 2) * pixel for n in (h, w))
    curved = object_ * np.exp(1j * k * (sy[:, None] ** 2 + sx**2) / (2 * 30e3))
    measured, inner = np.sqrt(part.images.read()), np.s_[:, 32:-32, 32:-32]

    def errors(na: np.ndarray) -> np.ndarray:
        seen = part.with_calibration(na=na)
        forward = prepare(seen, upsample=u, critical_grid=False, dtype="complex128", margin=0).forward
        told = forward.amplitude(torch.from_numpy(curved.astype(np.complex128)), 0.0)[0].numpy()
        return np.square(told - measured)[inner].sum(axis=(1, 2)) / np.square(measured)[inner].sum(axis=(1, 2))

    own, middle, opposite = errors(part.na), errors(data.na), errors(2 * data.na - part.na)
    assert np.sqrt(own[np.linalg.norm(data.na, axis=1) < 0.07].max()) < 0.03
    # Of dark images, which depend on the pupil's edge, much of the rest is light from beyond the part.
    assert np.median(own) < 0.96 * np.median(middle) < 0.9 * np.median(opposite)


def test_what_is_written(plain: Path) -> None:
    data = read(plain, roi=(0, 0, 30, 41))
    assert data.image_shape == (30, 41)
    assert set(data.calibration.height_mm) == {30.0}
    assert {path.name for path in plain.iterdir()} == {
        "images.npy", "leds.csv", "microscope.yaml", "truth_field.npy", "truth_depth_um.npy", "slide.json",
    }  # fmt: skip
    assert np.load(plain / "images.npy", mmap_mode="r").shape == (25, *SHAPE)
    assert np.load(plain / "truth_field.npy", mmap_mode="r").shape == (300, 388)
    assert json.loads((plain / "slide.json").read_text())["optics"]["na"] == 0.1
    clear = np.load(plain / "images.npy")[12].mean() / np.mean(np.abs(np.load(plain / "truth_field.npy")) ** 2)
    assert clear == pytest.approx(1, abs=0.2), "what passes the objective is most of the light"


def test_blocks_make_no_steps(tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides, "BLOCK", 64)
    how = {"leds": 5, "pitch_mm": 1.77, "height_mm": 30.0, "image_shape": SHAPE, "progress": False}
    same = simulate_slide(tmp_path / "a", aberration_rad=0, tilt_um=0, bow_um=0, **how)
    one, several = np.load(plain / "images.npy"), np.load(same / "images.npy")
    assert np.sqrt(np.square(one - several).mean()) < 0.01
    varied = np.load(simulate_slide(tmp_path / "b", aberration_rad=1.0, **how | {"leds": 1}) / "images.npy")
    assert np.abs(varied[0] - several[12]).mean() > 0.01, "the LED in the middle"
    steps = np.abs(np.diff(varied[0], axis=1)).mean(axis=0)
    borders = np.array([31, 63, 95, 127, 159])
    assert steps[borders].mean() < 1.15 * np.median(steps)


def test_depth_pupil_and_noise(tmp_path: Path, plain: Path) -> None:
    how = {"leds": 1, "image_shape": (40, 60), "progress": False, "tilt_um": 8.0, "bow_um": 0.0}
    clean, noisy = simulate_slide(tmp_path / "a", **how), simulate_slide(tmp_path / "b", photons=500, **how)
    depth = np.load(clean / "truth_depth_um.npy")
    assert depth[0, 0] == pytest.approx(-12)
    assert depth[40, -1] == pytest.approx(8, abs=0.3)
    light, counts = np.load(clean / "images.npy"), np.load(noisy / "images.npy")
    assert counts.dtype == np.uint16
    assert np.square(counts - light * 500.0).mean() / (light * 500.0).mean() == pytest.approx(1, abs=0.1)
    again = simulate_slide(tmp_path / "b", photons=500, force=True, **how)
    assert np.array_equal(np.load(again / "images.npy"), counts)


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"image_shape": (64,)}, OptionError, "8 × 8"),
        ({"image_shape": "64"}, OptionError, "two whole numbers"),
        ({"leds": 0}, OptionError, "1 or more"),
        ({"height_mm": -1.0}, OptionError, "height_mm must be a positive"),
        ({"aberration_rad": float("nan")}, OptionError, "aberration_rad must be a finite"),
        ({"photons": 0.0}, OptionError, "photons must be a positive"),
        ({"pitch_mm": 30.0}, DataError, "take a larger upsample"),
    ],
)
def test_what_cannot_be_simulated(how: dict, error: type[Exception], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says) as caught:
        simulate_slide(tmp_path / "a", progress=False, **how)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_what_is_there_stays(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists; use force"):
        simulate_slide(plain, progress=False)
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="something else than a simulated slide"):
        simulate_slide(tmp_path / "mine", force=True, progress=False)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--slide", "--shape", "48,40", "--tilt", "3", "--photons", "200", "--out", str(tmp_path / "s")]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(tmp_path / "s")
    assert told["images"].startswith("81 of 48 × 40")
    assert main([*words, "--sample", "thin"]) == 2
    assert "--sample is not for a slide" in capsys.readouterr().err
    assert main(words) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_ended_leaves_nothing(number: int, tmp_path: Path, forked: Callable[..., Any]) -> None:
    words = ["simulate", "--slide", "--shape", "600,600", "--out", str(tmp_path / "slide"), "--json"]
    with forked(words) as process:
        begun = time.monotonic()
        while not list(tmp_path.glob(".slide.*.part/slide/images.npy")) and time.monotonic() - begun < 60:
            time.sleep(0.01)
        process.send_signal(number)
        process.wait(60)
    assert process.returncode == -number
    assert list(tmp_path.iterdir()) == []


def test_a_solve_may_begin_with_the_curvature_of_the_light(plain: Path) -> None:
    part = read(plain).crop(20, 84, 96, 90)
    flat, curved = (prepare(part, curved=how, dtype="complex128", margin=9) for how in (False, True))
    plan = curved.forward.plan
    fields = [problem.forward.field(problem.first_guess()[None])[0].numpy() for problem in (flat, curved)]
    turned = fields[1] * fields[0].conj()
    y, x = (((np.arange(n) / n) - 0.5) * extent for n, extent in zip(turned.shape, plan.extent_um, strict=True))
    phase = np.pi / part.optics.wavelength_um / 30e3 * (y[:, None] ** 2 + x**2)
    left = np.angle(turned * np.exp(-1j * phase))[8:-8, 8:-8]
    assert np.ptp(phase) > 0.6
    assert np.sqrt(np.average(left**2, weights=np.abs(turned)[8:-8, 8:-8])) < 0.02
    nowhere = part.with_calibration(height_mm=None)
    assert torch.equal(
        prepare(nowhere, curved=True, margin=9).first_guess(), prepare(nowhere, margin=9).first_guess()
    ), "where no height is known nothing is"
