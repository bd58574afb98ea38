"""The forward model against an oracle that shares no code with it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpmtools import losses
from fpmtools.calibration import Calibration
from fpmtools.errors import DataError, OpticsError, OptionError
from fpmtools.forward import ForwardModel, gradients
from fpmtools.optics import Optics
from fpmtools.pupil import Pupil
from fpmtools.sampling import SamplingPlan
from fpmtools.stray import StrayLight

_spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
assert _spec is not None
assert _spec.loader is not None
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

MODES = 15
STEPS = 2e-7, 6e-7, 2e-6  # of finite differences: large ones meet the losses' corners, small ones rounding
SIMPLE = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=8)


def simple(na, image=(16, 20), obj=(33, 40), **known) -> ForwardModel:
    """On the camera's own pixels."""
    return ForwardModel(SIMPLE, Calibration.nominal(na, **known), SamplingPlan.full(SIMPLE, image, obj))


class Case:
    """Random optics, LEDs (off-centre, off-grid), non-square odd or even shapes, several planes, and an instrument.

    The pupil has an edge, soft where ``soft``, aberrations and, with ``full``, a map. With ``full`` there are gains, a
    background, stray light, and three images lit by one to three of the four LEDs each.
    """

    def __init__(self, seed, *, subpixel=True, full=False, soft=False, dtype=torch.complex128, medium=1.0):
        rng = self.rng = np.random.default_rng(seed)
        h, w = (int(n) for n in rng.integers(17, 28, 2))
        w += h == w
        height, width = (round(n * rng.uniform(1.9, 2.6)) + int(rng.integers(0, 2)) for n in (h, w))
        known = {
            "wavelength_um": float(rng.uniform(0.4, 0.7)),
            "na": float(rng.uniform(0.1, 0.3)),
            "magnification": 4.0,
        }
        # A camera pixel that samples the pupil 1.2 to 2 times as finely as the field needs.
        pixel = 4 * known["wavelength_um"] / (2 * known["na"]) / rng.uniform(1.4 if soft else 1.2, 2)
        optics = self.optics = Optics(**known, camera_pixel_um=pixel, medium_index=medium)
        reach = 0.75 * (min(height / h, width / w) * 0.5 / optics.pixel_um * optics.wavelength_um - optics.na)
        angle = rng.uniform(0, 2 * np.pi, 4)
        radius = min(reach, 0.9 * medium) * np.sqrt(rng.uniform(0, 1, 4))
        na = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        self.coefficients = rng.normal(size=MODES) * 0.3
        self.apodization = rng.normal(size=6) * 0.1 if full else np.zeros(0)
        self.map = rng.normal(size=6) * 0.1 if full else np.zeros(6)
        step = tuple(optics.cutoff / n for n in rng.uniform(6, 9, 2))
        v, u = np.mgrid[-12:13, -12:12] * np.array(step)[:, None, None] / optics.cutoff
        residual = self.polynomial(v, u) if full else None
        softness = 0.15 if soft else 0.0
        self.stop = (0.2, -0.3, 0.9, 0.1) if full else None
        self.pupil = Pupil(self.coefficients, residual, step, softness, self.apodization, self.stop)
        patterns = np.array([[0.7, 0, 0.4, 0], [0, 1.2, 0, 0], [0.3, 0.5, 0, 0.9]]) if full else None
        calibration = Calibration.nominal(na, pupil=self.pupil, patterns=patterns)
        if full:
            gain, background = rng.uniform(0.5, 2, 4), rng.uniform(0.2, 1, 3)
            place = (-1.5, 2.0, 0.9 * h, 1.2 * w)  # of cells that do not fill the field, and reach out of it
            other = np.random.default_rng([seed, 1])
            self.stray = other.uniform(0, 1, (3, 2)), other.uniform(0, 1, (2, 3, 4)), place
            calibration = replace(calibration, gain=gain, background=background, stray=StrayLight(*self.stray))
        self.shape = h, w
        self.patterns = np.eye(4) if patterns is None else patterns
        self.scale = 2.0 if full else 1.0
        plan = SamplingPlan.full(optics, (h, w), (height, width), self.scale)
        self.model = ForwardModel(optics, calibration, plan, subpixel=subpixel, dtype=dtype)
        self.z = np.sort(rng.uniform(-60, 60, 3))
        self.field = rng.normal(size=(3, height, width)) + 1j * rng.normal(size=(3, height, width))

    def polynomial(self, y, x):
        """A pupil's map that cubic interpolation gives exactly."""
        a = self.map
        return 1 + a[0] * y + 1j * a[1] * x + a[2] * y * x + 1j * a[3] * y**2 + a[4] * x**2 + a[5]

    def transmission(self, y, x):
        size = np.exp(np.minimum(oracle.zernike(self.apodization, y, x), 1)) if self.apodization.size else 1.0
        if self.stop is not None:
            across, down, radius, edge = self.stop
            size = size / (1 + np.exp((np.hypot(x - across, y - down) - radius) / edge))
        return size * np.exp(1j * oracle.zernike(self.coefficients, y, x)) * self.polynomial(y, x)

    def fields(self):
        """Of every LED at every plane, [z, led, h, w]."""
        model, optics = self.model, self.optics
        pixel = tuple(e / n for e, n in zip(model.extent_um, model.object_shape, strict=True))
        edge = self.pupil.softness / np.sqrt(np.prod(model.extent_um))
        known = {"medium_index": optics.medium_index, "pupil": self.transmission, "edge": edge}
        return np.array(
            [
                [
                    oracle.low_field(
                        o, pixel, led, optics.wavelength_um, optics.na, zi, model.image_shape, subpixel=model.subpixel,
                        **known,
                    )
                    for led in model.na
                ]
                for o, zi in zip(self.field, self.z, strict=True)
            ]
        )  # fmt: skip

    def amplitudes(self):
        """[z, image, h, w]."""
        known, added = self.model.calibration, np.zeros((len(self.patterns), 1, 1))
        if known.stray is not None:
            added = known.background[:, None, None] + oracle.stray_light(*self.stray, *map(np.arange, self.shape))
        parts = [oracle.amplitudes(f, known.gain, self.patterns, added / self.scale) for f in self.fields()]
        return np.array(parts)

    def measured(self, images):
        """About as large as the field's, so that errors fall on both sides of the smooth-L1 loss's corner."""
        return torch.from_numpy(self.rng.uniform(0.1, 3, (len(images), *self.model.image_shape)))

    def spectrum(self):
        scale = 2 * np.sqrt(np.prod(self.model.object_shape) / np.prod(self.model.image_shape))
        return self.model.spectrum(torch.from_numpy(self.field * scale))


CASES = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


@settings(max_examples=25, **CASES)
@given(
    seed=st.integers(0, 2**31), subpixel=st.booleans(), full=st.booleans(), soft=st.booleans(),
    medium=st.sampled_from([1.0, 1.33]),
)  # fmt: skip
def test_amplitude_matches_the_oracle(seed, subpixel, full, soft, medium):
    case = Case(seed, subpixel=subpixel, full=full, soft=soft, dtype=torch.complex64, medium=medium)
    got = case.model.amplitude(torch.from_numpy(case.field).to(torch.complex64), case.z).numpy()
    want = case.amplitudes()
    assert got.shape == want.shape
    # A soft edge goes on for ever, and the model's box ends four widths out: e⁻⁴ of the light there is left out.
    allowed = 2e-2 if soft else 1e-5
    assert np.linalg.norm(got - want) <= allowed * np.linalg.norm(want)
    assert np.abs(got - want).max() <= 3 * allowed * np.abs(want).max()


@settings(max_examples=10, **CASES)
@given(seed=st.integers(0, 2**31), subpixel=st.booleans())
def test_low_field_matches_the_oracle_with_its_phase(seed, subpixel):
    case = Case(seed, subpixel=subpixel)
    got = case.model.low_field(torch.from_numpy(case.field), torch.from_numpy(case.z)).numpy()
    want = case.fields()
    assert np.linalg.norm(got - want) <= 1e-10 * np.linalg.norm(want)


@settings(max_examples=15, **CASES)
@given(seed=st.integers(0, 2**31), subpixel=st.booleans(), full=st.booleans(), soft=st.booleans())
def test_adjoint(seed, subpixel, full, soft):
    case = Case(seed, subpixel=subpixel, full=full, soft=soft)
    model, rng = case.model, case.rng
    leds = [int(i) for i in rng.permutation(len(model.na))[:3]]
    shape = (len(case.z), 3, *model.image_shape)
    y = torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))
    x = torch.from_numpy(case.field)
    left = torch.vdot(model.low_field(x, case.z, leds).reshape(-1), y.reshape(-1))
    right = torch.vdot(x.reshape(-1), model.adjoint(y, case.z, leds).reshape(-1))
    assert abs(left - right) <= 1e-10 * abs(left)


@settings(max_examples=20, **CASES)
@given(
    seed=st.integers(0, 2**31),
    subpixel=st.booleans(),
    full=st.booleans(),
    weights=st.sampled_from(["none", "image", "pixel"]),
    batch=st.sampled_from([1, 1500, 1 << 16]),
)
def test_gradient_is_autograds(seed, subpixel, full, weights, batch):
    case = Case(seed, subpixel=subpixel, full=full)
    model = case.model
    model.batch_samples = batch
    images = [2, 0] if full else [2, 0, 3]
    measured, x = case.measured(images), case.spectrum().requires_grad_()
    amplitude = model.amplitude(model.field(x), case.z, images)
    error = torch.nn.functional.smooth_l1_loss(amplitude, measured.expand_as(amplitude), reduction="none")
    own = {"none": None, "image": torch.rand(len(images)).double(), "pixel": torch.rand_like(measured)}[weights]
    if own is not None:
        error = error * (own if weights == "pixel" else own[:, None, None])
    (want,) = torch.autograd.grad(error.mean(), x)
    found = model.loss_and_gradient(x.detach(), measured, case.z, images, weights=own)
    assert found.loss.item() == pytest.approx(error.mean().item(), rel=1e-12)
    assert found.error.item() == pytest.approx((amplitude - measured).square().mean().item(), rel=1e-12)
    assert torch.linalg.vector_norm(found.gradient - want) <= 1e-10 * torch.linalg.vector_norm(want)
    kernel = model.kernel(case.z, model.lit(images))
    again = model.loss_and_gradient(x.detach(), measured, case.z, images, weights=own, kernel=kernel)
    assert torch.allclose(again.gradient, found.gradient, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "plain"), [*((name, False) for name in [*losses.LOSSES, "squares"]), ("amplitude", True)]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_gradients_are_finite_differences(name, plain, seed):
    """Of object, pupil, gains, LED positions and background: off the grid, non-square, with patterns and weights.

    ``plain``: in the plane z = 0, where the pupil has no aberrations yet.
    """
    case = Case(seed, full=True, soft=True)
    model, rng, images = case.model, case.rng, [2, 0, 1]
    if plain:
        none = replace(case.pupil, zernike_rad=np.zeros(MODES), apodization=np.zeros(6))
        case.z = np.zeros(3)
        model.update(replace(model.calibration, pupil=none))
    loss = getattr(losses, name)
    measured, x = case.measured(images), case.spectrum()
    weights = torch.from_numpy(rng.uniform(0.2, 2, measured.shape))
    wrt = ("object", "pupil", "apodization", "pupil_map", "stop", "gain", "na", "background")
    _, found = gradients(model, x, measured, case.z, images, wrt=wrt, loss=loss, weights=weights)
    nominal = model.calibration

    def cost(calibration=nominal, spectrum=x):
        model.update(calibration)
        return model.loss_and_gradient(spectrum, measured, case.z, images, loss=loss, weights=weights).loss.item()

    def difference(moved, step):
        values = [moved(f * step) for f in (-2, -1, 1, 2)]
        return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)

    def check(name, direction, moved):
        slope = torch.sum(torch.from_numpy(direction).conj() * found[name]).real.item()
        nearest = min((difference(moved, step) for step in STEPS), key=lambda d: abs(d - slope))
        assert slope == pytest.approx(nearest, rel=1e-6), name

    d = (rng.normal(size=x.shape) + 1j * rng.normal(size=x.shape)) * x.abs().mean().item()
    check("object", d, lambda t: cost(spectrum=x + t * torch.from_numpy(d)))
    c, pupil = rng.normal(size=MODES), nominal.pupil
    m = rng.normal(size=pupil.residual.shape) + 1j * rng.normal(size=pupil.residual.shape)

    def with_pupil(**changes):
        return cost(replace(nominal, pupil=replace(pupil, **changes)))

    check("pupil", c, lambda t: with_pupil(zernike_rad=pupil.zernike_rad + t * c))
    a = rng.normal(size=6)
    check("apodization", a, lambda t: with_pupil(apodization=pupil.apodization + t * a))
    s = rng.normal(size=3) * 0.1
    check("stop", s, lambda t: with_pupil(stop=(*(np.array(pupil.stop[:3]) + t * s), pupil.stop[3])))
    check("pupil_map", m, lambda t: with_pupil(residual=pupil.residual + t * m))
    g, b = rng.normal(size=4), rng.normal(size=3)
    check("gain", g, lambda t: cost(replace(nominal, gain=nominal.gain + t * g)))
    b_scaled = b * case.scale
    check("background", b, lambda t: cost(replace(nominal, background=nominal.background + t * b_scaled)))
    p = rng.normal(size=(4, 2))
    cycle = case.optics.wavelength_um / max(model.extent_um)
    check("na", p * cycle, lambda t: cost(replace(nominal, na=nominal.na + t * p * cycle)))


def test_gradients_that_there_are_none_of_are_refused():
    model = simple([(0.0, 0.0), (0.1, 0.05)])
    spectrum, measured = torch.ones(1, 33, 40, dtype=torch.complex64), torch.ones(2, 16, 20)
    for name in ("pupil", "apodization", "pupil_map", "stop", "height"):
        with pytest.raises(OptionError):
            gradients(model, spectrum, measured, wrt=(name,))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_loss_is_least_at_what_was_measured_and_leaves_its_arguments_alone(name):
    generator = torch.Generator().manual_seed(1)
    measured = torch.rand(2, 9, 7, generator=generator, dtype=torch.float64) + 0.1
    off = measured + 0.01 * torch.randn(3, 2, 9, 7, generator=generator, dtype=torch.float64)
    kept = off.clone()
    cost, _ = losses.LOSSES[name](off, measured, None)
    assert torch.equal(off, kept)
    assert cost.shape == (3, 2)
    assert (cost > 0).all()
    least, flat = losses.LOSSES[name](measured[None].clone(), measured, None)
    assert least.abs().max() < 1e-12
    assert flat.abs().max() < 1e-12
    if name != "feature":
        assert torch.allclose(cost, (off - measured).square().sum((-2, -1)) / 2, rtol=0.05)
    else:
        shifted, _ = losses.feature(off + 0.3, measured, None)
        assert torch.allclose(cost, shifted), "a constant background drops out"


def test_an_update_is_the_same_as_a_new_model():
    case, other = Case(3, full=True), Case(3, full=True)
    known = case.model.calibration
    moved = replace(known, na=known.na + 0.02, gain=known.gain * 1.3, pupil=Pupil(case.coefficients[::-1].copy()))
    version = case.model.version
    case.model.update(moved)
    assert case.model.version == version + 1
    fresh = ForwardModel(case.optics, moved, case.model.plan, dtype=torch.complex128)
    field = torch.from_numpy(other.field)
    assert torch.equal(case.model.amplitude(field, case.z), fresh.amplitude(field, case.z))


@pytest.mark.parametrize(("image", "obj"), [((16, 20), (32, 40)), ((17, 20), (33, 46)), ((21, 16), (44, 35))])
def test_a_constant_object_keeps_its_amplitude(image, obj):
    model = simple([(0.0, 0.0), (0.1, -0.05), (0.3, 0.0)], image, obj)
    amplitude = model.amplitude(torch.full(obj, 0.7 + 0.1j, dtype=torch.complex64), [-4.0, 0.0, 9.0])
    bright = np.hypot(0.7, 0.1)
    assert torch.allclose(amplitude[:, :2], torch.full((3, 2, *image), bright), atol=1e-6)
    assert amplitude[:, 2].abs().max() < 1e-6


def test_gains_scale_each_leds_intensity():
    known, gain = Calibration.nominal([(0.0, 0.0), (0.1, 0.05)]), np.array([1.5, 0.5])
    field = torch.randn(33, 40, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    model = simple(known.na)
    plain = model.amplitude(field, 3.0)
    model.update(replace(known, gain=gain))
    scaled = model.amplitude(field, 3.0)
    assert torch.allclose(scaled, plain * torch.from_numpy(np.sqrt(gain)).float()[:, None, None], rtol=1e-5)


def test_an_led_outside_the_grid_is_refused_by_number():
    with pytest.raises(DataError, match=r"LED 1 at NA \(0\.700, 0\.000\)"):
        simple([(0.0, 0.0), (0.7, 0.0)], (16, 20), (32, 40))


def test_an_under_sampled_camera_is_refused():
    optics = replace(SIMPLE, na=0.4)
    with pytest.raises(OpticsError, match="under-sampled"):
        ForwardModel(optics, Calibration.nominal([(0.0, 0.0)]), SamplingPlan.full(optics, (16, 20), (32, 40)))


def test_a_wrong_object_size_is_refused():
    model = simple([(0.0, 0.0)], (16, 20), (32, 40))
    with pytest.raises(OptionError, match="needs"):
        model.amplitude(torch.ones(40, 32, dtype=torch.complex64))


def test_one_out_of_memory_halves_the_batches_once(monkeypatch):
    """The machine's limit is played by the transform; what it lets through is what a large memory gives at once."""
    na = [(0.02 * i, 0.01 * i) for i in range(-8, 8)]
    forward = simple(na)
    generator = torch.Generator().manual_seed(5)
    spectrum = torch.randn(1, 33, 40, dtype=torch.complex64, generator=generator)
    amplitudes = torch.rand(16, 16, 20, generator=generator)
    found = forward.loss_and_gradient(spectrum, amplitudes)
    transform, images, refused = forward.to_image, [], []

    def limited(pieces):
        count = len(pieces) * pieces.shape[1]
        if count > 8:
            refused.append(count)
            raise torch.OutOfMemoryError
        images.append(count)
        return transform(pieces)

    monkeypatch.setattr(forward, "to_image", limited)
    forward.batch_samples = 16 * 16 * 20
    in_halves = forward.loss_and_gradient(spectrum, amplitudes)
    assert refused == [16], "one block was too large, and no other was tried at that size"
    assert images == [8, 8], "where 8 fit, 8 are taken"
    assert torch.allclose(found.loss, in_halves.loss)
    assert torch.allclose(found.gradient, in_halves.gradient, atol=1e-7)
    images.clear()
    forward.loss_and_gradient(spectrum, amplitudes)
    assert len(refused) == 1, "the next pass knows what fits"

    monkeypatch.setattr(forward, "to_image", lambda pieces: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        forward.loss_and_gradient(spectrum, amplitudes)
