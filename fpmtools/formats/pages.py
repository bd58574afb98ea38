"""The pages of image files as a source of images: looked at when they are opened, decoded when they are asked for.

Of an uncompressed TIFF the rows that are wanted are read; of a compressed one its strips or tiles that hold them are
unpacked; PNG, BMP, JPEG and other TIFFs are decoded a page at a time.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, OptionError
from fpmtools.formats.raw import RawImages, Stamp
from fpmtools.passes import Identity

LIMIT_BYTES = 1 << 44  # of all images together, which are read little by little
PAGE_BYTES = 4 << 30  # of one
MOST_PAGES = 20_000  # of one file
_HARMLESS_BYTES = 1 << 28  # of images, however few bytes their files have
_RATIO = 100  # beyond that, images may be this much larger than their files: noise cannot be compressed so far
_DEFLATE = (8, 32946)
_DEFLATE_RATIO = 1100  # deflate cannot compress better than 1032 : 1
_SLACK = 1 << 20  # bytes
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = (2, 6)  # the header's byte for RGB, RGBA
CHANNELS = {"r": 0, "red": 0, "0": 0, "g": 1, "green": 1, "1": 1, "b": 2, "blue": 2, "2": 2}
_DTYPES = {"I": "i4", "F": "f4", "I;16": "u2", "I;16L": "u2", "I;16B": "u2"}  # of Pillow's modes; others have u1
_CONVERTED = {"P": "RGB", "1": "L"}  # a palette's indices and bits are no intensities


class Allowance:
    """Refuses images that are larger than there should be any, or than their files can hold, before they are read."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.files_bytes = self.images_bytes = 0
        self.limit_bytes = limit_bytes

    def open(self, file: Path) -> None:
        """The next images are from this file."""
        self.files_bytes += file.stat().st_size

    def take(self, n_bytes: int, file: Path) -> None:
        """Images of this size are next."""
        self.images_bytes += n_bytes
        if self.images_bytes > self.limit_bytes:
            raise DataError(f"{file}: refused: declares more than {self.limit_bytes / 1e9:.3g} GB of images")
        if self.images_bytes > max(_HARMLESS_BYTES, _RATIO * self.files_bytes):
            declared, held = self.images_bytes / 1e9, self.files_bytes / 1e6
            raise DataError(f"{file}: refused: declares {declared:.3g} GB of images, and holds only {held:.3g} MB")


@dataclass(frozen=True, eq=False)
class Page:
    """One page of a file, [y, x] or [y, x, colour] of this ``shape`` and ``dtype``.

    ``offset``: the byte at which its numbers lie as they are, where they do. ``tiff``: tifffile's description of it;
    None: Pillow decodes it, as its ``index``-th.
    """

    stamp: Stamp
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None = None
    tiff: Any = None

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """A part of it; :class:`DataError` when the file is damaged."""
        if self.offset is not None:
            height, width = self.shape
            return RawImages(self.stamp, (self.offset,), (height, width), self.dtype)[0, rows, columns]
        with readable(self.stamp.path):
            return _unpacked(self, rows, columns) if self.tiff is not None else _decoded(self)[rows, columns]


class PageImages:
    """Pages of files as images [image, y, x]; ``channel`` picks a plane of colour images."""

    def __init__(self, pages: Sequence[Page], channel: str | int | None) -> None:
        self.pages, self.channel = tuple(pages), channel
        first = self._plane_of(0)
        for i in range(1, len(pages)):
            other = self._plane_of(i)
            if other != first:
                raise DataError(
                    f"{pages[i].stamp.path}: image {i + 1} is {other[1]} {other[0]}, the first is {first[1]} {first[0]}"
                )
        self.shape, self.dtype = (len(pages), *first[0]), first[1]
        self._last: tuple[int, NDArray[Any]] = (-1, np.zeros(0))  # of a page that cannot be read in parts
        if pages[0].offset is None:
            self[0, slice(0, None), slice(0, None)]  # what cannot be read is told of at once

    @property
    def identity(self) -> Identity:
        """Names them and the state of their files."""
        read = [(page.stamp.identity.text, page.index, page.shape, page.dtype.str) for page in self.pages]
        return Identity(repr((read, self.channel)), max(page.stamp.changed_ns for page in self.pages))

    def __len__(self) -> int:
        return len(self.pages)

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[Any]:
        """A part of one image: ``[image, y0:y1, x0:x1]``."""
        image, rows, columns = key
        page = self.pages[image]
        if page.offset is not None or page.tiff is not None:
            return plane(page.read(rows, columns), self.channel, page.stamp.path)
        if self._last[0] != image:
            every = slice(0, None)
            self._last = image, plane(page.read(every, every), self.channel, page.stamp.path)
        return self._last[1][rows, columns]

    def _plane_of(self, image: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        page = self.pages[image]
        _channel(page.shape, self.channel, page.stamp.path)
        return page.shape[:2], page.dtype.newbyteorder("=")


def pages(file: Path, allowance: Allowance) -> list[Page]:
    """The pages of one file, not read yet; :class:`DataError` where it is damaged, or declares too much."""
    with readable(file):
        with file.open("rb") as opened:
            head = opened.read(26)
        if head[:8] == PNG and head[24] == 16 and head[25] in _PNG_COLOURS:
            raise DataError(f"{file}: a colour PNG of 16 bits, of which only 8 could be read; save it as TIFF")
        allowance.open(file)
        return _tiff_pages(file, allowance) if head[:4] in TIFF else _pillow_pages(file, allowance)


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """What goes wrong while a file is read, as an error about it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (DataError, OptionError, MemoryError):
        raise
    except Exception as error:  # both libraries raise almost anything on a damaged file
        raise DataError(f"{file}: not a readable image ({' '.join(str(error).split())[:200]})") from error


def _tiff_pages(file: Path, allowance: Allowance) -> list[Page]:
    import tifffile

    # Page by page: a "series" of an OME-TIFF may reach into other files.
    with tifffile.TiffFile(file) as tiff:
        with _complaints("tifffile") as complaints:
            count = len(tiff.pages)
        if count > MOST_PAGES:
            raise DataError(f"{file}: refused: holds {count} images, the limit is {MOST_PAGES}")
        if complaints:
            raise DataError(f"{file}: damaged or truncated ({complaints[0]})")
        found = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage | tifffile.TiffFrame)]
        if not found:
            raise DataError(f"{file}: holds no image")
        if any(page.compression not in (1, *_DEFLATE) for page in found):  # those need no further library
            return _pillow_pages(file, allowance)
        allowance.take(sum(page.nbytes for page in found), file)
        stamp = Stamp.of(file)
        return [_tiff_page(stamp, i, page, tiff.byteorder) for i, page in enumerate(found)]


def _tiff_page(stamp: Stamp, index: int, page: Any, byteorder: str) -> Page:
    if page.dtype is None:
        raise DataError(f"{stamp.path}: its numbers are of a kind that is not read")
    if page.nbytes > PAGE_BYTES:
        raise DataError(f"{stamp.path}: refused: declares an image of {page.nbytes / 1e9:.3g} GB")
    shape = page.shape[1:] + page.shape[:1] if page.axes.startswith("S") else page.shape
    dtype = page.dtype.newbyteorder(byteorder)
    if page.axes == "YX" and page.is_contiguous:
        return Page(stamp, index, shape, dtype, page.dataoffsets[0])
    return Page(stamp, index, shape, dtype, tiff=page)


def _unpacked(page: Page, rows: slice, columns: slice) -> NDArray[Any]:
    """The part of a TIFF's page, of which only the strips or tiles that hold it are unpacked."""
    tiff = page.tiff
    apart, depth, height, width, together = tiff.shaped
    (y, y_end, _), (x, x_end, _) = rows.indices(height), columns.indices(width)
    high, wide = (tiff.tilelength, tiff.tilewidth) if tiff.is_tiled else (tiff.rowsperstrip, width)
    across, down = -(-width // wide), -(-height // high)
    found = np.zeros((apart, y_end - y, x_end - x, together), tiff.dtype)
    file = page.stamp.open()
    try:
        for index, (offset, size) in enumerate(zip(tiff.dataoffsets, tiff.databytecounts, strict=True)):
            row, column = divmod(index % (across * down), across)
            top, left = row * high, column * wide
            if depth == 1 and (top >= y_end or top + high <= y or left >= x_end or left + wide <= x):
                continue
            os.lseek(file, offset, os.SEEK_SET)
            data = os.read(file, size) if size else None
            if data is not None and len(data) != size:
                raise ValueError("it is cut off")
            last = min(y_end - top, high, high if tiff.is_tiled else height - top)  # row of this part that is wanted
            if data is not None and _plain(tiff):
                if len(data) > high * wide * together * tiff.dtype.itemsize + _SLACK:
                    raise DataError(f"{page.stamp.path}: refused: an image unpacks to far more than it declares")
                sample, part = index // (across * down), _inflated(page, data, (last, wide, together))
            else:
                if data is not None:
                    _check_deflated(page.stamp.path, data, tiff)
                whole, (sample, *_), (_, part_height, part_width, _) = tiff.decode(data, index)
                if whole is None:
                    continue
                part = whole[0, : min(part_height, last), :part_width]
            part = part[max(0, y - top) :, max(0, x - left) : min(width, x_end) - left]
            at_y, at_x = max(top - y, 0), max(left - x, 0)
            found[sample, at_y : at_y + part.shape[0], at_x : at_x + part.shape[1]] = part
    finally:
        os.close(file)
    image = np.moveaxis(found[..., 0], 0, -1) if apart > 1 else found[0]
    return image[..., 0] if len(page.shape) == 2 else image


def _plain(tiff: Any) -> bool:
    """Whether a page's numbers are whole bytes, deflated as they are or as differences along a row."""
    whole = tiff.dtype is not None and 8 * tiff.dtype.itemsize == tiff.bitspersample and tiff.fillorder == 1
    known = tiff.predictor == 1 or (tiff.predictor == 2 and tiff.dtype.kind in "iu")
    return bool(tiff.compression in _DEFLATE and whole and known)


def _inflated(page: Page, data: bytes, shape: tuple[int, int, int]) -> NDArray[Any]:
    """The first rows of a strip or tile, [row, column, sample] of this ``shape``: what follows is not unpacked."""
    wanted = math.prod(shape) * page.dtype.itemsize
    found = zlib.decompressobj().decompress(data, wanted)
    if len(found) < wanted:
        raise ValueError("it is cut off")
    part = np.frombuffer(found, page.dtype).reshape(shape).astype(page.dtype.newbyteorder("="), copy=False)
    return part if page.tiff.predictor == 1 else np.cumsum(part, axis=1, dtype=part.dtype)


def _check_deflated(file: Path, data: bytes, page: Any) -> None:
    """Refuse a part that unpacks to more than its page declares: the library unpacks it whatever comes."""
    if page.compression not in _DEFLATE or len(data) * _DEFLATE_RATIO <= _SLACK:
        return
    most = 2 * page.nbytes + _SLACK  # tiles reach beyond the image
    if len(zlib.decompressobj().decompress(data, most + 1)) > most:
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


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the allowance is stricter
        opened = Image.open(file, formats=["PNG", "TIFF", "BMP", "JPEG"])
    with opened as image:
        yield image


def _pillow_pages(file: Path, allowance: Allowance) -> list[Page]:
    from PIL import ImageMode

    found: list[Page] = []
    stamp = Stamp.of(file)
    with _opened(file) as image:
        if (count := getattr(image, "n_frames", 1)) > MOST_PAGES:
            raise DataError(f"{file}: refused: holds {count} images, the limit is {MOST_PAGES}")
        for index in range(count):
            if count > 1:
                image.seek(index)
            mode = _CONVERTED.get(image.mode, image.mode)
            dtype, bands = np.dtype(_DTYPES.get(mode, "u1")), len(ImageMode.getmode(mode).bands)
            allowance.take(size := image.width * image.height * dtype.itemsize * bands, file)
            if size > PAGE_BYTES:
                raise DataError(f"{file}: refused: declares an image of {size / 1e9:.3g} GB")
            shape = (image.height, image.width)
            found.append(Page(stamp, index, shape if bands == 1 else (*shape, bands), dtype))
    return found


def _decoded(page: Page) -> NDArray[Any]:
    """All of a page, by Pillow."""
    os.close(page.stamp.open())  # whether it has changed
    with _opened(page.stamp.path) as image:
        if page.index:
            image.seek(page.index)
        mode = _CONVERTED.get(image.mode)
        return np.asarray(image.convert(mode) if mode else image).astype(page.dtype, copy=False)


def plane(image: NDArray[Any], channel: str | int | None, file: Path) -> NDArray[Any]:
    """One grey plane [y, x] of a page."""
    index = _channel(image.shape, channel, file)
    if image.ndim == 2:
        return image
    if index is None:
        if not (image[..., :1] == image[..., :3]).all():  # not grey values stored as colour
            raise OptionError(f"{file}: is in colour; choose the channel r, g or b")
        index = 0
    return image[..., index]


def _channel(shape: tuple[int, ...], channel: str | int | None, file: Path) -> int | None:
    """Which plane of a page's is meant; None: the one that all colours are alike."""
    if len(shape) == 2 or (len(shape) == 3 and shape[2] <= 2):  # grey, perhaps with an alpha plane
        if channel is not None:
            raise OptionError(f"{file}: has no colour channels; leave out channel {channel!r}")
        return 0
    if len(shape) != 3 or shape[2] > 4:
        raise DataError(f"{file}: a page must be [y, x] or [y, x, colour], got shape {shape}")
    if channel is None:
        return None
    if str(channel).lower() not in CHANNELS:
        raise OptionError(f"unknown channel {channel!r}: choose r, g or b")
    return CHANNELS[str(channel).lower()]
