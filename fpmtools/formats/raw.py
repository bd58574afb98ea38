"""Images whose numbers lie in a file as they are: what is asked for is read, and nothing else.

Not by a memory map: a file that another program cuts off meanwhile would end this one, and what a map has touched stays
in memory.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError
from fpmtools.passes import Identity


@dataclass(frozen=True)
class Stamp:
    """A file, and by what is seen that it is still the same."""

    path: Path
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """As it is now."""
        about = path.stat()
        return cls(Path(os.path.abspath(path)), about.st_size, about.st_mtime_ns)

    @property
    def identity(self) -> Identity:
        """Names it and its state."""
        return Identity(f"{self.path} {self.size} {self.changed_ns}", self.changed_ns)

    def open(self) -> int:
        """A descriptor to read from, if it is still the same; :class:`DataError` if it is not."""
        try:
            file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read any more ({error.strerror or error})") from error
        about = os.fstat(file)
        if (about.st_size, about.st_mtime_ns) != (self.size, self.changed_ns):
            os.close(file)
            raise DataError(f"{self.path}: has changed since it was opened; read it again")
        return file


@dataclass(frozen=True, eq=False)
class RawImages:
    """Images [image, y, x] of a file, slices of which are read when they are asked for.

    ``offsets``: the byte at which each image begins; ``turned``: its columns lie one after the other, not its rows.
    """

    stamp: Stamp
    offsets: tuple[int, ...]
    image_shape: tuple[int, int]
    dtype: np.dtype[Any]
    turned: bool = False

    @classmethod
    def of(cls, path: Path, offset: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> RawImages:
        """All of a C-contiguous array at a byte of a file; :class:`DataError` where the file is too short for it."""
        count, height, width = shape
        size, stamp = height * width * dtype.itemsize, Stamp.of(path)
        if offset + count * size > stamp.size:
            raise DataError(f"{path}: cut off: it has {stamp.size} bytes, and its images need {offset + count * size}")
        return cls(stamp, tuple(range(offset, offset + count * size, size)), (height, width), dtype)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, y, x)."""
        return len(self.offsets), *self.image_shape

    @property
    def identity(self) -> Identity:
        """Names them and the state of their file."""
        lie = hashlib.sha256(repr(self.offsets).encode()).hexdigest()
        return self.stamp.identity.part((lie, self.image_shape, self.dtype.str, self.turned))

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[Any]:
        """A part of one image: ``[image, y0:y1, x0:x1]``."""
        image, rows, columns = key
        height, width = self.image_shape
        (y, y_end, _), (x, x_end, _) = rows.indices(height), columns.indices(width)
        if self.turned:
            return self._lines(self.offsets[image], height, x, x_end)[:, y:y_end].T
        return self._lines(self.offsets[image], width, y, y_end)[:, x:x_end]

    def _lines(self, offset: int, length: int, begin: int, end: int) -> NDArray[Any]:
        """Whole lines ``begin`` to ``end`` of an image, each ``length`` numbers long."""
        step = length * self.dtype.itemsize
        lines = np.empty((max(end - begin, 0), length), self.dtype)
        room, at = memoryview(lines.reshape(-1).view(np.uint8)), offset + begin * step  # type: ignore[arg-type]
        file = self.stamp.open()
        try:
            os.lseek(file, at, os.SEEK_SET)
            while room:
                if not (got := os.readv(file, [room]) if hasattr(os, "readv") else _read(file, room)):
                    raise DataError(f"{self.stamp.path}: not a readable image (it is cut off)")
                room = room[got:]
        except OSError as error:
            raise DataError(f"{self.stamp.path}: cannot be read ({error.strerror or error})") from error
        finally:
            os.close(file)
        return lines if self.dtype.isnative else lines.astype(self.dtype.newbyteorder("="))


def _read(file: int, room: memoryview) -> int:
    """As ``os.readv``, where there is none."""
    found = os.read(file, len(room))
    room[: len(found)] = found
    return len(found)
