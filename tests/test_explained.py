"""What images count by, and what solvers start from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import fpmtools
from fpmtools import explained
from fpmtools.leds import direction_sines, raster
from fpmtools.problem import Problem, prepare
from fpmtools.projection import Projection, swept


def problem(sample: str = "thin", **how: object) -> Problem:
    arguments = {"leds": "grid", "image_shape": (40, 48), "seed": 2, **how}
    return prepare(fpmtools.simulate(sample, **arguments), device="cpu")


def test_noise_of_amplitudes_is_a_quarter_of_a_photon() -> None:
    found = problem(photons=800.0).noise
    given = problem()
    # The mean of a bright-field image is 1 or a little less, so that is nearly the variance there.
    bright = torch.from_numpy(given.dataset.bright_field)
    share = np.prod(given.forward.image_shape) / np.prod(given.dataset.image_shape)
    assert found[bright].median().item() == pytest.approx(share / (4 * 800), rel=0.3)
    assert given.noise.max() < 1e-6


def test_all_images_of_a_thin_sample_count_alike_where_photons_rule() -> None:
    weights = explained.Look.of(problem(photons=300.0)).weights()
    assert weights.mean().item() == pytest.approx(1, rel=1e-5)
    assert weights.max() / weights.min() < 2.5


def test_dark_images_count_more_where_there_is_no_noise() -> None:
    clean = problem()
    weights, bright = explained.Look.of(clean).weights(), torch.from_numpy(clean.dataset.bright_field)
    assert weights[~bright].mean() > 2 * weights[bright].mean()


def test_an_image_that_nothing_explains_counts_for_little() -> None:
    data = fpmtools.simulate("thin", leds="grid", image_shape=(40, 48), photons=1e4, seed=2)
    images, wrong = np.array(data.intensities), 60
    assert data.bright_field[wrong]
    images[wrong] = images[wrong].T[: images.shape[1]].mean() + 0.4 * np.random.default_rng(0).normal(
        size=images.shape[1:]
    )
    weights = explained.Look.of(prepare(data.with_images(np.abs(images).astype(np.float32)))).weights()
    assert weights[wrong] < 0.3 * weights[torch.from_numpy(data.bright_field)].median()


def test_the_dark_field_of_a_deep_sample_counts_for_little() -> None:
    given = problem("tilted", photons=2e4)
    weights, bright = explained.Look.of(given).weights(), torch.from_numpy(given.dataset.bright_field)
    assert weights[~bright].mean() < 0.8 * weights[bright].mean()


@pytest.mark.parametrize("photons", [500.0, 2e4])
def test_what_is_left_of_a_thin_sample_is_the_noise(photons: float) -> None:
    given = problem(photons=photons)
    light = given.amplitudes.square().mean((1, 2)).double()
    assert explained.Look.of(given).left() == pytest.approx(float(given.noise.sum() / light.sum()), rel=0.3)


def test_more_is_left_of_a_deep_sample_than_noise() -> None:
    assert explained.Look.of(problem("tilted")).left() > 0.005


def test_a_tiles_image_at_the_pupils_edge_counts_only_if_it_is_explained_like_others() -> None:
    """Twelve times what is usual is too much; three times, elsewhere or in a whole field it is not."""
    na = direction_sines(raster(7, 7, 6.0), 74.0)
    optics = problem(leds=na).dataset.optics
    pixel_na = optics.wavelength_um / (40 * optics.pixel_um)
    na = np.concatenate([na, [[optics.na - pixel_na, 0.0], [0.0, 0.0]]])
    whole = problem(leds=na)
    made = replace(whole, curved=True)
    at_edge, inside = len(na) - 2, len(na) - 1  # that is 6.8 Fourier pixels from the edge
    light = made.amplitudes.square().mean((1, 2))

    def of_edge(share: float, of: Problem = made) -> float:
        errors = 1e-3 * light
        errors[[at_edge, inside]] *= share
        weights = explained.weights(of, errors[None])[0] * light**explained.POWER
        return float(weights[at_edge] / weights[inside])

    assert of_edge(12.0) < 0.02
    assert of_edge(3.0) == pytest.approx(1, rel=0.1)
    assert of_edge(12.0, whole) == pytest.approx(1, rel=1e-4)


def test_a_black_image_has_a_weight() -> None:
    data = fpmtools.simulate("thin", leds="grid", image_shape=(40, 48), seed=2)
    images = np.array(data.intensities)
    images[-1] = 0
    given = prepare(data.with_images(images))
    assert explained.Look.of(given).weights().isfinite().all()
    assert explained.start(given, [0.0], explained.EXPLAINED)[1].isfinite().all()


def test_equal_weights_are_one() -> None:
    given = problem()
    assert (explained.start(given, [0.0], explained.EQUAL)[1] == 1).all()


def test_solvers_start_from_what_the_sweeps_explain_and_from_nothing_else() -> None:
    flat = problem("bars")
    assert torch.equal(explained.start(flat, [0.0], explained.EQUAL)[0], swept(flat, [0.0], explained.SWEEPS)[0])
    # One plane is far from all of the sample, the other in its middle, which explains enough of it.
    begun = explained.start(flat, [0.0, 60.0], explained.EQUAL)[0]
    assert not torch.equal(begun[0], flat.first_guess())
    assert torch.equal(begun[1], flat.first_guess())


def test_a_visit_is_that_of_the_textbook() -> None:
    given = problem(on_grid=True)
    forward = given.forward
    single = Projection.of(forward)
    assert forward.dtype == torch.complex64
    image, spectra = 17, given.first_guess()[None].clone()
    before = spectra[0].numpy().astype(complex)
    kernel = forward.kernel(3.0, [image])
    error = single.visit(spectra, given.amplitudes, image, kernel, torch.tensor([0.7]))
    (h, w), (bh, bw), (y, x) = forward.image_shape, forward.box_shape, forward.corners[image]
    own = kernel[0, 0].numpy().astype(complex)
    box = np.zeros((h, w), complex)
    box[:bh, :bw] = before[y : y + bh, x : x + bw] * own
    psi = np.fft.ifft2(box, axes=(0, 1))
    measured = given.amplitudes[image].numpy().astype(float)
    assert error.item() == pytest.approx(np.square(np.abs(psi) - measured).sum(), rel=1e-4)
    wanted = np.fft.fft2(measured * np.exp(1j * np.angle(psi)), axes=(0, 1))[:bh, :bw]
    lit = np.abs(own) > 0
    expected = before.copy()
    expected[y : y + bh, x : x + bw][lit] += 0.7 * ((wanted - box[:bh, :bw])[lit] / own[lit])
    np.testing.assert_allclose(spectra[0].numpy(), expected, atol=2e-4 * np.abs(expected).max())


def test_weights_are_of_the_images_that_are_used() -> None:
    data = fpmtools.simulate("thin", leds="grid", image_shape=(40, 48), photons=500.0, seed=2)
    used = np.arange(data.n_images) % 3 > 0
    calibration = replace(data.calibration, used=used)
    given = prepare(data, calibration=calibration)
    assert given.noise.shape == (used.sum(),)
    assert explained.Look.of(given).weights().shape == (used.sum(),)
