"""The forward model as deepinv's physics, where deepinv is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fpmtools
from fpmtools.errors import OptionError

deepinv = pytest.importorskip("deepinv", reason="deepinv is not installed", exc_type=ImportError)


LEDS = [(0, 0), (0.07, 0.01), (-0.05, 0.06), (0.02, -0.1), (0.13, 0.12)]


def some_data():
    return fpmtools.simulate("thin", image_shape=(24, 33), leds=LEDS)


def lit_by_two():
    data = some_data()
    weights = (np.eye(data.n_images) + 0.5 * np.eye(data.n_images, k=1))[:-1]
    return fpmtools.Dataset.from_arrays(data.intensities[:-1], data.na, data.optics, patterns=weights)


def with_background():
    data = some_data()
    return data.with_calibration(background=np.linspace(0, 0.1, data.n_images))


@pytest.fixture(params=[some_data, lit_by_two, with_background])
def data(request):
    return request.param()


def a_field(physics, seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, 1, *physics.forward_model.object_shape)
    return torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def test_its_intensities_are_the_forward_models(data):
    physics, measured = fpmtools.to_deepinv(data, dtype="complex128")
    x, forward = a_field(physics), physics.forward_model
    expected = torch.stack([forward.amplitude(field)[0] for field in x]).square()
    assert physics.A(x).shape == (2, *measured.shape[1:])
    torch.testing.assert_close(physics.A(x), expected)


def test_what_was_not_measured_is_nothing(data):
    physics, measured = fpmtools.to_deepinv(data, dtype="complex128", margin=4)
    seen = physics.forward_model.seen()[None]
    assert 0 < seen.mean() < 1
    for light in (measured, physics.A(a_field(physics))):
        assert (light.sum(1) > 0).equal((seen > 0).expand(len(light), -1, -1))


def test_its_linear_part_has_its_adjoint(data):
    physics, _ = fpmtools.to_deepinv(data, dtype="complex128")
    x = a_field(physics)
    y = physics.B.A(x)
    z = torch.randn_like(y)
    torch.testing.assert_close(torch.sum(y.conj() * z), torch.sum(x.conj() * physics.B.A_adjoint(z)))


def test_its_gradient_is_that_of_autograd(data):
    physics, measured = fpmtools.to_deepinv(data, dtype="complex128")
    x = a_field(physics).requires_grad_()
    v = torch.rand(2, *measured.shape[1:], dtype=torch.float64)
    (slope,) = torch.autograd.grad((physics.A(x) * v).sum(), x)
    torch.testing.assert_close(physics.A_vjp(x.detach(), v), slope)


def test_a_few_of_its_steps_explain_the_images_better():
    physics, measured = fpmtools.to_deepinv(some_data())
    fidelity, x = deepinv.optim.data_fidelity.AmplitudeLoss(), physics.empty_field()
    before = float(fidelity(x, measured, physics))
    step = 0.5 / physics.B.compute_sqnorm(x)
    for _ in range(20):
        x = x - step * fidelity.grad(x, measured, physics)
    assert float(fidelity(x, measured, physics)) < 0.1 * before


def test_several_planes_need_a_choice():
    data = fpmtools.simulate("layers", image_shape=(24, 33), leds=LEDS)
    with pytest.raises(OptionError, match="say which z_um"):
        fpmtools.to_deepinv(data)
