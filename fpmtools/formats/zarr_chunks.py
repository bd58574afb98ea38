"""The chunks of a Zarr array, versions 2 and 3: each in a file of its own, or in one of a shard.

What unpacks to more than a chunk declares is refused before, or while, it is unpacked. Nothing asks the library zarr;
what its codecs do beyond that is left to it, see :func:`of`.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError
from fpmtools.formats.chunks import CHUNK_BYTES, Place, damaged, inflate, read_at
from fpmtools.passes import Identity

_ABSENT = (1 << 64) - 1  # in a shard's index
_BLOCK = 1 << 17  # bytes that one block of Zstandard unpacks to, at most
_MAGIC = (0xFD2FB528).to_bytes(4, "little")
_CHECKSUM = 4  # bytes of CRC-32C

Unpack = Callable[[bytes, int, int, Path], bytes]


@dataclass(frozen=True)
class Store:
    """The files of a store as they were when they were looked through."""

    path: Path
    held: int
    count: int
    newest_ns: int

    def open(self, file: Path) -> int | None:
        """A descriptor to read from, None where there is no such file; :class:`DataError` if something has changed."""
        try:
            found = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                if file.parent.stat().st_mtime_ns > self.newest_ns:
                    raise self.changed() from None
            return None
        except OSError as error:
            raise DataError(f"{file}: cannot be read any more ({error.strerror or error})") from error
        about = os.fstat(found)
        if about.st_mtime_ns > self.newest_ns or not stat.S_ISREG(about.st_mode):
            os.close(found)
            raise self.changed()
        return found

    def changed(self) -> DataError:
        """It is no more what it was."""
        return DataError(f"{self.path}: has changed since it was opened; read it again")


@dataclass(frozen=True)
class Shards:
    """How chunks lie in files that hold ``each`` of them along every axis, with an index at the end or the start."""

    each: tuple[int, ...]
    at_end: bool
    index_checked: bool


@dataclass(frozen=True, eq=False)
class ZarrChunks:
    """The chunks of an array; ``dtype`` as packed, ``order`` the axes in which a chunk is stored."""

    store: Store
    folder: Path
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    prefix: str
    separator: str
    order: tuple[int, ...]
    codecs: tuple[str, ...]
    shards: Shards | None = None
    _index: list[Any] = field(default_factory=list, repr=False)

    @property
    def identity(self) -> Identity:
        """Names the array and the state of its store."""
        return Identity(f"{self.store} {self.folder}", self.store.newest_ns)

    def unpacked(self, places: Iterable[Place]) -> Iterator[tuple[Place, NDArray[Any] | None]]:
        """These chunks, by their numbers along each axis; None for one that is not there."""
        for place in places:
            data = self._packed(place)
            yield place, None if data is None else self._unpack(data)

    def _packed(self, place: Place) -> bytes | None:
        each = self.shards.each if self.shards is not None else (1,) * len(place)
        at = [n // k for n, k in zip(place, each, strict=True)]
        file = self.folder / (self.prefix + self.separator.join(map(str, at)))
        opened = self.store.open(file)
        if opened is None:
            return None
        try:
            size = os.fstat(opened).st_size
            if self.shards is None:
                if size > 2 * CHUNK_BYTES:
                    raise damaged(file)
                return read_at(opened, 0, size, file)
            known, index = self._index[0] if self._index else (None, np.zeros(0))
            if known != at:
                index = self._read_index(opened, size, file)
                self._index[:] = [(at, index)]
            begin, length = (int(n) for n in index[tuple(n % k for n, k in zip(place, each, strict=True))])
            if (begin, length) == (_ABSENT, _ABSENT):
                return None
            if begin + length > size or length > 2 * CHUNK_BYTES:
                raise damaged(file)
            return read_at(opened, begin, length, file)
        finally:
            os.close(opened)

    def _read_index(self, opened: int, size: int, file: Path) -> NDArray[np.uint64]:
        """(byte, size) of each chunk of a shard."""
        assert self.shards is not None
        length = 16 * math.prod(self.shards.each) + _CHECKSUM * self.shards.index_checked
        data = read_at(opened, max(0, size - length) if self.shards.at_end else 0, length, file)
        if self.shards.index_checked:
            data = _crc32c(data, 0, 1, file)
        return np.frombuffer(data, "<u8").reshape(*self.shards.each, 2)

    def _unpack(self, data: bytes) -> NDArray[Any]:
        wanted = math.prod(self.chunk) * self.dtype.itemsize
        for name in self.codecs[::-1]:
            data = _UNPACK[name](data, wanted, self.dtype.itemsize, self.store.path)
        if len(data) != wanted:
            raise damaged(self.store.path)
        stored = np.frombuffer(data, self.dtype).reshape([self.chunk[axis] for axis in self.order])
        return stored.transpose(np.argsort(self.order))


def of(store: Store, folder: Path, about: Mapping[str, Any]) -> ZarrChunks | None:
    """The array whose metadata these are; None where only the library can unpack it."""
    shape, shards = tuple(int(n) for n in about["shape"]), None
    straight = tuple(range(len(shape)))
    if about.get("zarr_format") == 2:
        prefix, separator = "", about.get("dimension_separator", ".")
        chunk, dtype = tuple(int(n) for n in about["chunks"]), np.dtype(about["dtype"])
        order = straight[::-1] if about.get("order") == "F" else straight
        names = [] if about.get("compressor") is None else [about["compressor"]["id"]]
        plain = not about.get("filters")
    else:
        encoding, grid = about["chunk_key_encoding"], about["chunk_grid"]
        usual = {"default": ("c", "/"), "v2": ("", ".")}.get(encoding["name"])
        if usual is None or grid["name"] != "regular":
            return None
        separator = encoding.get("configuration", {}).get("separator", usual[1])
        prefix = usual[0] and usual[0] + separator
        chunk, codecs = tuple(int(n) for n in grid["configuration"]["chunk_shape"]), list(about["codecs"])
        if [codec["name"] for codec in codecs] == ["sharding_indexed"]:
            inside = codecs[0]["configuration"]
            shards, chunk, codecs = _shards(inside, chunk)
            if shards is None:
                return None
        dtype, order, names, plain = _chain(codecs, np.dtype(about["data_type"]), straight)
    fill = _fill(about.get("fill_value"), dtype)
    fits = len(chunk) == len(shape) and min(chunk) > 0 and math.prod(chunk) * dtype.itemsize <= CHUNK_BYTES
    if not plain or fill is None or not fits or separator not in ("/", ".") or not {*names} <= {*_UNPACK}:
        return None
    return ZarrChunks(store, folder, shape, chunk, dtype, fill, prefix, separator, order, tuple(names), shards)


def _shards(
    inside: Mapping[str, Any], outer: tuple[int, ...]
) -> tuple[Shards | None, tuple[int, ...], list[dict[str, Any]]]:
    """How chunks lie in shards of the shape ``outer``, their shape, and how each is packed."""
    chunk, at = tuple(int(n) for n in inside["chunk_shape"]), inside.get("index_location", "end")
    index = [
        (codec["name"], codec.get("configuration", {}).get("endian", "little")) for codec in inside["index_codecs"]
    ]
    known = index in ([("bytes", "little")], [("bytes", "little"), ("crc32c", "little")]) and at in ("end", "start")
    whole = len(chunk) == len(outer) and all(c > 0 and o % c == 0 for c, o in zip(chunk, outer, strict=False))
    if not known or not whole:
        return None, chunk, []
    each = tuple(o // c for c, o in zip(chunk, outer, strict=True))
    return Shards(each, at == "end", len(index) == 2), chunk, list(inside["codecs"])


def _chain(
    codecs: Sequence[Mapping[str, Any]], dtype: np.dtype[Any], order: tuple[int, ...]
) -> tuple[np.dtype[Any], tuple[int, ...], list[str], bool]:
    """Type and order of axes as stored, names of what packs their bytes, and whether that is all there is."""
    left = list(codecs)
    if left and left[0]["name"] == "transpose":
        order = tuple(int(axis) for axis in left.pop(0)["configuration"]["order"])
    if not left or left[0]["name"] != "bytes" or sorted(order) != list(range(len(order))):
        return dtype, order, [], False
    big = left.pop(0).get("configuration", {}).get("endian", "little") == "big"
    return dtype.newbyteorder(">" if big else "<"), order, [codec["name"] for codec in left], True


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """What is in chunks that are not there, in the array's type; None where it is not understood."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if isinstance(value, str) and not value.startswith("0x"):
            value = float(value)
        if not isinstance(value, str):
            return dtype.type(0 if value is None else value)
    return None


def _blosc(data: bytes, wanted: int, itemsize: int, path: Path) -> bytes:
    from numcodecs import blosc

    if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):
        raise damaged(path)
    return _decoded(blosc.decompress, data, int.from_bytes(data[4:8], "little"), wanted, path)


def _lz4(data: bytes, wanted: int, itemsize: int, path: Path) -> bytes:
    from numcodecs import lz4

    return _decoded(lz4.decompress, data, int.from_bytes(data[:4], "little"), wanted, path)


def _zstd(data: bytes, wanted: int, itemsize: int, path: Path) -> bytes:
    from numcodecs import zstd

    try:
        size, stated = _unpacked_size(data)
    except IndexError:
        raise damaged(path) from None
    return _decoded(zstd.decompress, data, size, wanted if stated else max(8 * wanted, 8 * _BLOCK), path)


def _unpacked_size(data: bytes) -> tuple[int, bool]:
    """What a frame of Zstandard unpacks to (RFC 8878) and whether it says so; else what its blocks can hold at most."""
    if data[:4] != _MAGIC:
        raise IndexError
    descriptor, at = data[4], 5
    single = bool(descriptor & 0x20)
    at += (not single) + (0, 1, 2, 4)[descriptor & 3]  # the window, the dictionary
    length = (int(single), 2, 4, 8)[descriptor >> 6]
    if length:
        return int.from_bytes(data[at : at + length], "little") + 256 * (length == 2), True
    size, last = 0, False
    while not last:
        if at + 3 > len(data):
            raise IndexError
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind, n = bool(head & 1), head >> 1 & 3, head >> 3
        size += _BLOCK if kind == 2 else n
        at += 3 + (1 if kind == 1 else n)
    return size, False


def _decoded(decompress: Callable[[bytes], bytes], data: bytes, size: int, most: int, path: Path) -> bytes:
    """What a library unpacks, if the ``size`` that the data name is not too large."""
    if size > most + _CHECKSUM:
        raise damaged(path)
    try:
        return bytes(decompress(data))
    except (RuntimeError, ValueError, MemoryError):
        raise damaged(path) from None


def _crc32c(data: bytes, wanted: int, itemsize: int, path: Path) -> bytes:
    import google_crc32c

    body, said = data[:-_CHECKSUM], int.from_bytes(data[-_CHECKSUM:], "little")
    if google_crc32c.value(body) != said:
        raise damaged(path)
    return body


_UNPACK: dict[str, Unpack] = {
    "gzip": inflate, "zlib": inflate, "zstd": _zstd, "blosc": _blosc, "lz4": _lz4, "crc32c": _crc32c
}  # fmt: skip
