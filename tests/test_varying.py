"""Instruments that change over the field, and what is taken off the images for solvers that know of one alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fpmtools_ap.solver import AlternatingProjection

import fpmtools
from fpmtools import engine
from fpmtools import slide as slides
from fpmtools.calibration import Calibration
from fpmtools.forward import ForwardModel, varying
from fpmtools.optics import Optics
from fpmtools.problem import Problem, prepare
from fpmtools.pupil import Pupil
from fpmtools.sampling import SamplingPlan
from fpmtools.surfaces import Surface

OPTICS = Optics(wavelength_um=0.52, na=0.1, magnification=4, camera_pixel_um=4.0)
NOLL = {"astigmatism_45": 4, "astigmatism_0": 5, "coma_y": 6, "coma_x": 7, "spherical": 10}  # from 0 on
NA = np.array([[0.0, 0.0], [0.031, -0.043], [-0.09, 0.02], [0.07, 0.11]])
SHAPE = (48, 61)


def model(aberrations: Surface | None = None) -> ForwardModel:
    pupil = Pupil() if aberrations is None else Pupil(zernike_rad=aberrations.at([(24, 30, 0, 1)])[0])
    known = replace(Calibration.nominal(NA, pupil=pupil), aberrations=aberrations)
    plan = SamplingPlan.full(OPTICS, SHAPE, (3 * SHAPE[0], 3 * SHAPE[1]))
    return ForwardModel(OPTICS, known, plan, dtype=torch.complex128)


def waves(forward: ForwardModel, seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """A centred spectrum of thirty plane waves, their frequencies in samples [wave, (y, x)] and amplitudes."""
    draw, (height, width) = np.random.default_rng(seed), forward.object_shape
    at = draw.integers(-14, 15, (30, 2))
    size = draw.standard_normal(30) + 1j * draw.standard_normal(30)
    spectrum = np.zeros((height, width), complex)
    np.add.at(spectrum, (at[:, 0] + height // 2, at[:, 1] + width // 2), size * height * width)
    return torch.from_numpy(spectrum), at, size


def test_a_tilted_sample_is_imaged_wave_by_wave() -> None:
    """Every plane wave has at each camera pixel the phase of the depth that there is there."""
    forward, z_um, slope = model(), 7.0, (2.0, -3.0)
    spectrum, at, size = waves(forward)
    found = varying.amplitudes(forward, spectrum, z_um, slope).numpy()
    flat = forward.amplitude(forward.field(spectrum), z_um)[0].numpy()
    (h, w), wavelength = SHAPE, OPTICS.wavelength_um
    y, x = ((np.arange(n) + 0.5) / n for n in SHAPE)
    depth = z_um + slope[0] * (2 * y[:, None] - 1) + slope[1] * (2 * x - 1)
    for led, (nx, ny) in enumerate(NA):
        psi = np.zeros(SHAPE, complex)
        for (ky, kx), c in zip(at, size, strict=True):
            fy, fx = ky / (h * OPTICS.pixel_um) - ny / wavelength, kx / (w * OPTICS.pixel_um) - nx / wavelength
            # The LED at +na selects the spectrum around +na / λ.
            if np.hypot(fy, fx) > OPTICS.na / wavelength:
                continue
            axial = 2 * np.pi * np.sqrt(1 / wavelength**2 - fy**2 - fx**2)
            wave = np.exp(2j * np.pi * (ky * np.arange(h)[:, None] / h + kx * np.arange(w) / w))
            psi += c * wave * np.exp(1j * axial * depth)
        off = [np.linalg.norm(amplitudes[led] - np.abs(psi)) / np.linalg.norm(psi) for amplitudes in (found, flat)]
        assert off[0] < 0.15 * off[1]
        assert off[1] > 0.01


def test_the_pupil_of_each_place_is_seen_there() -> None:
    values = np.zeros((21, 3))
    values[NOLL["coma_x"]] = 0.3, 0.5, -0.2
    values[NOLL["astigmatism_0"]] = -0.1, 0.0, 0.6
    forward = model(Surface(values, (0, 0, *SHAPE)))
    spectrum, _, _ = waves(forward, 1)
    found = varying.amplitudes(forward, spectrum, 4.0, (0.0, 0.0), range(1, 4)).numpy()
    for y, x in ((0, 0), (24, 30), (47, 60)):
        there = Pupil(zernike_rad=forward.calibration.aberrations.at([(y, x, 1, 1)])[0])
        local = ForwardModel(OPTICS, replace(forward.calibration, pupil=there), forward.plan, dtype=torch.complex128)
        expected = local.amplitude(local.field(spectrum), 4.0, range(1, 4))[0, :, y, x].numpy()
        assert np.allclose(found[:, y, x], expected, rtol=0.05, atol=0.02)
    same = model(Surface(values[:, :1], (0, 0, *SHAPE)))
    expected = same.amplitude(same.field(spectrum), 4.0)[0]
    assert torch.allclose(varying.amplitudes(same, spectrum, 4.0, (0.0, 0.0)), expected, atol=1e-10)


def test_what_changes_too_little_is_not_worth_it() -> None:
    box = (10, 20, *SHAPE)
    assert varying.change_rad(model().calibration, OPTICS, box, (0.0, 0.0)) == 0
    # exp(i k_z z) over the pupil, its mean taken off.
    f = np.linspace(-1, 1, 401) * OPTICS.na / OPTICS.wavelength_um
    square = f[:, None] ** 2 + f**2
    phase = 2 * np.pi * np.sqrt(1 / OPTICS.wavelength_um**2 - square)[square <= (OPTICS.na / OPTICS.wavelength_um) ** 2]
    for slope, rise in (((2.0, 3.0), 5.0), ((2.0, -3.0), 5.0), ((0.0, 1.0), 1.0)):
        assert varying.change_rad(model().calibration, OPTICS, box, slope) == pytest.approx(
            rise * phase.std(), rel=0.02
        )
    values = np.zeros((21, 3))
    values[NOLL["spherical"]] = 0.4, 0.2, 0.1
    aberrated = model(Surface(values, (0, 0, 2 * SHAPE[0], 2 * SHAPE[1]))).calibration
    assert varying.change_rad(aberrated, OPTICS, box, (0.0, 0.0)) == pytest.approx(0.15, rel=0.05)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> tuple[Problem, np.ndarray]:
    """A tile of a slide whose depth and pupil change, and the truth there; the slide is made in other blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slides, "BLOCK", 24)
        made: Path = slides.simulate_slide(
            tmp_path_factory.mktemp("varying") / "slide", image_shape=(144, 160), leds=7, pitch_mm=2.4, height_mm=40,
            aberration_rad=0.3, tilt_um=4, bow_um=0, seed=2, progress=False,
        )  # fmt: skip
    data = fpmtools.load(made / "images.npy", config=made / "microscope.yaml")
    h, w = data.image_shape
    draw = np.random.default_rng([2, 1]).standard_normal((len(slides.MODES), 4))
    values = np.zeros((21, 6))  # 1, y, x, y², yx, x²
    for name, (constant, along_x, along_y, bow) in zip(
        slides.MODES, 0.3 * draw / np.sqrt(len(slides.MODES)), strict=True
    ):
        values[NOLL[name]] = constant / 2, along_y, along_x, bow / 2, 0, bow / 2
    box = (32, 24, 80, 96)
    whole = replace(data.calibration, aberrations=Surface(values, (0, 0, h, w)))
    tile = data.crop(*box)
    v, u, tilt = 2 * (32 + 40) / h - 1, 2 * (24 + 48) / w - 1, 4
    known = whole.seen_from(tile.box, data.box, data.optics.pixel_um)
    slope = tilt * 0.5 * 80 / h, tilt * 96 / w
    depth = tilt * (u + 0.5 * v)
    problem = prepare(tile, calibration=known, z_um=depth, margin="auto", curved=True, slope_um=slope)
    factor = 2
    field = np.load(made / "truth_field.npy", mmap_mode="r")
    truth = np.array(field[32 * factor : 112 * factor, 24 * factor : 120 * factor])
    return problem, truth


def error(field: np.ndarray, truth: np.ndarray) -> float:
    """Of a tile's field, its light's curvature and one ramp levelled, inside; relative."""
    seen = truth * np.conj(field)
    y, x = (np.linspace(-1, 1, n) for n in truth.shape)
    terms = np.stack([np.ones(truth.shape), y[:, None] + 0 * x, x + 0 * y[:, None], y[:, None] ** 2 + x**2])
    phase = np.zeros(truth.shape)
    for _ in range(5):
        left = np.angle(seen * np.exp(-1j * phase) * np.exp(-1j * np.angle((seen * np.exp(-1j * phase)).sum())))
        weight = np.abs(seen)
        system = np.einsum("iyx,jyx,yx->ij", terms, terms, weight)
        phase = phase + np.tensordot(np.linalg.solve(system, np.einsum("iyx,yx->i", terms, weight * left)), terms, 1)
    levelled = field * np.exp(1j * phase)
    gain = np.vdot(levelled, truth) / np.vdot(levelled, levelled)
    inner = np.s_[20:-20, 20:-20]
    return float(np.linalg.norm((gain * levelled - truth)[inner]) / np.linalg.norm(truth[inner]))


def test_a_second_solve_finds_what_one_instrument_misses(part: tuple[Problem, np.ndarray]) -> None:
    problem, truth = part
    first = engine.solve(problem, AlternatingProjection()).reconstruction
    second = engine.solve(
        problem.corrected(first.whole(problem.z_um[0], problem.forward.object_shape)), AlternatingProjection()
    ).reconstruction
    errors = [error(found.field(problem.z_um[0], truth.shape), truth) for found in (first, second)]
    assert errors[1] < 0.8 * errors[0]
    box = (0, 0, *problem.dataset.image_shape)
    assert problem.slope_um is not None
    changes = varying.change_rad(problem.forward.calibration, problem.dataset.optics, box, problem.slope_um)
    assert varying.LITTLE < changes < varying.MUCH
