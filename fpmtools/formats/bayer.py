"""Images of a colour camera as it records them, a colour filter on each pixel: one colour's own pixels, and no others.

They lie two camera pixels apart, so that a pixel counts as twice as large. Nothing is interpolated: demosaicing mixes
the colours, each of which is another experiment. On simulated mosaics this is as good as leaving out the other pixels
by a mask on the camera's own grid, which takes ten times as many sweeps, each of two to three times the work, and
stops early where there is noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, OptionError, printable
from fpmtools.formats.pages import CHANNELS
from fpmtools.formats.recording import Recording
from fpmtools.images import Images
from fpmtools.passes import Identity

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")  # the first two pixels of the first row, and of the second
Site = tuple[int, int]


def site(pattern: object, channel: str | int | None) -> Site:
    """Row and column, 0 or 1, of the first pixel of a colour. Of the two greens it is the one in the first row."""
    if str(pattern).upper() not in PATTERNS:
        raise OptionError(f"bayer {printable(pattern)}: give the first pixels' colours: {', '.join(PATTERNS)}")
    if str(channel).lower() not in CHANNELS:
        given = "no channel is given" if channel is None else f"unknown channel {printable(channel)!r}"
        raise OptionError(f"bayer {pattern}: {given}: choose r, g or b, or several with channels")
    return divmod(str(pattern).upper().index("RGB"[CHANNELS[str(channel).lower()]]), 2)


@dataclass(frozen=True, eq=False)
class Lattice:
    """Every second pixel of images [image, y, x], from row and column ``first`` on, read when it is asked for."""

    images: Images
    first: Site

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, y, x)."""
        count, height, width = self.images.shape
        return count, (height - self.first[0] + 1) // 2, (width - self.first[1] + 1) // 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the images."""
        return self.images.dtype

    @property
    def identity(self) -> Identity | None:
        """Names them and the state of the images' files, where they are in files."""
        known = self.images.identity
        return None if known is None else known.part(("every second from", self.first))

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[Any]:
        """A part of one image: ``[image, y0:y1, x0:x1]``."""
        image, *axes = key
        starts, stops = [], []
        for part, first, n in zip(axes, self.first, self.shape[1:], strict=True):
            start, stop, _ = part.indices(n)
            starts.append(2 * start + first)
            stops.append(max(2 * (stop - start) - 1, 0))
        part_of = self.images.crop(starts[0], starts[1], stops[0], stops[1])
        return part_of.stored_image(image)[::2, ::2]


def of_colour(recording: Recording, first: Site) -> Recording:
    """The recording with the pixels of one colour only; :class:`DataError` where its frames have an odd side."""
    images = Images.of(recording.intensities, recording.name)
    height, width = images.image_shape
    if height % 2 or width % 2:
        raise DataError(f"{recording.name}: a mosaic of colours has even sides, these images are {height}×{width}")
    dark = None if recording.dark is None else np.asarray(recording.dark)[first[0] :: 2, first[1] :: 2]
    return replace(recording, intensities=Images.of(Lattice(images, first), recording.name), dark=dark)


def halved_box(roi: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """A region in the camera's pixels in those of one colour."""
    if any(n % 2 for n in roi):
        raise OptionError(f"roi {','.join(map(str, roi))}: of a mosaic of colours all four numbers must be even")
    y, x, height, width = (n // 2 for n in roi)
    return y, x, height, width
