"""Plain images, one per LED: a folder of TIFF, PNG, BMP or JPEG files, or one file with many pages.

Values are taken as they are, proportional to light; of JPEG files, which seldom are, this is said. An alpha plane is
left out; a palette becomes its colours.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import leds
from fpmtools.errors import DataError, OptionError
from fpmtools.formats import folder
from fpmtools.formats.recording import Recording, Wanted

LIMIT_BYTES = 16 << 30  # of all images together
MOST_PAGES = 20_000  # of one file
_HARMLESS_BYTES = 1 << 28  # of images, however few bytes their files have
_RATIO = 100  # beyond that, images may be this much larger than their files: noise cannot be compressed so far
_DEFLATE = (8, 32946)
_DEFLATE_RATIO = 1100  # deflate cannot compress better than 1032 : 1
_SLACK = 1 << 20  # bytes
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_BMP = b"BM"
_PNG_COLOURS = (2, 6)  # the header's byte for RGB, RGBA
_CHANNELS = {"r": 0, "red": 0, "0": 0, "g": 1, "green": 1, "1": 1, "b": 2, "blue": 2, "2": 2}
_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 2, "I;16": 2, "I;16B": 2, "RGB": 3}  # of a pixel in Pillow; others have 4


def is_tiff(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a TIFF."""
    return head[:4] in _TIFF


def is_image(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a TIFF, PNG, BMP or JPEG."""
    return head[:4] in _TIFF or head[:8] == _PNG or head[:3] == _JPEG or (head[:2] == _BMP and len(head) >= 26)


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
    return images[0] if len(images) == 1 else np.asarray(images.mean(axis=0, dtype=np.float64))


def stack(files: Sequence[Path], channel: str | int | None) -> tuple[NDArray[Any], list[str]]:
    """All pages of all files [image, y, x], and the name of each one's file without its suffix."""
    images: list[NDArray[Any]] = []
    names: list[str] = []
    allowance = Allowance()
    for file in files:
        for image in _pages(file, allowance):
            images.append(_plane(image, channel, file))
            names.append(file.stem)
            if images[-1].shape != images[0].shape or images[-1].dtype != images[0].dtype:
                raise DataError(
                    f"{file}: image {len(images)} is {images[-1].dtype} {images[-1].shape}, the first is "
                    f"{images[0].dtype} {images[0].shape}"
                )
    return np.stack(images), names


class Allowance:
    """Refuses images that are larger than there should be any, or than their files can hold, before they are read."""

    def __init__(self) -> None:
        self.files_bytes = self.images_bytes = 0

    def open(self, file: Path) -> None:
        """The next images are from this file."""
        self.files_bytes += file.stat().st_size

    def take(self, n_bytes: int, file: Path) -> None:
        """Images of this size are next."""
        self.images_bytes += n_bytes
        if self.images_bytes > LIMIT_BYTES:
            raise DataError(f"{file}: refused: declares more than {LIMIT_BYTES / 1e9:.3g} GB of images")
        if self.images_bytes > max(_HARMLESS_BYTES, _RATIO * self.files_bytes):
            declared, held = self.images_bytes / 1e9, self.files_bytes / 1e6
            raise DataError(f"{file}: refused: declares {declared:.3g} GB of images, and holds only {held:.3g} MB")


def _pages(file: Path, allowance: Allowance) -> Iterator[NDArray[Any]]:
    """The pages of one file, [y, x] or [y, x, colour]."""
    try:
        with file.open("rb") as opened:
            head = opened.read(26)
        if head[:8] == _PNG and head[24] == 16 and head[25] in _PNG_COLOURS:
            raise DataError(f"{file}: a colour PNG of 16 bits, of which only 8 could be read; save it as TIFF")
        allowance.open(file)
        yield from _tiff_pages(file, allowance) if head[:4] in _TIFF else _pillow_pages(file, allowance)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (DataError, OptionError, MemoryError):
        raise
    except Exception as error:  # both libraries raise almost anything on a damaged file
        raise DataError(f"{file}: not a readable image ({' '.join(str(error).split())[:200]})") from error


def _tiff_pages(file: Path, allowance: Allowance) -> Iterator[NDArray[Any]]:
    import tifffile

    # Page by page: a "series" of an OME-TIFF may reach into other files.
    with tifffile.TiffFile(file) as tiff:
        with _complaints("tifffile") as complaints:
            count = len(tiff.pages)
        if count > MOST_PAGES:
            raise DataError(f"{file}: refused: holds {count} images, the limit is {MOST_PAGES}")
        if complaints:
            raise DataError(f"{file}: damaged or truncated ({complaints[0]})")
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage | tifffile.TiffFrame)]
        if not pages:
            raise DataError(f"{file}: holds no image")
        if any(page.compression not in (1, *_DEFLATE) for page in pages):  # those need no further library
            yield from _pillow_pages(file, allowance)
            return
        allowance.take(sum(page.nbytes for page in pages), file)
        for page in pages:
            if page.compression in _DEFLATE:
                _check_deflated(file, page)
            image = page.asarray()
            yield np.moveaxis(image, 0, -1) if page.axes.startswith("S") else image


def _check_deflated(file: Path, page: Any) -> None:
    """Refuse a page whose parts unpack to more than they declare: the library unpacks them whatever comes."""
    left = 2 * page.nbytes + _SLACK  # tiles reach beyond the image
    with file.open("rb") as opened:
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            if size * _DEFLATE_RATIO <= _SLACK:
                continue
            opened.seek(offset)
            left -= len(zlib.decompressobj().decompress(opened.read(size), left + 1))
            if left < 0:
                raise DataError(f"{file}: refused: an image unpacks to far more than it declares")


@contextmanager
def _complaints(logger_name: str) -> Iterator[list[str]]:
    """Collect what a library only logs as an error, instead of letting it print."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    logger = logging.getLogger(logger_name)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _pillow_pages(file: Path, allowance: Allowance) -> Iterator[NDArray[Any]]:
    from PIL import Image, ImageSequence

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the allowance is stricter
        opened = Image.open(file, formats=["PNG", "TIFF", "BMP", "JPEG"])
    with opened as image:
        if (count := getattr(image, "n_frames", 1)) > MOST_PAGES:
            raise DataError(f"{file}: refused: holds {count} images, the limit is {MOST_PAGES}")
        for page in ImageSequence.Iterator(image):
            allowance.take(page.width * page.height * _BYTES.get(page.mode, 4), file)
            colour = {"P": "RGB", "1": "L"}.get(page.mode)  # a palette's indices and bits are no intensities
            yield np.asarray(page.convert(colour) if colour else page)


def _plane(image: NDArray[Any], channel: str | int | None, file: Path) -> NDArray[Any]:
    """One grey plane [y, x] of a page."""
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] <= 2):  # grey, perhaps with an alpha plane
        if channel is not None:
            raise OptionError(f"{file}: has no colour channels; leave out channel {channel!r}")
        return image if image.ndim == 2 else image[..., 0]
    if image.ndim != 3 or image.shape[2] > 4:
        raise DataError(f"{file}: a page must be [y, x] or [y, x, colour], got shape {image.shape}")
    if channel is None:
        if (image[..., :1] == image[..., :3]).all():  # grey values stored as colour
            return image[..., 0]
        raise OptionError(f"{file}: is in colour; choose the channel r, g or b")
    if str(channel).lower() not in _CHANNELS:
        raise OptionError(f"unknown channel {channel!r}: choose r, g or b")
    return image[..., _CHANNELS[str(channel).lower()]]
