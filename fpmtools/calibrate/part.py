"""What of a data set a joint fit looks at: a part of the field, on small grids, with room for LEDs to move."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibrate.descent import COARSE_EDGE
from fpmtools.dataset import Dataset
from fpmtools.forward import ForwardModel
from fpmtools.noise import measure
from fpmtools.optics import fast_length
from fpmtools.problem import Problem, prepare
from fpmtools.sampling import SamplingPlan, repeats, suggested_margin

ROOM = 0.15  # of the LEDs' largest |NA|, that they may move by
FITTED_MARGIN = 0.4  # of one of so many lengths λ/2NA: a wider one is slower, and no better on average
FITTED_RESOLVED = 13.0
BACKGROUND_BLUR, BACKGROUND_SHARE = 3.0, 0.01  # pixels; of an image's pixels that no light of the sample reaches
ENOUGH = 81 * 128**2  # pixels of all images together; a region of the field is taken where there are more
LEAST_REGION, MOST_REGION, PLACES = 64, 128, 5  # pixels along an axis; places along an axis that are looked at


def margin(dataset: Dataset, z_um: float) -> int:
    """Camera pixels beyond each border that the fit solves."""
    return math.ceil(FITTED_MARGIN * suggested_margin(dataset, [z_um], FITTED_RESOLVED))


def region(dataset: Dataset) -> Dataset:
    """As much of the field as is needed to know the instrument, where the brightest image varies most.

    All of a field that repeats: light does not cross its borders, but those of any part of it.
    """
    (h, w), side = dataset.image_shape, math.isqrt(ENOUGH // dataset.n_images)
    side = min(max(side, LEAST_REGION), MOST_REGION)
    height, width = min(h, side), min(w, side)
    if (height, width) == (h, w) or repeats(dataset):
        return dataset
    image = np.asarray(dataset.images[int(np.argmax(dataset.images.means))], dtype=np.float64)
    places = [
        (y, x)
        for y in np.linspace(0, h - height, PLACES).astype(int).tolist()
        for x in np.linspace(0, w - width, PLACES).astype(int).tolist()
    ]
    y, x = max(places, key=lambda place: float(image[place[0] :, place[1] :][:height, :width].std()))
    return replace(dataset, truth=None).crop(y, x, height, width)


def problem(dataset: Dataset, z_um: float, margin: int) -> Problem:
    """On small grids, with room on the object's for LEDs to move."""
    calibration = dataset.calibration
    # The box must hold the soft edge that there is going to be.
    soft = replace(calibration, pupil=replace(calibration.pupil, softness=max(COARSE_EDGE, calibration.pupil.softness)))
    prepared = prepare(dataset, calibration=soft, z_um=z_um, device="cpu", margin=0)
    room = ROOM * float(np.linalg.norm(calibration.na, axis=1).max())
    plan = SamplingPlan.choose(dataset, soft, margin=margin, room=room)
    # The band of the intensities is enough: what noise there is beyond it tells nothing of the instrument.
    reach = [math.floor(dataset.optics.cutoff * extent + soft.pupil.reach) for extent in plan.extent_um]
    height, width = (min(n, fast_length(4 * own + 2)) for n, own in zip(plan.image_shape, reach, strict=True))
    plan = replace(plan, image_shape=(height, width))
    bad = dataset.images.bad or None
    forward = ForwardModel(dataset.optics, soft, plan, mask=None if bad is None else plan.mask(dataset, bad))
    return replace(prepared, forward=forward, amplitudes=plan.amplitudes(dataset, forward.real_dtype, bad))


def noise(dataset: Dataset, problem: Problem) -> NDArray[np.float64]:
    """Variance of each image's amplitudes that noise alone makes, where 1 is the mean bright-field intensity.

    That of √I is var(I) / 4I, and no more than I where that is less than its noise. Images that were exposed longer, as
    dark ones often are, have less of it.
    """
    found, means = measure(dataset), np.maximum(dataset.images.means, 0.0)
    variance = np.array([float(found.variance(i, np.asarray(mean))) for i, mean in enumerate(means)])
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(means > 0, np.minimum(variance / (4 * means), means), 0.0)
    return np.maximum(own / problem.intensity_scale, 1e-9)


def background(dataset: Dataset) -> NDArray[np.float64]:
    """What the darkest places of each image show, [image] in the images' units; in the bright field what is usual."""
    from scipy.ndimage import gaussian_filter

    rim = round(BACKGROUND_BLUR) + 1
    levels = np.zeros(dataset.n_images)
    for i, image in enumerate(dataset.images):
        smooth = gaussian_filter(np.asarray(image, dtype=np.float64), BACKGROUND_BLUR)[rim:-rim, rim:-rim]
        levels[i] = max(float(np.quantile(smooth, BACKGROUND_SHARE)), 0.0)
    distance = np.linalg.norm(dataset.calibration.image_na, axis=1)
    far = distance > 1.15 * dataset.optics.na
    if not far.any():
        return np.zeros(dataset.n_images)
    return np.where(far, levels, np.median(levels[far]))
