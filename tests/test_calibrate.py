"""What the images say of the instrument: a shifted board, dead LEDs, and faults that are none of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fpmtools import engine
from fpmtools.calibrate import NOMINAL, find_board, resolve, warnings
from fpmtools.dataset import Dataset
from fpmtools.metrics import held_out_error, interleaved_halves, residual, score
from fpmtools.problem import prepare
from fpmtools.simulation import simulate

NOMINAL = NOMINAL


def shift(data: Dataset) -> np.ndarray:
    return np.array(find_board(data).found["board"]["shift_na"])


@pytest.fixture(scope="module")
def misaligned() -> Dataset:
    return simulate("thin", image_shape=(40, 48), misaligned_na=0.02, photons=500)


def test_a_shifted_board_is_put_right(misaligned: Dataset) -> None:
    data, found = misaligned, find_board(misaligned)
    actual, about = np.array(data.provenance["actual"]["na"]), found.found["board"]
    wrong = (np.linalg.norm(actual, axis=1) <= data.optics.na) != data.bright_field
    assert 3 < wrong.sum() < data.n_images / 2
    assert about["contradicted"] == wrong.sum()
    error = np.linalg.norm(actual - found.na, axis=1)
    assert np.median(error) < 0.6 * np.median(np.linalg.norm(actual - data.na, axis=1))
    (said,) = warnings(found)
    assert f"{wrong.sum()} of {data.n_images} LEDs" in said
    assert "moved" in said
    assert warnings(resolve(data, NOMINAL)) == []

    problem = prepare(data, calibration=found)
    assert np.allclose(problem.forward.na, found.na[found.used])
    assert len(problem.amplitudes) == len(problem.order) == found.used.sum()
    assert np.array_equal(prepare(data).forward.na, data.na)
    for solver in ("ap", "adam"):
        result = engine.reconstruct(data, solver)
        trusting = engine.reconstruct(data, solver, calibration=NOMINAL)
        assert score(result, data)["in_band_db"] > score(trusting, data)["in_band_db"] + 6
        assert residual(result, data)["all"] < 0.4 * residual(trusting, data)["all"]


def test_the_residual_is_of_the_calibration_that_was_used(misaligned: Dataset) -> None:
    """Who trusts the positions is judged by them, all LEDs included."""
    dead = np.arange(misaligned.n_images) == misaligned.calibration.order[0]
    data = misaligned.with_images(np.where(dead[:, None, None], 0, misaligned.intensities))
    for how, used in (("nominal", np.ones_like(dead)), ("auto", ~dead)):
        result = engine.reconstruct(data, "ap", calibration=how)
        assert result.calibration is not None
        assert np.array_equal(result.calibration.used, used)
        found = residual(result, data)
        assert found["all"] == pytest.approx(found["per_led"][used].mean(), rel=1e-12)


def test_every_part_of_the_leds_has_the_board_of_the_whole(misaligned: Dataset) -> None:
    whole = misaligned.with_calibration(**vars(find_board(misaligned)))
    seen = []

    def solve(part: Dataset):
        result = engine.reconstruct(part, "ap", options={"sweeps": 2})
        seen.append((part, result))
        return result

    held_out_error(whole, solve)
    for half in interleaved_halves(whole):
        solve(whole.select(half))
    for part, result in seen:
        assert result.calibration is not None
        assert np.array_equal(result.calibration.na, part.na)
        assert set(map(tuple, part.na)) <= set(map(tuple, whole.na))
        assert result.calibration.found["board"]["shift_na"] == whole.calibration.found["board"]["shift_na"]


def wedge(data: Dataset, cycles: float) -> Dataset:
    """Images of the same sample on a wedge: those of LEDs that stand elsewhere."""
    step = data.optics.wavelength_um / data.extent_um[1]
    return data.with_calibration(na=data.na - np.array([cycles * step, 0.0]))


def test_a_wedge_on_the_sample_is_a_shifted_board() -> None:
    data = simulate("thin", image_shape=(48, 60), on_grid=True)
    for cycles in (0.5, 1):
        tilted = wedge(data, cycles)
        about = find_board(tilted).found["board"]
        assert about["contradicted"]
        assert not about["left_out"]
        assert score(engine.reconstruct(tilted, "ap"), data)["psnr"] > 60
        assert score(engine.reconstruct(tilted, "ap", calibration=NOMINAL), data)["psnr"] < 35


def test_positions_are_trusted_where_no_shift_explains_the_images() -> None:
    for sample in ("thin", "tilted"):
        data = simulate(sample, image_shape=(24, 30), photons=200, vignetting=0.4)
        assert not find_board(data).found["board"]["contradicted"]
        assert warnings(find_board(data)) == []
    # A diffuser: brightness says nothing of where the light comes from.
    edge = np.abs(np.linalg.norm(data.na, axis=1) / data.optics.na - 1) < 0.1
    every_other = edge & (np.cumsum(edge) % 2 == 0)
    diffuser = data.with_images(np.where(every_other[:, None, None], 0.01 * data.intensities, data.intensities))
    found = find_board(diffuser)
    assert found.found["board"]["contradicted"] == every_other.sum()
    assert np.array_equal(found.na, data.na)
    assert found.used.all()
    assert "taken as they are" in warnings(found)[-1]
    # Far from the edge brightness says something of the sample or the exposure.
    dark = np.arange(data.n_images) == data.calibration.order[0]
    darker = data.with_images(np.where(dark[:, None, None], 0.02 * data.intensities, data.intensities))
    assert not find_board(darker).found["board"]["contradicted"]
    far = data.with_calibration(na=data.na + 2 * data.optics.na)
    assert not find_board(far).found["board"]["contradicted"]


ORDERS = {
    "in reverse order": lambda n: np.arange(n)[::-1],
    "one place earlier": lambda n: np.roll(np.arange(n), 1),
    "one place later": lambda n: np.roll(np.arange(n), -1),
    "sorted as text": lambda n: np.array([int(name) - 1 for name in sorted(str(i + 1) for i in range(n))]),
}


@pytest.mark.parametrize("order", ORDERS)
def test_no_shift_is_applied_where_the_order_of_the_files_is_the_fault(misaligned: Dataset, order: str) -> None:
    """Off by one, a shift would explain 7 of 9 contradictions."""
    broken = replace(misaligned, images=misaligned.images.select(ORDERS[order](misaligned.n_images)))
    found = find_board(broken)
    assert np.array_equal(found.na, broken.na)
    assert found.used.all()
    assert order in warnings(found)[-1]


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_no_shift_is_applied_where_the_na_is_the_fault(misaligned: Dataset, factor: float) -> None:
    for data in (misaligned, simulate("bars", image_shape=(24, 30), photons=500)):
        wrong = data.with_optics(na=data.optics.na * factor)
        assert not shift(wrong).any()
    said = warnings(find_board(wrong))
    if factor < 1:
        assert "an objective NA of about 0.25" in said[-1]


@pytest.mark.data
@pytest.mark.parametrize("name", ["bloodsmear_red", "bloodsmear_green", "bloodsmear_blue", "blood_aberration"])
def test_no_shift_is_applied_to_measured_data_with_a_fault(measured_data, name: str) -> None:
    """Of these, version 0.1 moved the board for a wrong NA, and where intensities were squared once more."""
    import fpmtools

    data = fpmtools.load(measured_data("uconn_blood_smear") / f"{name}.mat", optics={"wavelength_um": 0.63})
    faults = {f"NA × {f}": data.with_optics(na=data.optics.na * f) for f in (0.8, 0.9, 1.1, 1.25)}
    faults["squared"] = data.with_images(data.intensities**2)
    faults["amplitudes"] = data.with_images(np.sqrt(data.intensities))
    n = data.n_images
    faults |= {order: replace(data, images=data.images.select(make(n))) for order, make in ORDERS.items()}
    for fault, broken in {"none": data, **faults}.items():
        assert not shift(broken).any(), fault


@pytest.mark.parametrize("solver", ["ap", "adam"])
def test_a_dead_led_at_the_centre_is_left_out(solver: str) -> None:
    data = simulate("thin", image_shape=(40, 48), photons=500)
    dead = np.arange(data.n_images) == data.calibration.order[0]
    broken = data.with_images(np.where(dead[:, None, None], 0, data.intensities))
    found = find_board(broken)
    assert np.array_equal(found.used, ~dead)
    assert "black" in warnings(found)[-1]
    whole, without = (score(engine.reconstruct(d, solver), data)["in_band_db"] for d in (data, broken))
    assert without > whole - 3
    kept = engine.reconstruct(broken, solver, calibration=NOMINAL)
    assert np.abs(kept.native_field(0.0)).mean() > 0.05, "it starts from an image with light"
