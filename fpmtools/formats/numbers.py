"""Numbers that a user gives, and how those of the microscope from several places come together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from fpmtools.errors import OpticsError, OptionError, printable, unknown
from fpmtools.optics import Optics

PIXEL = "pixel_um"  # on the object: the camera's divided by the magnification
OPTICS = (*(entry.name for entry in fields(Optics)), PIXEL)
_TRIO = ("camera_pixel_um", "magnification", PIXEL)  # two tell the third


def number(name: str, value: object) -> float:
    """A user's number, finite."""
    try:
        found = float(value)  # type: ignore[arg-type]
        if math.isfinite(found):
            return found
    except (TypeError, ValueError, OverflowError):
        pass
    raise OptionError(f"{name} must be a finite number, got {printable(value)!r}")


def box(roi: Sequence[int]) -> tuple[int, int, int, int]:
    """(y, x, height, width) as whole numbers."""
    try:
        y, x, height, width = (int(n) for n in roi)
    except (TypeError, ValueError, OverflowError):
        raise OptionError(f"roi must be y, x, height, width in pixels, got {printable(roi)}") from None
    return y, x, height, width


def optics_numbers(optics: Mapping[str, Any] | None) -> dict[str, float]:
    """Check a user's numbers of the microscope: known names, real numbers."""
    numbers = {}
    for name, value in (optics or {}).items():
        if name not in OPTICS:
            raise unknown("optics value", str(name), OPTICS)
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise OptionError(f"optics: {name} must be a number, got {printable(value)!r}") from None
    if not _agree(numbers):
        pixel = numbers["camera_pixel_um"] / (numbers["magnification"] or math.nan)
        raise OpticsError(
            f"optics: pixel_um {numbers[PIXEL]:g} is not camera_pixel_um / magnification = {pixel:g}; give two of the "
            "three"
        )
    return numbers


def _agree(numbers: Mapping[str, float]) -> bool:
    """Whether camera pixel, magnification and ``pixel_um`` fit together; two of them do."""
    if not {*_TRIO} <= numbers.keys():
        return True
    return math.isclose(numbers["camera_pixel_um"], numbers[PIXEL] * numbers["magnification"], rel_tol=1e-5)


def merge(*layers: Mapping[str, float]) -> dict[str, float]:
    """The microscope's numbers from several places, each winning over those before it.

    Of camera pixel, magnification and ``pixel_um``, where they disagree, the two that were said last count; of two said
    at once the magnification rather than the camera's pixel.
    """
    values: dict[str, float] = {}
    for layer in layers:
        for name in sorted(layer, key=lambda name: (*_TRIO, name).index(name)):
            values.pop(name, None)  # what is said last comes last
            values[name] = layer[name]
        if not _agree(values):
            del values[next(name for name in values if name in _TRIO)]
    return values


def combine(*layers: Mapping[str, float]) -> dict[str, float]:
    """What :func:`merge` gives, as :class:`Optics` takes it: ``pixel_um`` alone is the camera's at magnification 1."""
    values = merge(*layers)
    pixel = values.pop(PIXEL, None)
    if pixel is None or {*_TRIO[:2]} <= values.keys():
        return values
    if "camera_pixel_um" in values:
        return {**values, "magnification": values["camera_pixel_um"] / pixel if pixel else math.inf}
    magnification = values.get("magnification", 1.0)
    return {**values, "magnification": magnification, "camera_pixel_um": pixel * magnification}


def settled(given: Mapping[str, float]) -> set[str]:
    """The names whose values follow from ``given``."""
    return {*given, *(_TRIO if PIXEL in given or {*_TRIO[:2]} <= given.keys() else ())}
