"""The instrument: what is refused, what a part of it is, and that files give back every number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fpmtools import engine
from fpmtools.calibration import Calibration
from fpmtools.errors import DataError, OptionError
from fpmtools.metrics import score
from fpmtools.optics import Optics, frequency_axes, resample
from fpmtools.problem import prepare
from fpmtools.pupil import Pupil, polynomial_phase, zernike_monomials
from fpmtools.simulation import simulate
from fpmtools.surfaces import Surface

OPTICS = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=8)
LEDS = np.array([(0.0, 0.0), (0.1, -0.05), (0.3, 0.02)])


def known() -> Calibration:
    """Everything in it is set."""
    residual = np.exp(1j * np.linspace(0, 1, 35).reshape(5, 7))
    pupil = Pupil(np.array([0.0, 0.1, -0.2]), residual, (0.01, 0.02), 0.15)
    patterns = np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 2.0]])
    nominal = Calibration.nominal(LEDS, pupil=pupil, defocus_um=-3.5, patterns=patterns, used=[True, False])
    return replace(nominal, gain=np.array([1.0, 0.5, 2.0]), background=np.array([0.0, 7.0]), found={"board": {"a": 1}})


def same(a: Calibration, b: Calibration) -> bool:
    return a.digest == b.digest and a.found == b.found


def test_a_file_gives_back_every_number(tmp_path: Path) -> None:
    path = known().save(tmp_path / "c.safetensors", OPTICS)
    again = Calibration.load(path, OPTICS, 2)
    assert same(again, known())
    assert again.defocus_um == -3.5
    assert np.array_equal(again.pupil.residual, known().pupil.residual)
    dimmed = replace(known(), pupil=replace(known().pupil, apodization=np.array([0.0, 0.1, -0.3])))
    assert same(Calibration.load(dimmed.save(path, OPTICS), OPTICS, 2), dimmed)
    assert not same(dimmed, known())
    assert not Pupil(apodization=np.array([0.0, -0.1])).ideal
    assert same(Calibration.restore(*Calibration.nominal(LEDS).dump()), Calibration.nominal(LEDS))


def test_a_calibration_of_something_else_is_refused(tmp_path: Path) -> None:
    path = known().save(tmp_path / "c.safetensors", OPTICS)
    with pytest.raises(OptionError, match=r"another microscope \(na 0.2 and not 0.25\)"):
        Calibration.load(path, replace(OPTICS, na=0.25), 2)
    with pytest.raises(OptionError, match="2 images; the data have 3"):
        Calibration.load(path, OPTICS, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"gain": np.ones(2)},
        {"gain": np.array([1, -1, 1.0])},
        {"background": np.full(2, np.nan)},
        {"na": np.zeros((3, 3))},
        {"patterns": None},
        {"patterns": np.full((2, 3), -1.0)},
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes) -> None:
    with pytest.raises(DataError) as error:
        replace(known(), **changes)
    assert "\n" not in str(error.value)


def test_parts_and_directions() -> None:
    part = known().select([1])
    assert len(part.na) == 3
    assert part.background.tolist() == [7.0]
    assert np.allclose(known().image_na, [(1.0 * LEDS[0] + 0.25 * LEDS[1]) / 1.25, LEDS[2]])
    assert known().bright_field(OPTICS).tolist() == [True, False]
    plain = Calibration.nominal(LEDS)
    assert plain.select([2, 0]).na.tolist() == LEDS[[2, 0]].tolist()
    assert plain.order.tolist() == [0, 1, 2]
    assert len({plain.digest, replace(plain, gain=np.array([1, 1, 2.0])).digest, plain.select([0, 2, 1]).digest}) == 3


def test_the_zernike_polynomials_are_orthonormal() -> None:
    n = np.arange(20000) + 0.5
    radius, angle = np.sqrt(n / n.size), n * np.pi * (3 - np.sqrt(5))
    modes = [polynomial_phase(row, radius * np.sin(angle), radius * np.cos(angle)) for row in np.eye(36)]
    assert np.allclose(np.array(modes) @ np.array(modes).T / n.size, np.eye(36), atol=2e-3)
    assert zernike_monomials(3)[1].tolist() == [[0, 2], [0, 0]], "Noll's second is tilt along x"


@pytest.mark.parametrize("shape", [(128, 128), (48, 60)])
def test_an_ideal_disc_given_as_a_map_is_the_ideal_pupil(shape) -> None:
    """A map was once interpolated across its edge: ``ap`` fell from 124 to 29 dB at 128², from 132 to 17 at 48 × 60."""
    data = simulate("thin", image_shape=shape)
    given = replace(data, calibration=replace(data.calibration, pupil=as_map(data, Pupil())))
    assert given.calibration.pupil.ideal
    assert not np.allclose(offsets(data), 0, atol=0.05), "LEDs off the grid"
    problem, other = prepare(data), prepare(given)
    assert np.array_equal(problem.forward.kernel(2.0).numpy(), other.forward.kernel(2.0).numpy())


def as_map(data, pupil: Pupil) -> Pupil:
    """A pupil's samples on the images' grid, cut off by whole pixels."""
    fy, fx = (f / data.optics.cutoff for f in frequency_axes(data.image_shape, data.optics.pixel_um))
    values = np.exp(1j * polynomial_phase(pupil.zernike_rad, fy[:, None], fx[None, :]))
    values = values * data.optics.pupil(data.image_shape)
    return Pupil.from_map(values.astype(np.complex64), data.optics, data.extent_um)


def offsets(data) -> np.ndarray:
    shift = data.na / data.optics.wavelength_um * np.array(data.extent_um)[::-1]
    return shift - np.rint(shift)


@pytest.mark.parametrize("shape", [(64, 64), (48, 60)])
def test_a_calibrated_pupil_off_the_grid_costs_less_than_half_a_decibel(shape) -> None:
    coefficients = np.zeros(15)
    coefficients[4:11] = [0.4, -0.3, 0.2, 0.25, -0.1, 0.15, 0.3]
    clear = simulate("thin", image_shape=shape)
    exact = clear.with_calibration(pupil=Pupil(coefficients))
    assert clear.truth is not None
    forward = prepare(exact, dtype="complex128", critical_grid=False).forward
    sample = torch.from_numpy(resample(clear.truth.field.astype(np.complex128), forward.object_shape))
    images = forward.amplitude(sample, 0.0)[0].square().numpy()
    exact, mapped = exact.with_images(images), exact.with_calibration(pupil=as_map(exact, Pupil(coefficients)))
    mapped = mapped.with_images(images)
    decibels = [score(engine.reconstruct(data, "ap", z_um=0.0), clear)["in_band_db"] for data in (exact, mapped)]
    assert decibels[0] > 60
    assert decibels[1] > min(decibels[0], 130) - 0.5, "beyond, single precision decides"


def test_aberrations_that_change_over_the_field_are_those_of_the_part(tmp_path: Path) -> None:
    whole = simulate("thin", image_shape=(48, 63), seed=1)
    over = Surface(np.array([[0.0, 0.0, 0.0], [0.3, 0.2, -0.1]]), (0.0, 0.0, 48.0, 63.0))
    known = replace(whole.calibration, aberrations=over).seen_from(whole.box, whole.box, 1.0)
    assert np.allclose(known.pupil.zernike_rad, [0.0, 0.3])
    assert known.digest != whole.calibration.digest
    part = replace(whole, calibration=known).crop(24, 30, 20, 33)
    expected = 0.3 + 0.2 * (34 / 24 - 1) - 0.1 * (46.5 / 31.5 - 1)
    assert part.calibration.pupil.zernike_rad[1] == pytest.approx(expected)
    assert part.crop(3, 2, 9, 8).calibration.pupil.zernike_rad[1] == pytest.approx(
        0.3 + 0.2 * (31.5 / 24 - 1) - 0.1 * (36 / 31.5 - 1)
    )
    file = known.save(tmp_path / "known.safetensors", whole.optics, whole.box)
    again = Calibration.load(file, whole.optics, whole.n_images, part.box)
    assert again.digest == part.calibration.digest
    assert "changes over the field" in known.facts()["pupil"]
