"""The joint fit of object and instrument: what is wrong is found, what is right is left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fpmtools
from fpmtools import simulation
from fpmtools.calibrate import NAMES, curvature, descent, ending, focus, improve, joint, part
from fpmtools.calibrate import warnings as said_of
from fpmtools.calibrate.instrument import DEFOCUS, MODES, Instrument
from fpmtools.calibration import JOINT, Calibration
from fpmtools.cli import main
from fpmtools.dataset import Dataset
from fpmtools.errors import FpmError, OptionError
from fpmtools.formats import native
from fpmtools.images import Images
from fpmtools.optics import resample
from fpmtools.problem import prepare
from fpmtools.pupil import polynomial_phase
from fpmtools.runs import spec

SHAPE = (48, 56)


def thinned(dataset: Dataset, every: int = 2) -> Dataset:
    """Every other LED of the square grid, as on a chessboard: they overlap as well, and take half the time."""
    return dataset.select(np.arange(0, dataset.n_images, every))


def tile(every: int = 2, **wrong: float) -> Dataset:
    known = fpmtools.simulate("thin", image_shape=SHAPE, leds="grid", surround=2, photons=500, seed=4, **wrong)
    return thinned(known, every)


def inner(dataset: Dataset) -> Dataset:
    """Its LEDs that are bright field or next to it, two of three: quicker."""
    return dataset.select(np.flatnonzero(np.linalg.norm(dataset.na, axis=1) < 1.1 * dataset.optics.na))


def kept(found: Calibration) -> set[str]:
    return {name for name, group in found.found["joint"]["groups"].items() if group["kept"]}


def error(dataset: Dataset, calibration: Calibration) -> float:
    """Of the field that ``ap`` finds: relative, after one complex factor."""
    assert dataset.truth is not None
    truth = dataset.truth.field
    field = resample(
        fpmtools.reconstruct(dataset, "ap", options={"sweeps": 15}, z_um=0.0, calibration=calibration).field(0.0),
        truth.shape,
    )
    inside = np.s_[8:-8, 8:-8]
    field, truth = field[inside], truth[inside]
    factor = np.vdot(field, truth) / np.vdot(field, field)
    return float(np.linalg.norm(factor * field - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("photons", [None, 500])
def test_nothing_is_looked_for_where_the_images_agree(photons: float | None) -> None:
    dataset = fpmtools.simulate("thin", image_shape=SHAPE, leds="grid", photons=photons, seed=4)
    found = joint.fit(dataset, dataset.calibration, z_um=0.0)
    assert set(found.found["joint"]) == {"explained"}
    assert found.digest == dataset.calibration.digest
    assert found.margin == 0
    assert said_of(found) == []


def test_no_part_is_taken_of_a_field_that_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ENOUGH", 1)
    monkeypatch.setattr(part, "LEAST_REGION", 40)
    dataset = fpmtools.simulate("thin", image_shape=SHAPE, leds="grid", photons=500, seed=4)
    assert set(joint.fit(dataset, dataset.calibration, z_um=0.0).found["joint"]) == {"explained"}
    assert part.region(dataset).image_shape == SHAPE
    assert part.region(tile()).image_shape == (40, 40)


@pytest.mark.slow
def test_aberrations_are_found() -> None:
    dataset = tile(aberration_rad=1.0)
    found = joint.fit(dataset, dataset.calibration, z_um=0.0, groups=("exposure", "pupil"))
    assert kept(found) == {"pupil"}
    assert error(dataset, found) < 0.6 * error(dataset, dataset.calibration)
    assert np.allclose(found.na, dataset.na, atol=1e-12)
    assert found.found["joint"]["fitted"] < found.found["joint"]["nominal"]
    told = found.found["joint"]["singular_values"]
    assert len(told) == 18
    assert told == sorted(told, reverse=True)
    assert told[-1] > 1, "this light tells each of them"


@pytest.mark.slow
def test_a_sample_with_depth_tells_the_aberrations_but_no_defocus() -> None:
    wrong = {"image_shape": SHAPE, "photons": 1000, "seed": 1}
    right, dataset = (fpmtools.simulate("tilted", aberration_rad=rms, **wrong) for rms in (0.0, 0.9))
    assert len(dataset.planes_um) > 1
    found = improve(dataset, dataset.calibration, "pupil")
    assert kept(found) == {"pupil"}
    assert found.pupil.zernike_rad[DEFOCUS] == 0
    assert found.defocus_um is None
    actual = dataset.provenance["actual"]["aberrations_rad"]
    modes = found.pupil.zernike_rad[[7, 6, 10]]
    assert np.abs(modes - [actual["coma_x"], actual["coma_y"], actual["spherical"]]).max() < 0.15
    # That part of it stands elsewhere than its middle is explained by defocus, and is nothing of the pupil's.
    same = improve(right, right.calibration, "pupil")
    assert kept(same) == set()
    assert not same.pupil.zernike_rad.any()
    assert said_of(same) == [], "images of a sample with depth never fit one plane"


def test_no_background_makes_up_for_depth() -> None:
    """With dark-field LEDs it lowers the error of left-out images by 7 %; one that is there by far more."""
    rings = [(0.0, 1), (0.11, 8), (0.22, 12), (0.33, 16), (0.44, 20)]
    turns = [(na, 2 * np.pi * np.arange(count) / count) for na, count in rings]
    leds = np.concatenate([np.stack([na * np.cos(at), na * np.sin(at)], axis=1) for na, at in turns])
    data = fpmtools.simulate("tilted", leds=leds, image_shape=(56, 64), photons=2e4, seed=3)
    images = np.array(data.intensities)
    lit = data.with_images(images + np.float32(0.01 * images[data.bright_field].mean()))
    right, off = (improve(it, it.calibration) for it in (data, lit))
    assert kept(right) == set()
    assert right.found[JOINT]["softness"] == 0
    assert kept(off) == {"background"}


@pytest.mark.slow
def test_a_dark_field_that_was_exposed_longer_is_found() -> None:
    dataset, longer = replace(tile(), truth=None), 4.0
    dark = np.linalg.norm(dataset.na, axis=1) > dataset.optics.na
    factor = np.where(dark, longer, 1.0).astype(np.float32)
    found = joint.fit(
        dataset.with_images(dataset.intensities * factor[:, None, None]), dataset.calibration, z_um=0.0,
        groups=("exposure",),
    )  # fmt: skip
    assert kept(found) == {"exposure"}
    assert f"the dark field's exposure (× {found.found['joint']['exposure']:.3g})" in said_of(found)[0]
    assert found.gain[dark] / found.gain[~dark].mean() == pytest.approx(np.full(dark.sum(), longer), rel=0.15)


@pytest.mark.slow
def test_a_dark_field_that_holds_hardly_any_light_says_nothing_of_its_exposure() -> None:
    """Its rings hold less than a count; the more it is darkened the better the bright field, × 144 and more."""
    try:
        dataset = fpmtools.load("thu_phase_target").crop(232, 232, 48, 48)
    except FpmError:
        pytest.skip("the measured data set thu_phase_target is not there")
    found = joint.fit(dataset, dataset.calibration, z_um=180.0, groups=("exposure",))
    assert found.found["joint"]["groups"]["exposure"]["kept"] is False
    assert "exposure" not in found.found["joint"]
    assert (found.gain == dataset.calibration.gain).all()


@pytest.mark.slow
def test_light_that_is_lost_towards_the_rim_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objective lets exp(−0.8 r²) of the amplitude through, r = 1 at its edge; an ideal one loses nothing."""
    right = replace(inner(tile()), truth=None)
    assert kept(joint.fit(right, right.calibration, z_um=0.0, groups=("apodization",))) == set()
    with monkeypatch.context() as patch:
        cutoff = right.optics.cutoff
        # exp(i · phase) is what the oracle takes.
        patch.setattr(simulation, "zernike_phase", lambda *_: lambda fy, fx: 0.8j * (fy**2 + fx**2) / cutoff**2)
        dimmed = replace(inner(tile(aberration_rad=1.0)), truth=None)
    found = joint.fit(dimmed, dimmed.calibration, z_um=0.0, groups=("apodization",))
    assert kept(found) == {"apodization"}
    size = np.exp(polynomial_phase(found.pupil.apodization, 0.0, np.array([0.0, 0.5, 0.9])))
    assert size / size[0] == pytest.approx(np.exp(-0.8 * np.array([0.0, 0.25, 0.81])), abs=0.12)
    assert "light lost in the pupil" in said_of(found)[0]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [(0.3, 0.2, 1.0), (-0.15, 0.1, 0.85)])
def test_a_second_aperture_is_found(stop: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    across, down, radius = stop
    cutoff = tile().optics.cutoff

    def log_of_the_stop(fy: np.ndarray, fx: np.ndarray) -> np.ndarray:
        away = np.hypot(fx / cutoff - across, fy / cutoff - down)
        return -1j * np.log(np.maximum(1 / (1 + np.exp((away - radius) / 0.04)), 1e-9))

    with monkeypatch.context() as patch:
        # exp(i · phase) is what the oracle takes.
        patch.setattr(simulation, "zernike_phase", lambda *_: log_of_the_stop)
        cut = replace(tile(every=1, aberration_rad=1.0), truth=None)  # every other LED is not enough here
    found = joint.fit(cut, cut.calibration, z_um=0.0, groups=("vignetting",))
    assert kept(found) == {"vignetting"}
    group = found.found["joint"]["groups"]["vignetting"]
    assert group["with"] < 0.15 * group["without"]
    assert found.pupil.stop is not None
    assert found.pupil.stop[:3] == pytest.approx(stop, abs=0.06)
    assert found.found["joint"]["vignetting"] == {"centre": list(found.pupil.stop[:2]), "radius": found.pupil.stop[2]}
    assert Calibration.restore(*found.dump()).digest == found.digest != cut.calibration.digest
    assert "a second aperture" in said_of(found)[0]


@pytest.mark.slow
def test_no_second_aperture_is_found_where_there_is_none() -> None:
    right = replace(tile(), truth=None)
    none = joint.fit(right, right.calibration, z_um=0.0, groups=("vignetting",))
    assert kept(none) == set()
    assert none.pupil.stop is None


@pytest.mark.slow
def test_a_board_that_is_off_turned_and_nearer_is_found() -> None:
    dataset = tile()
    c, s = np.cos(0.02), np.sin(0.02)
    wrong = dataset.na @ np.array([[c, s], [-s, c]]) * 1.01 + np.array([0.004, -0.003])
    moved = replace(dataset, calibration=replace(dataset.calibration, na=wrong))
    found = joint.fit(moved, moved.calibration, z_um=0.0, groups=("board",))
    assert kept(found) == {"board"}
    told, steps = found.found["joint"]["moved"], found.na - moved.na
    np.testing.assert_allclose(told["shift_na"], steps.mean(axis=0), atol=1e-12)
    assert told["rest_na"] == pytest.approx(np.sqrt(steps.var(axis=0).sum()))
    # A shift of all LEDs is a ramp of the object's phase, and told by nothing but where its spectrum is largest.
    off = found.na - dataset.na
    assert np.sqrt(np.square(off - off.mean(axis=0)).mean()) < 0.4 * np.sqrt(np.square(wrong - dataset.na).mean())
    assert error(moved, found) < error(moved, moved.calibration)


def test_what_cannot_be_fitted_is_left_alone() -> None:
    dataset = tile()
    few = dataset.select(np.arange(8))
    assert joint.fit(few, few.calibration, z_um=0.0) is few.calibration
    small = dataset.crop(0, 0, 32, 32)
    assert joint.fit(small, small.calibration, z_um=0.0) is small.calibration
    lit = replace(dataset.calibration, patterns=np.eye(dataset.n_images))
    assert joint.fit(replace(dataset, calibration=lit), lit, z_um=0.0) is lit
    start = dataset.calibration
    assert improve(dataset, start, "none", z_um=(0.0,)) is start


@pytest.mark.parametrize("shape", [(24, 24), (24, 31)])
def test_the_curvature_is_that_of_finite_differences(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    dataset = fpmtools.simulate("thin", image_shape=shape, leds="grid", on_grid=False, seed=1)
    chosen = dataset.select(np.flatnonzero(np.linalg.norm(dataset.na, axis=1) < 1.2 * dataset.optics.na))
    pupil = replace(chosen.calibration.pupil, softness=0.5, zernike_rad=np.zeros(21))
    start = replace(chosen.calibration, pupil=pupil)
    instrument = Instrument.of(start, chosen.optics.na).moved(
        {
            "pupil": torch.from_numpy(rng.normal(size=21) * 0.2),
            "apodization": torch.from_numpy(rng.normal(size=15) * 0.1),
            "board": torch.tensor([0.002, 0.001, 0.01, 0.02]).double(),
            "vignetting": torch.tensor([0.2, -0.1, 0.6]).double(),
        }
    )
    problem = prepare(chosen, calibration=start, z_um=3.0, dtype="complex128")
    forward, spectrum = problem.forward, problem.first_guess()[None]
    leds = dict.fromkeys(range(forward.images), 1.0)

    def sizes(at: Instrument) -> torch.Tensor:
        forward.update(at.calibration())
        return forward.amplitude(forward.field(spectrum), 3.0)[0].flatten()

    columns, step = [], 1e-5
    groups = ("pupil", "apodization", "vignetting", "board")
    for name, first in zip(groups, (3, 1, 0, 0), strict=True):
        for i in range(first, len(getattr(instrument, name))):
            unit = torch.zeros_like(getattr(instrument, name))
            unit[i] = step
            more, less = (sizes(instrument.moved({name: getattr(instrument, name) + s * unit})) for s in (1, -1))
            columns.append((more - less) / (2 * step))
    jacobian = torch.stack(columns)
    forward.update(instrument.calibration())
    matrix = curvature.matrix(forward, spectrum, instrument, 3.0, leds, groups)
    assert torch.linalg.norm(matrix - jacobian @ jacobian.T) < 2e-3 * torch.linalg.norm(matrix)


def test_the_curvature_is_that_of_the_fit_without_single_leds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit with gains or places of LEDs that went first once left its own to all others, and led them astray."""
    dataset = tile()
    problem = part.problem(dataset, 0.0, 0)
    state = descent.Descent.begin(problem, Instrument.of(dataset.calibration, dataset.optics.na), [3, 30], 0.5)
    ran: list[list[str]] = []
    monkeypatch.setattr(descent.Descent, "run", lambda self, last, groups, on_step: ran.append(list(groups)))
    joint._choice(state, ["board", "pupil"], ["gain", "jitter"], lambda step, steps: None)
    assert ran[:3] == [["board", "pupil"], ["board", "pupil"], ["board", "pupil", "gain", "jitter"]]


@pytest.mark.parametrize(("at_the_end", "pays"), [(0.9, True), (0.97, False)])
def test_where_all_single_leds_pay_the_end_decides_on_the_first(
    at_the_end: float, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one board places of LEDs lowered the error by 3 % at first, and by 18 % once the board had settled."""
    dataset = tile()
    problem = part.problem(dataset, 0.0, 0)
    state = descent.Descent.begin(problem, Instrument.of(dataset.calibration, dataset.optics.na), [3, 30], 0.5)
    told = {(): 1.0, ("gain", "jitter"): 0.94, ("jitter",): 0.97, ("gain",): 0.99}

    def run(self: descent.Descent, last: int, groups: list[str], on_step: descent.OnStep) -> None:
        self.free = tuple(groups)

    def settled(state: descent.Descent, *_: object) -> joint._Rival:
        return joint._Rival(state.instrument, np.full(2, at_the_end if state.free else 1.0), state)

    monkeypatch.setattr(descent.Descent, "run", run)
    monkeypatch.setattr(descent.Descent, "left_out", lambda self: np.full(2, told[self.free]))
    monkeypatch.setattr(joint, "_settled", settled)
    _, judged = joint._judged(state, [], ["gain", "jitter"], lambda step, steps: None)
    assert judged["jitter"] == {"kept": pays, "without": pytest.approx(1.0), "with": pytest.approx(at_the_end)}
    assert not judged["gain"]["kept"]


def test_a_fit_that_goes_astray_is_said_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tile(aberration_rad=1.0)
    monkeypatch.setattr(descent, "SHORTENED", {"board": 60.0})
    monkeypatch.setattr(descent, "FARTHEST", 1e3)
    found = joint.fit(dataset, dataset.calibration, z_um=0.0, groups=("board",))
    assert "outside the reconstruction grid" in found.found["joint"]["diverged"]
    assert np.allclose(found.na, dataset.na, atol=1e-12)
    assert not found.pupil.zernike_rad.any()
    assert (found.pupil.softness, found.margin) == (dataset.calibration.pupil.softness, 0)
    (said,) = said_of(found)
    assert "went astray" in said


def test_steps_that_lead_astray_are_taken_back() -> None:
    dataset = tile()
    fit = descent.Descent.begin(part.problem(dataset, 0.0, 8), Instrument.of(dataset.calibration, 0.1), [], 0.15)
    fit.advance(10)
    before = fit.errors(fit.seen).sum()
    fit.among(["apodization"], 0)
    fit.matrix = fit.matrix * 1e-3  # steps a thousand times too long
    for _ in range(6):
        fit.step()
    assert fit.least < descent.DIVERGED * before
    fit.object, fit.instrument = fit.best or fit.ahead
    assert fit.errors(fit.seen).sum() < 1.1 * before


def test_a_last_group_that_goes_astray_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tile()
    monkeypatch.setattr(descent.Descent, "_curvature", lambda self, step: torch.full((1, 1), torch.nan))
    fit = descent.Descent.begin(part.problem(dataset, 0.0, 8), Instrument.of(dataset.calibration, 0.1), [3, 30], 0.15)
    fit.advance(5)
    state, judged = ending._at_last(fit, "apodization", [])
    assert state is fit
    assert not judged["kept"]
    assert judged["diverged"]


def test_each_image_has_noise_of_its_own() -> None:
    """Dark images that were exposed eight times as long: against the variance of √I over many draws."""
    rng, shape, long = np.random.default_rng(6), (48, 60), 8.0
    leds = [(0.02 * i, 0.025 * j) for i in (-1, 0, 1) for j in (-1, 0, 1)] + [(0.15, 0.01), (0.02, -0.16), (-0.2, 0.0)]
    known = fpmtools.simulate("thin", image_shape=shape, leds=leds, optics={"na": 0.1}, on_grid=False, seed=5)
    assert known.bright_field.sum() == 9
    exposed = np.where(known.bright_field, 400.0, 400.0 * long)[:, None, None]
    clean = np.stack([np.asarray(image, np.float64) for image in known.images])

    def drawn() -> np.ndarray:
        return rng.poisson(clean * exposed) / exposed

    dataset = replace(known, images=Images.of(drawn().astype(np.float32)), truth=None)
    problem = prepare(dataset, z_um=0.0)
    sizes = np.sqrt([drawn() for _ in range(20)]).var(axis=0, ddof=1).mean(axis=(1, 2)) / problem.intensity_scale
    ratio = part.noise(dataset, problem) / sizes
    assert ratio == pytest.approx(np.ones(len(leds)), abs=0.5)
    assert part.noise(dataset, problem)[-3:].max() < 0.3 * part.noise(dataset, problem)[:9].min()


def test_an_led_on_the_wrong_side_of_the_edge_is_brought_back() -> None:
    dataset = tile()
    optics, radius = dataset.optics, np.linalg.norm(dataset.na, axis=1)
    pixel = optics.wavelength_um / (max(SHAPE) * optics.pixel_um)
    led = int(np.argmin(np.abs(radius - optics.na)))
    inside = radius[led] < optics.na
    outward = dataset.na[led] / radius[led]
    wrong = dataset.na.copy()
    wrong[led] = outward * (optics.na + (0.4 if inside else -0.4) * pixel)
    far = np.linalg.norm(wrong[led] - dataset.na[led])
    moved = replace(dataset, calibration=replace(dataset.calibration, na=wrong))
    fit = descent.Descent.begin(
        part.problem(moved, 0.0, 8), Instrument.of(moved.calibration, optics.na), [], descent.FINE_EDGE
    )
    fit.advance(20)
    before = fit.errors([led])[0]
    fit.cross()
    found = fit.instrument.na().numpy()
    assert (np.linalg.norm(found[led]) < optics.na) == inside
    assert np.linalg.norm(found[led] - dataset.na[led]) < 0.6 * far
    assert fit.errors([led])[0] < 0.5 * before
    away = np.abs(radius - optics.na) > (descent.CROSSED + 0.5) * pixel
    assert np.allclose(found[away], wrong[away], rtol=0, atol=1e-12)


def of_unknown_focus(z_um: float, **wrong: float) -> Dataset:
    """As a file has it that says nothing of the focus."""
    known = fpmtools.simulate("thin", image_shape=SHAPE, leds="grid", photons=500, seed=4, defocus_um=z_um, **wrong)
    return replace(inner(thinned(known).with_calibration(defocus_um=None)), truth=None)


@pytest.mark.slow
@pytest.mark.parametrize(("z_um", "aberration_rad"), [(6.0, 0.0), (-30.0, 0.5)])
def test_the_focus_is_found(z_um: float, aberration_rad: float) -> None:
    dataset = of_unknown_focus(z_um, aberration_rad=aberration_rad)
    found = improve(dataset, dataset.calibration, "focus,pupil")
    assert found.defocus_um == pytest.approx(z_um, abs=0.1 * dataset.optics.depth_of_field_um)
    assert found.pupil.zernike_rad[DEFOCUS] == pytest.approx(0, abs=1e-9), "all of it counts as depth"
    assert "focus" in kept(found)
    assert f"where the sample is (z = {found.defocus_um:.3g} µm)" in said_of(found)[0]
    assert prepare(dataset, calibration=found).z_um == (found.defocus_um,)


def test_a_focus_that_is_right_or_known_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tile()
    problem = part.problem(dataset, 0.0, 0)
    bright = np.flatnonzero(dataset.bright_field).tolist()
    assert focus.search(problem, Instrument.of(dataset.calibration, dataset.optics.na), bright) == 0.0
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(joint, "fit", lambda *_, groups, **__: asked.append(groups))
    known = replace(dataset, truth=None)
    improve(known, known.calibration)
    unknown = known.with_calibration(defocus_um=None)
    improve(unknown, unknown.calibration)
    improve(unknown, unknown.calibration, z_um=(0.0,))
    assert asked == [joint.GROUPS[1:], joint.GROUPS, joint.GROUPS[1:]]


@pytest.mark.parametrize(("far", "z_um"), [(False, -20.9), (True, 180.4)])
def test_a_focus_far_away_is_found_beyond_another_optimum(
    far: bool, z_um: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log error of the bright field of a measured phase target, every half depth of field, from −314 to 314 µm."""
    told = [-3.2, -3.2, -3.2, -3.25, -3.27, -3.27, -3.29, -3.29, -3.29, -3.31, -3.36, -3.43, -3.40]
    told += [-3.28, -3.26, -3.42, -3.70, -3.88, -3.92, -3.98, -3.89, -3.67, -3.48, -3.39, -3.37]
    dataset = tile()
    step, problem = 26.15, part.problem(dataset, 0.0, 0)

    class Solved:
        def __init__(self, z_um: float) -> None:
            self.error = np.exp(told[round(z_um / step) + 12])

        def advance(self, steps: int) -> None:
            """Nothing to do."""

        def errors(self, images: list[int]) -> np.ndarray:
            return np.full(len(images), self.error)

    monkeypatch.setattr(focus.Descent, "begin", lambda problem, *_: Solved(problem.z_um[0]))
    instrument = Instrument.of(dataset.calibration, dataset.optics.na)
    assert focus.search(problem, instrument, [0, 1], step, far=far) == pytest.approx(z_um, abs=0.5)


@pytest.mark.slow
def test_the_focus_of_a_measured_target_is_found_from_afar() -> None:
    try:
        dataset = fpmtools.load("thu_phase_target").crop(294, 98, 119, 119)
    except FpmError:
        pytest.skip("the measured data set thu_phase_target is not there")
    unknown = dataset.with_calibration(defocus_um=None)
    found = joint.fit(unknown, unknown.calibration, z_um=0.0, groups=("focus",))
    assert "focus" in kept(found)
    assert found.defocus_um == pytest.approx(180.0, abs=10.0)


def test_the_depth_of_another_sample_is_not_this_ones() -> None:
    """A microscope's file that was found with a sample at a known depth serves samples at others."""
    here, there = tile().with_calibration(defocus_um=-15.0), tile().with_calibration(defocus_um=-55.0)
    assert prepare(here, calibration=there.calibration).z_um == (-15.0,)
    looked = replace(there.calibration, found={JOINT: {"depth_um": -55.0}})
    assert prepare(here, calibration=looked).z_um == (-55.0,)


def test_a_depth_stands_for_the_pupils_defocus() -> None:
    dataset = fpmtools.simulate("thin", image_shape=(24, 31), leds="grid", on_grid=False, seed=1)
    start = dataset.calibration
    pupil = torch.zeros(MODES["pupil"], dtype=torch.float64)
    pupil[DEFOCUS], pupil[DEFOCUS + 3] = 1.3, 0.4
    instrument = Instrument.of(start, dataset.optics.na).moved({"pupil": pupil})
    other, depth = focus.without_defocus(instrument, dataset.optics)
    assert other.pupil[DEFOCUS] == pytest.approx(0, abs=1e-12)

    def images(of: Instrument, z_um: float) -> torch.Tensor:
        calibration = of.calibration()
        problem = prepare(dataset, calibration=calibration, z_um=z_um, dtype="complex128")
        return problem.forward.amplitude(problem.forward.field(problem.first_guess()[None]), z_um)

    one, two = images(instrument, 3.0), images(other, 3.0 + depth)
    assert abs(depth) > dataset.optics.depth_of_field_um / 2
    assert torch.linalg.norm(one - two) < 2e-3 * torch.linalg.norm(one - images(instrument, 3.0 + depth))


def test_the_names_of_what_is_fitted_are_the_same_everywhere() -> None:
    assert set(joint.GROUPS) == set(spec.GROUPS) == set(NAMES)
    with pytest.raises(OptionError, match="did you mean 'pupil'"):
        fpmtools.RunSpec("data", "ap", calibrate="board,pupils")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="z says where the sample is"):
        fpmtools.RunSpec("data", "ap", z_um=(1.0,), calibrate="focus,pupil")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set whose objective has aberrations, as a file."""
    folder = tmp_path_factory.mktemp("off")
    return native.save(inner(tile(aberration_rad=1.0)), folder / "off.safetensors")


@pytest.mark.slow
def test_a_run_calibrates_and_says_so_and_its_calibration_serves_again(
    off: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--data", str(off), "--solver", "ap", "--z", "0", "--calibrate", "pupil", "--threads", "1"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    heard = capsys.readouterr().err
    assert "aberrations" in heard
    assert "taken from the images" in heard
    document = json.loads((tmp_path / "a" / "run.json").read_text())
    assert document["data"]["calibration"]["joint"]["groups"]["pupil"]["kept"]
    assert "calibration.safetensors" in document["files"]
    again = ["run", "--data", str(off), "--solver", "ap", "--z", "0", "--threads", "1"]
    file = str(tmp_path / "a" / "calibration.safetensors")
    assert main([*again, "--calibration", file, "--out", str(tmp_path / "b")]) == 0
    same = [(tmp_path / name / "reconstruction.safetensors").read_bytes() for name in "ab"]
    assert same[0] == same[1]
    assert not (tmp_path / "b" / "calibration.safetensors").exists()
    # A run that was stopped goes on with what was found, and finds it again where that is damaged.
    assert main([*words, "--budget", "0.001s", "--out", str(tmp_path / "d")]) == 0
    kept = tmp_path / "d" / "calibration.safetensors"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-9])
    capsys.readouterr()
    assert main(["run", "--resume", str(tmp_path / "d"), "--budget", "1h"]) == 0
    assert "calibrating" in capsys.readouterr().err
    assert kept.read_bytes() == whole
    assert (tmp_path / "d" / "reconstruction.safetensors").read_bytes() == same[0]
    assert main([*again, "--calibrate", "none", "--out", str(tmp_path / "c")]) == 0
    nominal = json.loads((tmp_path / "c" / "run.json").read_text())
    assert document["metrics"]["psnr"] > nominal["metrics"]["psnr"] + 1


@pytest.mark.slow
@pytest.mark.usefixtures("warm_workers")
def test_a_comparison_calibrates_once_for_all(off: Path, tmp_path: Path) -> None:
    told: list[str] = []
    comparison = fpmtools.compare(
        off,
        ["ap:sweeps=2", "adam:sweeps=1"],
        z_um=0.0,
        calibrate="pupil",
        track=False,
        threads=1,
        on_event=lambda title, event: told.append(event["event"]) if event["event"] == "calibrating" else None,
        out=tmp_path / "both",
    )
    assert told.count("calibrating") == descent.STEPS
    runs = [json.loads(path.read_text()) for path in sorted((tmp_path / "both").rglob("run.json"))]
    found = [run["data"]["calibration"]["joint"] for run in runs if "data" in run]
    assert len(found) >= 2
    assert all(one == found[0] for one in found)
    assert all(row["status"] == "done" for row in comparison.rows)


@pytest.mark.slow
def test_python_users_calibrate_in_the_same_words(off: Path) -> None:
    dataset = fpmtools.load(off)
    result = fpmtools.reconstruct(dataset, "ap", options={"sweeps": 1}, z_um=0.0, calibrate="pupil")
    assert result.calibration is not None
    assert kept(result.calibration) == {"pupil"}
    with pytest.raises(OptionError, match="did you mean 'pupil'"):
        fpmtools.reconstruct(dataset, "ap", calibrate="pupils")


@pytest.mark.slow
def test_the_command_writes_what_runs_take(off: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.safetensors"
    assert main(["calibrate", str(off), "--groups", "pupil", "--z", "0", "--out", str(file), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["joint"]["groups"]["pupil"]["kept"]
    dataset = fpmtools.load(off)
    found = Calibration.load(file, dataset.optics, dataset.n_images)
    assert found.pupil.zernike_rad[3:].any()
    assert main(["calibrate", str(off), "--groups", "pupils"]) == 2
    assert "pupils" in capsys.readouterr().err
