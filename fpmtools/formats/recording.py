"""What a reader hands over: everything a file says about a measurement, and nothing that it does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, OpticsError, printable
from fpmtools.formats.chunks import ChunkedImages
from fpmtools.formats.matfile import MatFile
from fpmtools.images import Images
from fpmtools.leds import Board
from fpmtools.optics import Optics
from fpmtools.pupil import Pupil

# Only to show the user what a number looks like.
_EXAMPLE = {"wavelength_um": 0.632, "na": 0.1, "magnification": 4, "camera_pixel_um": 3.45}


@dataclass(frozen=True)
class Wanted:
    """What a reader is told beside the path.

    ``format``: the reader's name where the user has said it; ``key``: which of several arrays; ``channel``: which
    colour plane, r, g, b or a number; ``images``: how many there should be, where that is known. None: not said.
    """

    format: str | None = None
    key: str | None = None
    channel: str | int | None = None
    images: int | None = None


@dataclass(frozen=True)
class Recording:
    """Images [led, y, x] as stored, and what is known of the LEDs and the microscope; see :class:`Dataset`.

    ``leds`` is None where the file does not tell, and ``optics`` holds only the numbers that the file does tell.
    ``dark_level``, the camera's offset in the images' units, and ``dark``, an image [y, x] without light, called
    ``dark_name``, are still in the images. ``calibration``: where the file knows all of the instrument, in place of
    ``leds`` and ``pupil``. ``files``: the names, without suffixes, of the file of each image.
    """

    name: str
    intensities: NDArray[Any] | Images | ChunkedImages
    leds: Board | None
    optics: Mapping[str, float]
    pupil: NDArray[np.complex64] | Pupil | None = None
    defocus_um: float | None = None
    dark_level: float | None = None
    dark: NDArray[Any] | None = None
    dark_name: str = "dark"
    truth: Truth | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))  # it may come from a file, and will be shown

    @classmethod
    def of(cls, dataset: Dataset) -> Recording:
        """The recording that holds all of a data set."""
        return cls(
            dataset.name,
            dataset.images,
            None,
            dataset.optics.to_dict(),
            defocus_um=dataset.defocus_um,
            truth=dataset.truth,
            provenance=dataset.provenance,
            calibration=dataset.calibration,
        )

    @property
    def known_na(self) -> NDArray[np.float64] | None:
        """Direction sines [led, (x, y)] that the file tells."""
        if self.leds is not None:
            return self.leds.na
        return None if self.calibration is None else self.calibration.na

    def lit_by(self, board: Board) -> Recording:
        """The same images, taken with other LEDs than the file says."""
        pupil = self.pupil if self.calibration is None else self.calibration.pupil
        return replace(self, leds=board, calibration=None, pupil=pupil)

    def dataset(self, optics: Mapping[str, float]) -> Dataset:
        """The data set, not yet validated, of a microscope with these numbers.

        Raises :class:`OpticsError` when numbers are still missing, :class:`DataError` when the LED positions are.
        """
        self._ask_for_missing(optics)
        if self.calibration is not None:
            nominal = replace(self.calibration, defocus_um=self.defocus_um)
            images = Images.of(self.intensities, self.name)
            return Dataset(images, Optics(**optics), nominal, self.name, self.truth, self.provenance)
        assert self.leds is not None
        found = Dataset.from_arrays(
            self.intensities,
            self.leds.na,
            Optics(**optics),
            name=self.name,
            pupil=self.pupil,
            defocus_um=self.defocus_um,
            patterns=self.leds.patterns,
            truth=self.truth,
            provenance=self.provenance,
        )
        extra = {name: getattr(self.leds, name) for name in ("gain", "background", "used", "height_mm")}
        return found.with_calibration(**{name: values for name, values in extra.items() if values is not None})

    def _ask_for_missing(self, known: Mapping[str, float]) -> None:
        """Ask for everything that is missing at once, with an example of each."""
        numbers = [entry.name for entry in fields(Optics) if entry.default is MISSING and entry.name not in known]
        missing, wanted = list(numbers), []
        if numbers:
            wanted.append("optics " + " ".join(f"{name}={_EXAMPLE[name]}" for name in numbers))
            if {"magnification", "camera_pixel_um"} <= {*numbers}:
                wanted[-1] += " (or, for the last two, pixel_um=0.8625, a pixel on the object)"
        if self.leds is None and self.calibration is None:
            missing.append("LED positions")
            wanted.append("leds (a CSV or JSON file, a rule, or the name of a data set with the same board)")
        if missing:
            kind = OpticsError if numbers else DataError
            text = f"{self.name}: not in the file: {', '.join(missing)}; give, for example, {' and '.join(wanted)}"
            error = kind(text)
            if isinstance(error, OpticsError):
                error.missing = tuple(missing)
            raise error


def led_first(mat: MatFile, key: str, leds: int | None = None) -> NDArray[Any] | ChunkedImages:
    """The images ``key`` of a file as [led, y, x]; a single image may lack the axis of LEDs."""
    images = mat.images(key)
    if isinstance(images, np.ndarray) and images.ndim == 2:
        images = images[..., None] if mat.matlab else images[None]
    if images.ndim != 3 or images.dtype.kind not in "iuf":
        form = "[y, x, led]" if mat.matlab else "of three dimensions"
        raise DataError(
            f"{mat.path.name}: {key} must be real images {form}, got {images.dtype} of shape {images.shape}"
        )
    return along(images, 2 if mat.matlab else image_axis(images.shape, leds, matlab=False))


def along(images: NDArray[Any] | ChunkedImages, axis: int) -> NDArray[Any] | ChunkedImages:
    """An array of three axes, in memory or in a file, as [image, y, x]: ``axis`` counts the images."""
    return images.transpose(axis, *(other for other in range(3) if other != axis))


def image_axis(shape: tuple[int, ...], leds: int | None, matlab: bool) -> int:
    """Which of an array's three axes counts the images.

    The first or the last, whichever has the number of ``leds``, where that is known and only one has it; else the odd
    one, where two lengths are the same; else the last of MATLAB's arrays and the first of others.
    """
    counted = [axis for axis in (0, 2) if shape[axis] == leds]
    if len(counted) == 1:
        return counted[0]
    if shape[0] == shape[1] != shape[2]:
        return 2
    if shape[1] == shape[2] != shape[0]:
        return 0
    return 2 if matlab else 0


def nearest_to_axis(ways: Mapping[str, NDArray[np.float64]], images: NDArray[Any] | ChunkedImages) -> str:
    """Which of several ways to read the LEDs' places [led, (x, y)] has those of bright images nearest to 0, 0."""
    means = Images.of(images).means
    bright = ~(means < means.max() / 2)
    return min(ways, key=lambda way: float(np.median(np.linalg.norm(ways[way][bright], axis=1))))
