"""The singular pictures of the residual: those that were put in, and no more."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fpmtools
from fpmtools.metrics import residual
from fpmtools.metrics.patterns import SIDE, shrunk, singular_pictures


def test_pictures_that_were_put_in_come_out() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:18, :25]
    first, second = (x - 12.0) / 12, np.cos(y / 3.0)
    loads = np.stack([5 + rng.random(40), 0.3 * rng.standard_normal(40)])
    errors = np.einsum("kl,kyx->lyx", loads, np.stack([first, second])) + 0.01 * rng.standard_normal((40, 18, 25))
    found = singular_pictures(errors)
    assert found.pictures.shape == (3, 18, 25)
    assert np.allclose(np.square(found.pictures).mean((1, 2)), 1)
    assert abs(np.corrcoef(found.pictures[0].ravel(), first.ravel())[0, 1]) > 0.999
    assert abs(np.corrcoef(found.pictures[1].ravel(), second.ravel())[0, 1]) > 0.99
    assert found.pictures.mean((1, 2)).min() >= 0
    again = np.einsum("kl,kyx->lyx", found.loads[:2], found.pictures[:2])
    assert np.abs(again - errors).max() < 0.06
    assert found.shares[0] > 0.9
    assert found.shares.sum() == pytest.approx(1, abs=1e-3)
    assert found.shares[2] < 1e-4
    assert singular_pictures(np.zeros((3, 4, 5))).pictures.shape == (0, 4, 5)
    said = json.loads(json.dumps(found.to_dict()))
    assert np.allclose(said["pictures"], found.pictures, rtol=1e-3)


@pytest.mark.parametrize("shape", [(100, 73), (7, 90), (20, 24)])
def test_a_coarse_picture_has_the_means_of_its_blocks(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(1).random((2, *shape))
    small = shrunk(images)
    assert max(small.shape[1:]) <= SIDE
    if max(shape) <= SIDE:
        assert small is images
    ramp = np.broadcast_to(np.arange(shape[1], dtype=float), shape)
    assert (np.diff(shrunk(ramp[None])[0], axis=1) > 0).all()
    assert shrunk(np.full((1, *shape), 3.0)) == pytest.approx(3.0)


def test_light_that_is_in_every_image_is_its_first_picture() -> None:
    data = fpmtools.simulate("thin", image_shape=(32, 40), leds="grid", photons=500, seed=2)
    glow = np.zeros((32, 40))
    glow[:, 30:] = 0.05 * data.images.means.max()
    result = fpmtools.reconstruct(data, "ap")
    left = residual(result, data.with_images(data.intensities + glow.astype(np.float32)))["pictures"]
    (share, *_), (picture, *_) = left.shares, left.pictures
    assert share > 0.45
    assert picture[:, -4:].mean() > 5 * abs(picture[:, :12].mean())
    assert left.loads[0][data.bright_field].mean() < left.loads[0][~data.bright_field].mean(), (
        "amplitudes, of dark images"
    )
    clean = residual(result, data)["pictures"]
    assert clean.shares[0] < 0.5 * share
