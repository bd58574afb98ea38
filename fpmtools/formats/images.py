"""Plain images, one per LED: a folder of TIFF, PNG, BMP or JPEG files, or one file with many pages.

Values are taken as they are, proportional to light; of JPEG files, which seldom are, this is said. An alpha plane is
left out; a palette becomes its colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import leds
from fpmtools.errors import DataError
from fpmtools.formats import folder, pages
from fpmtools.formats.recording import Recording, Wanted
from fpmtools.images import Images

_JPEG = b"\xff\xd8\xff"
_BMP = b"BM"


def is_tiff(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a TIFF."""
    return head[:4] in pages.TIFF


def is_image(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a TIFF, PNG, BMP or JPEG."""
    return (
        head[:4] in pages.TIFF or head[:8] == pages.PNG or head[:3] == _JPEG or (head[:2] == _BMP and len(head) >= 26)
    )


def read(path: Path, channel: str | int | None = None, files: Sequence[Path] | None = None) -> Recording:
    """Images of a folder (all of them, or only ``files``, in that order) or of a file with many pages, as stored.

    ``channel`` (r, g, b or 0, 1, 2) picks a plane of colour images. A ``leds.csv`` or ``leds.json`` in the folder gives
    the LED positions, a file called ``dark`` a dark frame. Raises :class:`DataError` when a file is damaged or sizes
    differ, :class:`OptionError` when the channel does not fit.
    """
    found = folder.Found(list(files or [path]), [], [])
    if files is None and path.is_dir():
        try:
            found = folder.search(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    images, names = stack(found.images, channel)
    beside = [path / name for name in folder.LED_FILES if (path / name).is_file()] if path.is_dir() else []
    if any(file.suffix.lower() in (".jpg", ".jpeg") for file in found.images):
        found.warnings.append("JPEG files are seldom linear in light, and lose what is faint: TIFF or PNG is better")
    provenance: dict[str, Any] = {"layout": "images"}
    return Recording(
        path.stem if path.is_file() else path.resolve().name,
        images,
        leds.from_file(beside[0], names) if beside else None,
        {},
        dark=_mean(found.dark, channel) if found.dark else None,
        dark_name=", ".join(file.name for file in found.dark),
        provenance=provenance | ({"warnings": found.warnings} if found.warnings else {}),
        files=tuple(names) if path.is_dir() else (),
    )


def read_recording(path: Path, wanted: Wanted) -> Recording:
    """What a reader gives: all images of a folder, or of a file."""
    return read(path, wanted.channel)


def read_frame(path: Path, channel: str | int | None = None) -> NDArray[Any]:
    """One image [y, x] from a file; of several pages their mean."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a file")
    return _mean([path], channel)


def _mean(files: Sequence[Path], channel: str | int | None) -> NDArray[Any]:
    images, _ = stack(files, channel)
    if len(images) == 1:
        return np.asarray(images.stored()[0])
    total = np.zeros(images.image_shape)
    for image in images:
        total += image
    return np.asarray(total / len(images))


def stack(files: Sequence[Path], channel: str | int | None) -> tuple[Images, list[str]]:
    """All pages of all files [image, y, x], read when they are needed, and the name of each one's file less its suffix.

    Raises :class:`DataError` where sizes differ or a file is not what it should be; what is damaged inside of it is
    found when it is read.
    """
    allowance = pages.Allowance()
    found = [(page, file.stem) for file in files for page in pages.pages(file, allowance)]
    return Images.of(pages.PageImages([page for page, _ in found], channel)), [name for _, name in found]
