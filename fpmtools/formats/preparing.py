"""From what a reader found to a data set: board turned, images chosen and cut out, the camera's offset subtracted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import leds
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, OptionError, expect, printable
from fpmtools.formats import images, saturation
from fpmtools.formats.light import Light
from fpmtools.formats.recording import Recording
from fpmtools.formats.settings import Settings
from fpmtools.images import Images
from fpmtools.leds import Board

KEPT_BYTES = 1 << 28  # of images in float32: no more are read at once, and kept


def dataset(
    recording: Recording, wanted: Settings, optics: Mapping[str, float], first: tuple[int, int] | None = None
) -> Dataset:
    """The validated data set, float32 intensities without the dark level, with notes of what was done.

    ``first``: of a mosaic's colour, see :mod:`fpmtools.formats.bayer`; a dark frame that is given is a mosaic too.
    """
    found = recording.dataset(optics)
    if wanted.axes is not None:
        found = found.with_calibration(na=leds.orient(found.na, wanted.axes))
    dark = _dark(recording, wanted, found.image_shape, first)
    if wanted.roi is not None:
        y, x, height, width = wanted.roi
        found = found.crop(y, x, height, width)
        dark = dark if dark is None else dark[y : y + height, x : x + width]
    found = _choose(found, wanted)
    return _without_dark(found, dark, recording, wanted)


def with_patterns(recording: Recording, patterns: Any) -> Board:
    """The recording's board with ``patterns`` [image, led], or those of a file."""
    na = recording.known_na
    if na is None:
        raise DataError(f"{recording.name}: patterns need the LED positions: give leds too")
    known = recording.calibration
    board = recording.leds or Board(na, height_mm=None if known is None else known.height_mm)
    expect(patterns, (str, Path, Sequence, np.ndarray), "patterns", "a file, or numbers [image, led]")
    if isinstance(patterns, str | Path):
        path, patterns = patterns, leds.patterns_from_file(patterns)
        try:
            return board.with_patterns(patterns)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    return board.with_patterns(patterns)


def _choose(found: Dataset, wanted: Settings) -> Dataset:
    """Only the images that are wanted count as used."""
    used = found.calibration.used.copy()
    if wanted.leds_use is not None:
        used &= _listed(wanted.leds_use, found)
    if wanted.max_na is not None:
        used &= np.linalg.norm(found.calibration.image_na, axis=1) <= wanted.max_na
    if not used.any():
        raise OptionError(f"{found.name}: no image is left to use (leds_use, max_na, or the column used)")
    return found.with_calibration(used=used)


def _listed(listed: Any, found: Dataset) -> NDArray[np.bool_]:
    """[image] True for those that ``leds_use`` names."""
    words = listed.split(",") if isinstance(listed, str) else [listed] if isinstance(listed, int) else listed
    used = np.zeros(found.n_images, bool)
    for word in words if isinstance(words, list | tuple | np.ndarray) else [words]:
        text = str(word).strip().lower()
        if text in ("bright", "dark"):
            used |= found.bright_field == (text == "bright")
            continue
        first, _, last = text.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal() and len(text) < 20):
            raise OptionError(
                f"leds_use {printable(word)!r}: give image numbers from 0 on and ranges, such as 0-48,60, or bright or "
                "dark"
            )
        low, high = int(first), int(last or first)
        if not low <= high < found.n_images:
            raise OptionError(f"leds_use {printable(word)}: the images of {found.name} are 0 … {found.n_images - 1}")
        used[low : high + 1] = True
    return used


def _dark(
    recording: Recording, wanted: Settings, shape: tuple[int, int], first: tuple[int, int] | None
) -> NDArray[np.float32] | None:
    """The dark frame [y, x] that is to be subtracted, if there is one."""
    if wanted.dark_level is not None:
        return None
    frame: Any = recording.dark if wanted.dark is None else wanted.dark
    if isinstance(frame, str | Path):
        frame = images.read_frame(Path(frame), wanted.channel if first is None else None)
    if frame is None:
        return None
    frame = np.asarray(frame)
    if first is not None and wanted.dark is not None:
        frame = frame[first[0] :: 2, first[1] :: 2]
    if frame.shape != shape or frame.dtype.kind not in "iuf" or not np.isfinite(frame).all():
        raise DataError(
            f"{recording.name}: the dark frame must be a finite image of {shape} like the others, got {frame.dtype} "
            f"{frame.shape}"
        )
    return np.asarray(frame, dtype=np.float32)


def _without_dark(found: Dataset, dark: NDArray[np.float32] | None, recording: Recording, wanted: Settings) -> Dataset:
    if found.images.dtype.kind == "c":
        raise DataError(f"{found.name}: the images are complex; intensities are real: are these fields or spectra?")
    kept = found.images.n_bytes <= KEPT_BYTES
    counts = Images.of(found.images.stored()) if kept else found.images
    level = (wanted.dark_level if wanted.dark_level is not None else recording.dark_level) or 0.0
    notes: dict[str, Any] = {}
    warnings = list(found.provenance.get("warnings", ()))
    if some := saturation.find(counts):
        warnings.append(str(some))
    light = Light(counts, squared=bool(wanted.amplitudes))
    if wanted.amplitudes:
        notes["amplitudes"] = "squared on reading"
    if recording.dark is not None and dark is None:
        warnings.append(f"{recording.dark_name} is not subtracted: the dark level {level:g} is given")
    if dark is not None or level:
        found.with_images(Images.of(light)).validate()  # what is negative now would become 0
        light = replace(light, dark=np.float32(level) if dark is None else dark)
        if some and dark is not None:
            light = light.with_top(some.top)
        below = light.below()
        name = f"the dark level {level:g}" if dark is None else f"the dark frame ({_name(recording, wanted)})"
        if below:
            warnings.append(f"{below:.2%} of all pixels are darker than {name}, and count as 0")
        notes |= {"dark_level": level} if dark is None else {"dark": _name(recording, wanted)}
    if warnings:
        notes["warnings"] = warnings
    images = Images.of(light)
    if kept:
        images = Images.of(images.stored())
    elif not light.changes and counts.dtype.kind in "iu":
        images = counts  # which become float32 as they are read
    return replace(found, images=images, provenance={**found.provenance, **notes}).validate()


def _name(recording: Recording, wanted: Settings) -> str:
    if wanted.dark is None:
        return recording.dark_name
    return str(wanted.dark) if isinstance(wanted.dark, str | Path) else "given"
