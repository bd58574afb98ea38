"""Data sets: what is refused, and cropping and selecting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError
from fpmtools.optics import Optics, frequency_axes

OPTICS = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=8)


def small(images=None, na=None, optics=OPTICS, pupil=None, name="data"):
    rng = np.random.default_rng(1)
    na = np.array([(0.1, 0.0), (0.0, 0.0), (0.0, -0.25), (-0.05, 0.02)]) if na is None else na
    truth = Truth(np.ones((24, 40), np.complex64), np.zeros((24, 40), np.float32))
    images = rng.uniform(1, 2, (4, 12, 20)).astype(np.float32) if images is None else images
    return Dataset.from_arrays(images, na, optics, name=name, pupil=pupil, truth=truth)


def test_order_and_bright_field():
    data = small().validate()
    assert data.calibration.order.tolist() == [1, 3, 0, 2]
    assert data.bright_field.tolist() == [True, True, False, True]
    assert (data.n_images, data.image_shape) == (4, (12, 20))


def broken(index, value):
    images = small().intensities.copy()
    images[index] = value
    return images


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"images": np.ones((3, 12, 20), np.float32)}, "3 images but 4 LED positions"),
        ({"images": np.ones((4, 12), np.float32)}, r"\[led, y, x\]"),
        ({"images": np.ones((4, 7, 20), np.float32)}, "too small"),
        ({"images": broken((2, 3, 4), np.nan)}, "image 2 has values that are not finite"),
        ({"images": np.zeros((4, 12, 20), np.float32)}, "all images are zero"),
        ({"images": np.ones((4, 12, 20), np.complex64)}, "complex"),
        ({"na": np.array([(0, 0), (0, np.inf), (0, 0), (0, 0)])}, "LED 1 has no finite NA"),
        ({"na": np.array([(0, 0), (0, 0), (0, 30.0), (0, 0)])}, "LED 2 has .*direction sines"),
        ({"optics": replace(OPTICS, camera_pixel_um=15)}, "under-sampled"),
        ({"pupil": np.ones((20, 12), np.complex64)}, "pupil"),
    ],
)
def test_unusable_measurements_are_refused_in_one_line(changes, word):
    with pytest.raises(DataError, match=word) as error:
        small(**changes).validate()
    assert "\n" not in str(error.value)


def test_crop_takes_images_and_truth_and_leaves_the_pupil_as_it_is():
    """A pupil says what the objective does at any frequency: a smaller field needs no other one."""
    fy, fx = frequency_axes((12, 20), OPTICS.pixel_um)
    pupil = np.exp(0.2j * (fy[:, None] - 2 * fx[None, :]) / OPTICS.cutoff)
    data = small(pupil=pupil)
    roi = data.crop(2, 5, 8, 10)
    assert np.array_equal(roi.intensities, data.intensities[:, 2:10, 5:15])
    assert roi.truth is not None
    assert roi.truth.field.shape == (16, 20)
    assert roi.calibration.pupil is data.calibration.pupil
    assert roi.provenance["roi_yxhw"] == [2, 5, 8, 10]


def test_a_part_reads_no_more_of_its_source_than_it_needs():
    read = []

    class File:
        shape = (5, 30, 40)

        def __getitem__(self, index):
            read.append(index)
            return np.full([s.stop - s.start for s in index[1:]], index[0], np.uint16)

    data = Dataset.from_arrays(File(), np.zeros((5, 2)), OPTICS).select([4, 2]).crop(3, 5, 10, 12).crop(1, 1, 8, 9)
    assert not read
    assert np.array_equal(data.intensities, np.stack([np.full((8, 9), i, np.float32) for i in (4, 2)]))
    assert read == [(4, slice(4, 12), slice(6, 15)), (2, slice(4, 12), slice(6, 15))]


@pytest.mark.parametrize("roi", [(0, 0, 13, 20), (-1, 0, 8, 8), (5, 0, 8, 8), (0, 0, 4, 8)])
def test_a_region_that_does_not_fit_is_refused(roi):
    with pytest.raises(DataError, match="does not fit"):
        small().crop(*roi)


def test_select_keeps_images_and_leds_together():
    chosen = small().select([2, 0])
    assert np.array_equal(chosen.na, small().na[[2, 0]])
    assert np.array_equal(chosen.intensities, small().intensities[[2, 0]])
    with pytest.raises(DataError, match=r"0 … 3"):
        small().select([4])


def test_the_digest_names_these_measurements():
    data = small()
    assert data.digest == small(name="other").digest
    assert data.digest != data.with_optics(na=0.21).digest
    assert data.digest != small(images=broken((0, 0, 0), 9)).digest
    assert data.digest != data.select([1, 0, 2, 3]).digest
    pupils = [np.full(data.image_shape, value, np.complex64) for value in (1j, -1)]
    assert len({data.digest, *(small(pupil=pupil).digest for pupil in pupils)}) == 3
    field, depth = np.ones((4, 5), np.complex64), np.zeros((4, 5), np.float32)
    assert Truth(field, depth).digest == Truth(field.copy(), depth).digest
    assert len({Truth(f, d).digest for f, d in ((field, depth), (2 * field, depth), (field, depth + 1))}) == 3
