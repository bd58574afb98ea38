"""From values to a picture: colours of real values in a range, and of complex ones, as PNG bytes made for speed."""

from __future__ import annotations

import functools
import io
import math
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fpmtools.errors import unknown
from fpmtools.report.contrast import FULL_CIRCLE

CYCLIC = "cyclic"
MAPS = {"gray": "gray", "viridis": "viridis", "magma": "magma", CYCLIC: FULL_CIRCLE.cmap}
COLOURS = 256
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of red, green and blue (ITU-R BT.709)

Reals = NDArray[np.floating[Any]]


@functools.cache
def palette(name: str) -> NDArray[np.uint8]:
    """Colours [256, rgb] of a map; of ``hue`` equally light ones around the circle of the phase, from −π on."""
    if name == "hue":
        return _hues()
    if name not in MAPS:
        raise unknown("colour map", name, MAPS)
    colours = matplotlib.colormaps[MAPS[name]](np.linspace(0, 1, COLOURS))
    return np.asarray(np.round(255 * colours[:, :3]), dtype=np.uint8)


def picture(values: Reals, low: float, high: float, colours: str) -> bytes:
    """``values`` [y, x] as PNG: ``low`` the first colour of the map, ``high`` the last."""
    levels = (np.asarray(values, np.float32) - np.float32(low)) * np.float32((COLOURS - 1) / (high - low))
    image = Image.fromarray(_bytes(levels))
    if colours != "gray":
        image.putpalette(palette(colours).tobytes())
    return _png(image)


def complex_picture(field: NDArray[np.complexfloating[Any, Any]], low: float, high: float) -> bytes:
    """``field`` [y, x] as PNG: the phase is the hue, the amplitude the brightness, ``low`` black and ``high`` full."""
    field = np.nan_to_num(field, nan=0.0, posinf=0.0, neginf=0.0)
    turn = np.angle(field) * np.float32(COLOURS / (2 * math.pi)) + np.float32(COLOURS / 2)
    colours = palette("hue")[turn.astype(np.int32) % COLOURS]
    bright = _bytes((np.abs(field) - np.float32(low)) * np.float32((COLOURS - 1) / (high - low)))
    return _png(Image.fromarray(((colours.astype(np.uint16) * bright[..., None] + 127) // 255).astype(np.uint8)))


def true_picture(values: Reals, low: float, high: float) -> bytes:
    """``values`` [y, x, (r, g, b)] as PNG, ``low`` black and ``high`` white."""
    return _png(Image.fromarray(_bytes((values - np.float32(low)) * np.float32((COLOURS - 1) / (high - low)))))


def _bytes(levels: Reals) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.nan_to_num(np.rint(levels)), 0, COLOURS - 1), dtype=np.uint8)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png", compress_level=1)  # a third of the time of the default, and a tenth more bytes
    return buffer.getvalue()


def _hues() -> NDArray[np.uint8]:
    """Of one lightness and chroma in OKLab (Björn Ottosson, 2020), so that brightness is left to the amplitude."""
    angle = np.linspace(-math.pi, math.pi, COLOURS, endpoint=False) + math.radians(30)
    lab = np.stack([np.full(COLOURS, 0.78), 0.125 * np.cos(angle), 0.125 * np.sin(angle)])
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_rgb @ (to_lms @ lab) ** 3, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(255 * encoded.T), dtype=np.uint8)
