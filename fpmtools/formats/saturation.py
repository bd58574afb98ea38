"""Pixels at the end of the camera's range: their true intensity is unknown, and the model cannot explain them."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import passes
from fpmtools.images import Images

_BITS = (8, 10, 12, 14, 16)  # of cameras


@dataclass(frozen=True)
class Saturation:
    """``share`` of all pixels is at the value ``top``, in ``images`` of ``of`` images."""

    top: float
    share: float
    images: int
    of: int

    def __str__(self) -> str:
        return (
            f"{self.share:.2%} of all pixels, in {self.images} of {self.of} images, are saturated (at {self.top:g}): "
            "their true intensity is unknown"
        )


def find(images: Images | NDArray[Any]) -> Saturation | None:
    """What of images [led, y, x] as stored is saturated, if anything is.

    Saturated are pixels at the largest value that their integers can hold. So are those at the largest value of a
    camera of fewer bits, which are stored as they are or in the upper bits of 16, where more pixels have this value
    than the one below.
    """
    images = Images.of(images)
    return passes.kept(
        images,
        "saturation",
        lambda: _find(images),
        lambda found: {"found": np.array([] if found is None else astuple(found), np.float64)},
        lambda arrays: _restored(*arrays["found"].tolist()),
    )


def _restored(*known: float) -> Saturation | None:
    if not known:
        return None
    top, share, images, of = known
    return Saturation(top, share, int(images), int(of))


def _find(images: Images) -> Saturation | None:
    if images.dtype.kind not in "iuf" or images.values.wrong:
        return None
    top = images.values.brightest
    if images.dtype.kind != "f" and top == np.iinfo(images.dtype).max:
        step = 0.0
    elif (found := _step(top)) is not None:
        step = found
    else:
        return None
    at = np.flatnonzero(images.values.largest == top)
    counts = [int((image == top).sum()) for image in images.select(at).counts()]
    near = images.select(np.flatnonzero(images.values.largest >= top - step))
    if step and sum(counts) <= sum(int((image == top - step).sum()) for image in near.counts()):
        return None
    return Saturation(top, sum(counts) / math.prod(images.shape), len(at), len(images))


def _step(top: float) -> float | None:
    """The distance of two values of the camera whose largest value is ``top``, if there is such a camera."""
    for bits in _BITS:
        for shift in {0, 16 - bits}:
            if top == (2**bits - 1) * 2**shift:
                return float(2**shift)
    return None
