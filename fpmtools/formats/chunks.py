"""Arrays that lie in files in chunks, as a source of images: those chunks that hold what is asked for are unpacked.

No chunk unpacks to more than it declares. Nothing here asks a library what a file's structure is: a child process with
limited memory and time has done so, and told where each chunk lies.
"""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError
from fpmtools.formats.raw import Stamp
from fpmtools.passes import Identity

SLAB_BYTES = 1 << 18  # read at once of an array that lies as it is
AHEAD_BYTES = 1 << 27  # of images that share chunks: so much of them is kept for the next one
CHUNK_BYTES = 1 << 28  # larger ones are not unpacked here

Place = tuple[int, ...]


class Chunks(Protocol):
    """Where the chunks of an array are, each [axis, …] of the shape ``chunk`` or, at the array's end, smaller."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def chunk(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def fill(self) -> Any:
        """What is in chunks that are not there."""

    @property
    def identity(self) -> Identity:
        """Names the array and the state of its files."""

    def unpacked(self, places: Iterable[Place]) -> Iterator[tuple[Place, NDArray[Any] | None]]:
        """These chunks, by their numbers along each axis; None for one that is not there."""


@dataclass(frozen=True, eq=False)
class ChunkedImages:
    """An array in chunks as images [image, y, x].

    ``axes``: which of the array's are (image, y, x); several may count the images, the last of which is the fastest.
    """

    chunks: Chunks
    axes: tuple[int, ...]
    _last: list[Any] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, chunks: Chunks) -> ChunkedImages:
        """Axes in the order in which they are stored."""
        return cls(chunks, tuple(range(len(chunks.shape))))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, y, x)."""
        *images, height, width = (self.chunks.shape[axis] for axis in self.axes)
        return math.prod(images), height, width

    @property
    def ndim(self) -> int:
        """Three."""
        return 3

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers as they are stored, in this machine's order of bytes."""
        return self.chunks.dtype.newbyteorder("=")

    @property
    def identity(self) -> Identity:
        """Names the images and the state of their files."""
        return self.chunks.identity.part(self.axes)

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> Any:
        return ChunkedImages, (self.chunks, self.axes)

    def transpose(self, *axes: int) -> ChunkedImages:
        """The same with other axes as (image, y, x), as NumPy's; without any, in reverse."""
        order = axes or tuple(range(len(self.axes)))[::-1]
        return replace(self, axes=tuple(self.axes[axis] for axis in order), _last=[])

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[Any]:
        """A part of one image: ``[image, y0:y1, x0:x1]``."""
        image, rows, columns = key
        (y, y_end, _), (x, x_end, _) = (
            part.indices(n) for part, n in zip((rows, columns), self.shape[1:], strict=True)
        )
        box = ((y, max(y, y_end)), (x, max(x, x_end)))
        counts = [self.chunks.shape[axis] for axis in self.axes[:-2]]
        index = np.unravel_index(image, counts) if counts else ()
        group = self._group([int(i) for i in index], (box[0][1] - y) * (box[1][1] - x))
        within = tuple(int(i) - begin for i, (begin, _) in zip(index, group, strict=True))
        if all(end - begin == 1 for begin, end in group):
            return np.asarray(self._read((*group, *box))[within])
        known: Any
        known, read = self._last[0] if self._last else (None, np.zeros(0))
        if known != (group, box):
            read = self._read((*group, *box))
            self._last[:] = [((group, box), read)]
        return np.array(read[within])  # of one's own: what is kept must stay as it is

    def _group(self, index: Sequence[int], pixels: int) -> tuple[tuple[int, int], ...]:
        """The images that are read at once since they share chunks, [begin, end) along each axis that counts them."""
        room, found = max(1, AHEAD_BYTES // max(1, pixels * self.dtype.itemsize)), []
        for axis, at in zip(self.axes[-3::-1], index[::-1], strict=True):
            length, every = self.chunks.chunk[axis], self.chunks.shape[axis]
            first, step = at - at % length, min(room, length)
            begin = at - (at - first) % step
            end = min(begin + step, first + length, every)
            room = max(1, room // (end - begin))
            found.append((begin, end))
        return tuple(found[::-1])

    def _read(self, wanted: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """A part of the array, [begin, end) along each of ``axes``, in that order."""
        box = [wanted[self.axes.index(axis)] for axis in range(len(self.axes))]
        found = np.full([end - begin for begin, end in box], self.chunks.fill, self.dtype)
        size, grid = self.chunks.chunk, []
        for (begin, end), length in zip(box, size, strict=True):
            grid.append(range(begin // length, -(-end // length) if end > begin else begin // length))
        for place, part in self.chunks.unpacked(itertools.product(*grid)):
            if part is not None:
                corner = [at * length for at, length in zip(place, size, strict=True)]
                ends = [min(end, first + n) for (_, end), first, n in zip(box, corner, part.shape, strict=True)]
                begins = [max(begin, first) for (begin, _), first in zip(box, corner, strict=True)]
                to = tuple(slice(b - first, e - first) for b, e, (first, _) in zip(begins, ends, box, strict=True))
                of = tuple(slice(b - first, e - first) for b, e, first in zip(begins, ends, corner, strict=True))
                found[to] = part[of]
        return found.transpose(self.axes)


@dataclass(frozen=True, eq=False)
class Slabs:
    """An array that lies in a file as it is, from the byte ``offset`` on, as chunks that lie in one piece each."""

    stamp: Stamp
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: int = 0

    @property
    def identity(self) -> Identity:
        """Names the array and the state of its file."""
        return self.stamp.identity.part((self.offset, self.shape, self.dtype.str))

    @property
    def chunk(self) -> tuple[int, ...]:
        """As many of the fastest axes as make up a slab, and a part of the next one."""
        found, room = [], max(1, SLAB_BYTES // self.dtype.itemsize)
        for n in self.shape[::-1]:
            found.append(min(n, room))
            room = max(1, room // n)
        return tuple(found[::-1])

    def unpacked(self, places: Iterable[Place]) -> Iterator[tuple[Place, NDArray[Any] | None]]:
        """These slabs, by their numbers along each axis."""
        steps = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        file = self.stamp.open()
        try:
            for place in places:
                corner = [at * length for at, length in zip(place, self.chunk, strict=True)]
                shape = [min(n, length) for n, length in zip(np.subtract(self.shape, corner), self.chunk, strict=True)]
                at = self.offset + self.dtype.itemsize * sum(c * step for c, step in zip(corner, steps, strict=True))
                data = read_at(file, at, math.prod(shape) * self.dtype.itemsize, self.stamp.path)
                yield place, np.frombuffer(data, self.dtype).reshape(shape)
        finally:
            os.close(file)


@dataclass(frozen=True, eq=False)
class Packed:
    """The chunks of an array in one file.

    ``table`` [axis, …, (byte, size, mask)], size 0 where there is no chunk, bit k of the mask where filter k was left
    out; ``filters`` are those of :data:`FILTERS`, in the order in which they were applied.
    """

    stamp: Stamp
    name: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    filters: tuple[str, ...]
    table: NDArray[np.int64]

    @property
    def identity(self) -> Identity:
        """Names the array and the state of its file."""
        return self.stamp.identity.part((self.name, self.shape, self.dtype.str))

    def unpacked(self, places: Iterable[Place]) -> Iterator[tuple[Place, NDArray[Any] | None]]:
        """These chunks, by their numbers along each axis; None for one that is not there."""
        file = self.stamp.open()
        try:
            for place in places:
                at, size, mask = (int(n) for n in self.table[place])
                if size > 2 * math.prod(self.chunk) * self.dtype.itemsize + SLAB_BYTES:
                    raise damaged(self.stamp.path)
                yield place, self._unpack(read_at(file, at, size, self.stamp.path), mask) if size else None
        finally:
            os.close(file)

    def _unpack(self, data: bytes, mask: int) -> NDArray[Any]:
        wanted = math.prod(self.chunk) * self.dtype.itemsize
        for k in range(len(self.filters) - 1, -1, -1):
            if not mask >> k & 1:
                data = FILTERS[self.filters[k]](data, wanted, self.dtype.itemsize, self.stamp.path)
        if len(data) != wanted:
            raise damaged(self.stamp.path)
        return np.frombuffer(data, self.dtype).reshape(self.chunk)


def damaged(path: Path) -> DataError:
    """A chunk is not what its file says that it is."""
    return DataError(f"{path}: damaged: a chunk does not unpack to what the file declares")


def read_at(file: int, at: int, size: int, path: Path) -> bytes:
    """So many bytes of an open file; :class:`DataError` where it ends before."""
    found = b""
    try:
        if at + size <= os.fstat(file).st_size:  # room for all of it is made at once
            os.lseek(file, at, os.SEEK_SET)
            while len(found) < size and (more := os.read(file, size - len(found))):
                found = found + more if found else more
    except (OSError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(found) < size:
        raise DataError(f"{path}: damaged or truncated (it is cut off)")
    return found


def inflate(data: bytes, wanted: int, itemsize: int, path: Path) -> bytes:
    """What was deflated, with zlib's header or gzip's, unless it is more than ``wanted`` and a checksum."""
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        found = unpacking.decompress(data, wanted + 5)
    except zlib.error:
        raise damaged(path) from None
    if not unpacking.eof:
        raise damaged(path)
    return found


def unshuffle(data: bytes, wanted: int, itemsize: int, path: Path) -> bytes:
    """All first bytes, then all second bytes, … of the numbers, as numbers again."""
    if len(data) != wanted:
        raise damaged(path)
    return np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()


def checked(data: bytes, wanted: int, itemsize: int, path: Path) -> bytes:
    """Without Fletcher's checksum of 32 bits, as HDF5 has it, once it is known to be right."""
    data, said = data[:-4], int.from_bytes(data[-4:], "little")
    words = np.frombuffer(data + bytes(len(data) % 2), ">u2").astype(np.int64)
    low = high = 0
    for begin in range(0, len(words), 1 << 16):  # no sum of these overflows
        part = words[begin : begin + (1 << 16)]
        high = (high + len(part) * low + int((part * np.arange(len(part), 0, -1)).sum())) % 65535
        low = (low + int(part.sum())) % 65535
    swapped = (said >> 8 & 0xFF00FF) | (said & 0xFF00FF) << 8  # as old libraries wrote it
    if not any((s >> 16) % 65535 == high and (s & 0xFFFF) % 65535 == low for s in (said, swapped)):
        raise damaged(path)
    return data


FILTERS = {"deflate": inflate, "shuffle": unshuffle, "fletcher32": checked}
