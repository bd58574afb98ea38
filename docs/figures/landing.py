"""Draws ``landing.webp`` beside it: what the camera sees, and amplitude and phase of what is reconstructed from it.

Run: python docs/figures/landing.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

import fpmtools
from fpmtools.leds import direction_sines, raster

SIZE, GAP = 448, 16  # pixels


def coloured(values: np.ndarray, colours: str, low: float, high: float) -> np.ndarray:
    """[SIZE, SIZE, RGBA] uint8."""
    scaled = np.clip((values - low) / (high - low), 0, 1)
    picture = Image.fromarray((mpl.colormaps[colours](scaled) * 255).astype(np.uint8))
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.NEAREST if len(values) < SIZE / 2 else 3))


def main() -> None:
    leds = direction_sines(raster(13, 13, 4.5), 74.0)
    data = fpmtools.simulate("thin", image_shape=(112, 112), upsample=4, leds=leds, photons=5000, seed=3)
    result = fpmtools.reconstruct(data, "ap", z_um=0)
    raw = data.intensities[len(leds) // 2]
    gap = np.zeros((SIZE, GAP, 4), np.uint8)
    parts = [
        coloured(raw, "gray", 0.2, 1.3),
        gap,
        coloured(result.amplitude(), "gray", 0.35, 1.15),
        gap,
        coloured(result.phase(unwrap=True), "magma", -0.6, 2.2),
    ]
    Image.fromarray(np.hstack(parts)).save(Path(__file__).with_suffix(".webp"), quality=88)


if __name__ == "__main__":
    main()
