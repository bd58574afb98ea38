"""The forward model against an oracle that shares no code with it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpmtools.errors import DataError, OpticsError, OptionError
from fpmtools.forward import ForwardModel
from fpmtools.optics import Optics

_spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
assert _spec is not None
assert _spec.loader is not None
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)


def random_case(seed: int, *, subpixel: bool, complex_pupil: bool, dtype: torch.dtype, medium: float = 1.0):
    """Random optics, LEDs (off-centre, off-grid), non-square odd or even shapes, and several planes."""
    rng = np.random.default_rng(seed)
    h, w = (int(n) for n in rng.integers(15, 28, 2))
    if h == w:
        w += 1
    height, width = (round(n * rng.uniform(1.9, 2.6)) + int(rng.integers(0, 2)) for n in (h, w))
    optics = Optics(
        wavelength_um=float(rng.uniform(0.4, 0.7)),
        na=float(rng.uniform(0.1, 0.3)),
        magnification=4.0,
        camera_pixel_um=1.0,
        medium_index=medium,
    )
    # A camera pixel that samples the pupil 1.1 to 2 times as finely as the field needs.
    optics = Optics(
        **{**optics.to_dict(), "camera_pixel_um": 4 * optics.wavelength_um / (2 * optics.na) / rng.uniform(1.1, 2)}
    )
    reach = 0.8 * (min(height / h, width / w) * 0.5 / optics.pixel_um * optics.wavelength_um - optics.na)
    reach = min(reach, 0.9 * medium)
    angle, radius = rng.uniform(0, 2 * np.pi, 4), reach * np.sqrt(rng.uniform(0, 1, 4))
    na = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    pupil = None
    if complex_pupil:
        pupil = rng.uniform(0.5, 1, (h, w)) * np.exp(1j * rng.uniform(-1, 1, (h, w)))
    model = ForwardModel(optics, na, (h, w), (height, width), pupil=pupil, subpixel=subpixel, dtype=dtype)
    z = np.sort(rng.uniform(-60, 60, 3))
    field = rng.normal(size=(3, height, width)) + 1j * rng.normal(size=(3, height, width))
    return model, optics, na, pupil, z, field


def expected(model, optics, na, pupil, z, field):
    pixel = tuple(e / n for e, n in zip(model.extent_um, model.object_shape, strict=True))
    return np.array(
        [
            [
                oracle.low_field(
                    o, pixel, led, optics.wavelength_um, optics.na, zi, model.image_shape,
                    medium_index=optics.medium_index, pupil=pupil, subpixel=model.subpixel,
                )
                for led in na
            ]
            for o, zi in zip(field, z, strict=True)
        ]
    )  # fmt: skip


CASES = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


@settings(max_examples=25, **CASES)
@given(
    seed=st.integers(0, 2**31), subpixel=st.booleans(), complex_pupil=st.booleans(), medium=st.sampled_from([1.0, 1.33])
)
def test_amplitude_matches_the_oracle(seed, subpixel, complex_pupil, medium):
    case = random_case(seed, subpixel=subpixel, complex_pupil=complex_pupil, dtype=torch.complex64, medium=medium)
    model, field, z = case[0], case[-1], case[-2]
    got = model.amplitude(torch.from_numpy(field).to(torch.complex64), z).numpy()
    want = np.abs(expected(*case))
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@settings(max_examples=10, **CASES)
@given(seed=st.integers(0, 2**31), subpixel=st.booleans())
def test_low_field_matches_the_oracle_with_its_phase(seed, subpixel):
    case = random_case(seed, subpixel=subpixel, complex_pupil=True, dtype=torch.complex128)
    model, field, z = case[0], case[-1], case[-2]
    got = model.low_field(torch.from_numpy(field), torch.from_numpy(z)).numpy()
    want = expected(*case)
    assert np.linalg.norm(got - want) <= 1e-10 * np.linalg.norm(want)


@settings(max_examples=15, **CASES)
@given(seed=st.integers(0, 2**31), subpixel=st.booleans(), complex_pupil=st.booleans())
def test_adjoint(seed, subpixel, complex_pupil):
    model, _, _, _, z, field = random_case(seed, subpixel=subpixel, complex_pupil=complex_pupil, dtype=torch.complex128)
    rng = np.random.default_rng(seed + 1)
    leds = [int(i) for i in rng.permutation(len(model.na))[:3]]
    shape = (len(z), 3, *model.image_shape)
    y = torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))
    x = torch.from_numpy(field)
    left = torch.vdot(model.low_field(x, z, leds).reshape(-1), y.reshape(-1))
    right = torch.vdot(x.reshape(-1), model.adjoint(y, z, leds).reshape(-1))
    assert abs(left - right) <= 1e-10 * abs(left)


@settings(max_examples=15, **CASES)
@given(
    seed=st.integers(0, 2**31),
    subpixel=st.booleans(),
    weighted=st.booleans(),
    batch=st.sampled_from([1, 1500, 1 << 16]),
)
def test_gradient_is_autograds(seed, subpixel, weighted, batch):
    model, _, _, _, z, field = random_case(seed, subpixel=subpixel, complex_pupil=True, dtype=torch.complex128)
    model.batch_samples = batch
    rng = np.random.default_rng(seed + 1)
    leds = [2, 0, 3]
    # Amplitudes about 1, so that errors fall on both sides of the smooth-L1 loss's corner.
    field = field * 2 * np.sqrt(np.prod(model.object_shape) / np.prod(model.image_shape))
    measured = torch.from_numpy(rng.uniform(0, 3, (3, *model.image_shape)))
    weights = torch.from_numpy(rng.uniform(0.5, 2, 3)) if weighted else None
    x = model.spectrum(torch.from_numpy(field)).requires_grad_()
    amplitude = model.amplitude(model.field(x), z, leds)
    error = torch.nn.functional.smooth_l1_loss(amplitude, measured.expand_as(amplitude), reduction="none")
    error = error if weights is None else error * weights[:, None, None]
    (want,) = torch.autograd.grad(error.mean(), x)
    loss, got = model.loss_and_gradient(x.detach(), measured, z, leds, weights=weights)
    assert loss.item() == pytest.approx(error.mean().item(), rel=1e-12)
    assert torch.linalg.vector_norm(got - want) <= 1e-10 * torch.linalg.vector_norm(want)


@pytest.mark.parametrize(("image", "obj"), [((16, 20), (32, 40)), ((17, 20), (33, 46)), ((21, 16), (44, 35))])
def test_a_constant_object_keeps_its_amplitude(image, obj):
    optics = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=8)
    model = ForwardModel(optics, [(0.0, 0.0), (0.1, -0.05), (0.3, 0.0)], image, obj)
    amplitude = model.amplitude(torch.full(obj, 0.7 + 0.1j, dtype=torch.complex64), [-4.0, 0.0, 9.0])
    bright = np.hypot(0.7, 0.1)
    assert torch.allclose(amplitude[:, :2], torch.full((3, 2, *image), bright), atol=1e-6)
    assert amplitude[:, 2].abs().max() < 1e-6


def test_gains_scale_each_led():
    optics = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=8)
    na, gains = [(0.0, 0.0), (0.1, 0.05)], [1.5, 0.5]
    field = torch.randn(33, 40, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    plain = ForwardModel(optics, na, (16, 20), (33, 40)).amplitude(field, 3.0)
    scaled = ForwardModel(optics, na, (16, 20), (33, 40), gains=gains).amplitude(field, 3.0)
    assert torch.allclose(scaled, plain * torch.tensor(gains)[:, None, None], rtol=1e-5)


def test_an_led_outside_the_grid_is_refused_by_number():
    optics = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=8)
    with pytest.raises(DataError, match=r"LED 1 at NA \(0\.700, 0\.000\)"):
        ForwardModel(optics, [(0.0, 0.0), (0.7, 0.0)], (16, 20), (32, 40))


def test_an_under_sampled_camera_is_refused():
    optics = Optics(wavelength_um=0.5, na=0.4, magnification=10, camera_pixel_um=8)
    with pytest.raises(OpticsError, match="under-sampled"):
        ForwardModel(optics, [(0.0, 0.0)], (16, 20), (32, 40))


def test_a_wrong_object_size_is_refused():
    optics = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=8)
    model = ForwardModel(optics, [(0.0, 0.0)], (16, 20), (32, 40))
    with pytest.raises(OptionError, match="needs"):
        model.amplitude(torch.ones(40, 32, dtype=torch.complex64))


def test_a_batch_that_runs_out_of_memory_is_tried_again_in_halves(monkeypatch):
    """The machine's limit is played by the transform; what it lets through is what a large memory gives at once."""
    forward, _, _, _, z_um, field = random_case(5, subpixel=True, complex_pupil=True, dtype=torch.complex128)
    spectrum = forward.spectrum(torch.from_numpy(field))
    amplitudes = torch.rand(len(forward.na), *forward.image_shape, dtype=torch.float64)
    loss, gradient = forward.loss_and_gradient(spectrum, amplitudes, z_um)
    transform, images = forward.to_image, []

    def limited(pieces):
        if len(pieces) * pieces.shape[1] > 2:
            raise torch.OutOfMemoryError
        images.append(len(pieces) * pieces.shape[1])
        return transform(pieces)

    monkeypatch.setattr(forward, "to_image", limited)
    in_halves = forward.loss_and_gradient(spectrum, amplitudes, z_um)
    assert sum(images) == 3 * len(amplitudes)
    assert torch.allclose(loss, in_halves[0])
    assert torch.allclose(gradient, in_halves[1], atol=1e-12)
    images.clear()
    forward.loss_and_gradient(spectrum, amplitudes, z_um)
    assert max(images) == 2, "the next pass knows what fits"

    monkeypatch.setattr(forward, "to_image", lambda pieces: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        forward.loss_and_gradient(spectrum, amplitudes, z_um)
