"""What a reader hands over: everything a file says about a measurement, and nothing that it does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, OpticsError, OptionError, printable, unknown
from fpmtools.images import Images
from fpmtools.optics import Optics
from fpmtools.pupil import Pupil

# Only to show the user what a number looks like.
_EXAMPLE = {"wavelength_um": 0.632, "na": 0.1, "magnification": 4, "camera_pixel_um": 3.45}


@dataclass(frozen=True)
class Recording:
    """Images [led, y, x] as stored, and what is known of the LEDs and the microscope; see :class:`Dataset`.

    ``na`` is None where the file does not tell, ``optics`` holds only the numbers that the file does tell, and
    ``dark_level``, the camera's offset in the images' units, is still in the images. ``calibration``: where the file
    knows all of the instrument, in place of ``na`` and ``pupil``.
    """

    name: str
    intensities: NDArray[Any] | Images
    na: NDArray[np.float64] | None
    optics: Mapping[str, float]
    pupil: NDArray[np.complex64] | Pupil | None = None
    defocus_um: float | None = None
    dark_level: float = 0.0
    truth: Truth | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))  # it may come from a file, and will be shown

    @classmethod
    def of(cls, dataset: Dataset) -> Recording:
        """The recording that holds all of a data set."""
        return cls(
            dataset.name,
            dataset.images,
            dataset.na,
            dataset.optics.to_dict(),
            defocus_um=dataset.defocus_um,
            truth=dataset.truth,
            provenance=dataset.provenance,
            calibration=dataset.calibration,
        )

    def dataset(self, optics: Mapping[str, float]) -> Dataset:
        """The data set, not yet validated, with the numbers in ``optics`` added or replaced.

        Raises :class:`OpticsError` when numbers are still missing, :class:`DataError` when the LED positions are.
        """
        known = {**self.optics, **optics}
        self._ask_for_missing(known)
        if self.calibration is not None:
            images, nominal = (
                Images.of(self.intensities, self.name),
                replace(self.calibration, defocus_um=self.defocus_um),
            )
            return Dataset(images, Optics(**known), nominal, self.name, self.truth, self.provenance)
        assert self.na is not None
        return Dataset.from_arrays(
            self.intensities,
            self.na,
            Optics(**known),
            name=self.name,
            pupil=self.pupil,
            defocus_um=self.defocus_um,
            truth=self.truth,
            provenance=self.provenance,
        )

    def _ask_for_missing(self, known: Mapping[str, float]) -> None:
        """Ask for everything that is missing at once, with an example of each."""
        numbers = [entry.name for entry in fields(Optics) if entry.default is MISSING and entry.name not in known]
        missing, wanted = list(numbers), []
        if numbers:
            wanted.append("optics " + " ".join(f"{name}={_EXAMPLE[name]}" for name in numbers))
        if self.na is None:
            missing.append("LED positions")
            wanted.append("leds (a CSV or JSON file, a rule, or the name of a data set with the same board)")
        if missing:
            kind = OpticsError if numbers else DataError
            text = f"{self.name}: not in the file: {', '.join(missing)}; give, for example, {' and '.join(wanted)}"
            raise kind(text)


def optics_numbers(optics: Mapping[str, Any] | None) -> dict[str, float]:
    """Check a user's numbers of the microscope: known names, real numbers."""
    numbers = {}
    names = [entry.name for entry in fields(Optics)]
    for name, value in (optics or {}).items():
        if name not in names:
            raise unknown("optics value", name, names)
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise OptionError(f"optics: {name} must be a number, got {printable(value)!r}") from None
    return numbers


def led_first(images: NDArray[Any], name: str, key: str) -> NDArray[Any]:
    """MATLAB's images [y, x, led] as [led, y, x]; a single image may lack the last axis."""
    if images.ndim == 2:
        images = images[..., None]
    if images.ndim != 3 or images.dtype.kind not in "iuf":
        raise DataError(f"{name}: {key} must be real images [y, x, led], got {images.dtype} of shape {images.shape}")
    return np.moveaxis(images, -1, 0)
