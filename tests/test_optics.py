"""Optics: numbers that follow from the microscope, grids, and band-limited resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpmtools.errors import OpticsError
from fpmtools.optics import (
    Optics,
    aperture_overlap,
    fast_length,
    frequency_axes,
    resample,
    resize_spectrum,
    synthetic_support,
    to_field,
    to_spectrum,
)

BLOOD = Optics(wavelength_um=0.522, na=0.256, magnification=10, camera_pixel_um=3.45)


def test_derived_numbers():
    assert BLOOD.pixel_um == pytest.approx(0.345)
    assert BLOOD.cutoff == pytest.approx(0.256 / 0.522)
    assert BLOOD.depth_of_field_um == pytest.approx(0.522 / 0.256**2)
    assert BLOOD.synthetic_na([(0.0, 0.1), (-0.15, 0.2)]) == pytest.approx(0.256 + 0.25)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"wavelength_um": -0.5}, "wavelength_um"),
        ({"na": 0.0}, "na"),
        ({"na": float("nan")}, "na"),
        ({"na": 1.2}, "below medium_index"),
        ({"wavelength_um": 522.0}, "in µm"),
        ({"magnification": 0}, "magnification"),
    ],
)
def test_impossible_numbers_are_refused_by_name(change, word):
    with pytest.raises(OpticsError, match=word):
        Optics(**{**BLOOD.to_dict(), **change})


@given(n=st.integers(1, 400))
def test_fast_length_is_the_smallest(n):
    def smooth(m):
        for factor in (2, 3, 5, 7):
            while m % factor == 0:
                m //= factor
        return m == 1

    assert fast_length(n) == next(m for m in range(max(2, n), 2 * n + 4) if m % 2 == 0 and smooth(m))


@pytest.mark.parametrize("shape", [(6, 9), (7, 10), (5, 5)])
def test_frequency_axes_put_dc_at_the_middle(shape):
    for axis, n in zip(frequency_axes(shape, 0.5), shape, strict=True):
        assert axis[n // 2] == 0
        assert np.allclose(axis, np.fft.fftshift(np.fft.fftfreq(n, 0.5), axes=0))


@pytest.mark.parametrize("shape", [(6, 9), (7, 10)])
def test_spectra_round_trip(shape):
    field = np.random.default_rng(0).normal(size=(2, *shape)) + 1j
    spectrum = to_spectrum(field)
    assert spectrum[0, shape[0] // 2, shape[1] // 2] == pytest.approx(field[0].sum())
    assert np.allclose(to_field(spectrum), field)


@settings(deadline=None)
@given(
    small=st.tuples(st.integers(8, 15), st.integers(8, 15)),
    large=st.tuples(st.integers(16, 33), st.integers(16, 33)),
    seed=st.integers(0, 1000),
)
def test_resampling_a_band_limited_field_is_exact(small, large, seed):
    rng = np.random.default_rng(seed)
    ky, kx = rng.integers(-3, 4, (2, 4))
    weight = rng.normal(size=4) + 1j * rng.normal(size=4)

    def sample(shape):
        y, x = np.arange(shape[0])[:, None] / shape[0], np.arange(shape[1])[None, :] / shape[1]
        return sum(w * np.exp(2j * np.pi * (a * y + b * x)) for w, a, b in zip(weight, ky, kx, strict=True))

    assert np.allclose(resample(sample(small), large), sample(large))
    assert np.allclose(resample(sample(large), small), sample(small))
    real = resample(sample(small).real, large)
    assert not np.iscomplexobj(real)
    assert np.allclose(real, sample(large).real)


def test_resizing_keeps_dc_in_place():
    spectrum = np.zeros((7, 10))
    spectrum[3, 5] = 1
    for shape in [(12, 9), (4, 5), (7, 20)]:
        out = resize_spectrum(spectrum, shape)
        assert out[shape[0] // 2, shape[1] // 2] == 1
        assert out.sum() == 1


def test_support_is_the_union_of_the_pupils():
    na = np.array([(0.0, 0.0), (0.2, -0.1)])
    shape, pixel = (31, 44), 0.4
    fy, fx = frequency_axes(shape, pixel)
    want = np.zeros(shape, bool)
    for i, y in enumerate(fy):
        for j, x in enumerate(fx):
            want[i, j] = any(np.hypot(x - u / 0.522, y - v / 0.522) <= 0.256 / 0.522 for u, v in na)
    assert np.array_equal(synthetic_support(BLOOD, na, shape, pixel), want)


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.3, 0.6])
def test_overlap_is_the_shared_area_of_two_discs(distance):
    y, x = np.mgrid[-0.3:0.6:1500j, -0.3:0.9:2000j]
    one, other = np.hypot(x, y) <= 0.25, np.hypot(x - distance, y) <= 0.25
    want = (one & other).sum() / one.sum()
    got = aperture_overlap([(0.0, 0.0), (distance, 0.0)], 0.25) if distance else 1.0
    assert got == pytest.approx(want, abs=2e-3)


def test_a_good_set_up_gives_no_warning():
    grid = np.arange(-2, 3) * 0.08
    na = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    assert BLOOD.check(na, (64, 80), upsample=2) == []


@pytest.mark.parametrize(
    ("na", "optics", "upsample", "word"),
    [
        ([(0, 0)], {}, None, "single LED"),
        ([(0, 0), (0.5, 0), (-0.5, 0)], {}, None, "share only"),
        ([(0.3, 0), (0.32, 0), (0.34, 0)], {}, None, "dark field"),
        ([(0, 0), (0.1, 0)], {"camera_pixel_um": 15.0}, None, "under-sampled"),
        ([(0, 0), (0.1, 0), (0.2, 0), (0.3, 0), (0.4, 0)], {"camera_pixel_um": 9.0}, 1, "upsample 1 is too small"),
    ],
)
def test_what_cannot_work_is_said_in_words(na, optics, upsample, word):
    found = Optics(**{**BLOOD.to_dict(), **optics}).check(na, (64, 80), upsample=upsample)
    assert any(word in line for line in found), found
