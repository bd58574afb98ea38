"""MATLAB files, v5 and v7.3, and any HDF5, read without trusting them: by a child process, :mod:`._mat_child`."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, printable
from fpmtools.formats import child
from fpmtools.formats.chunks import ChunkedImages, Packed, Slabs
from fpmtools.formats.raw import Stamp
from fpmtools.images import Images

WHAT = "MATLAB or HDF5 file"
LIMIT_BYTES = 8 << 30  # of all variables together
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512  # where MATLAB puts the HDF5 signature, after its text header
_V5 = (b"\x00\x01IM", b"\x01\x00MI")  # version 1.0, then the byte order


@dataclass(frozen=True)
class MatFile:
    """Some variables of a MATLAB or HDF5 file, the names of all, and the shapes of all real arrays.

    ``matlab``: axes are MATLAB's, [row, column, page]; else they are as stored, with an array's path as its name.
    ``stacks``: the arrays of three axes that stay in the file, and are read when they are needed.
    """

    path: Path
    arrays: Mapping[str, NDArray[Any]]
    names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    matlab: bool = True
    stacks: Mapping[str, ChunkedImages] = field(default_factory=dict)

    def need(self, *keys: str) -> None:
        """Raise :class:`DataError` when any of these variables is absent."""
        if missing := [key for key in keys if key not in self.names]:
            found = ", ".join(self.names) or "none"
            raise DataError(f"{self.path.name}: has no variable {', '.join(missing)} (found: {printable(found)})")

    def images(self, key: str) -> NDArray[Any] | ChunkedImages:
        """The variable ``key``, in the file if it may stay there; axes are moved by ``transpose`` in either case."""
        return self.stacks[key] if key in self.stacks else self.array(key)

    def array(self, key: str) -> NDArray[Any]:
        """The variable ``key``; :class:`DataError` when it is absent or no numeric array."""
        if key in self.stacks:
            return _whole(self.stacks[key], f"{self.path}: {printable(key)}")
        if key in self.arrays:
            return self.arrays[key]
        self.need(key)
        raise DataError(f"{self.path.name}: variable {key} is not a numeric array")

    def number(self, key: str) -> float:
        """The variable ``key`` as one number."""
        value = self.array(key)
        if value.size != 1 or value.dtype.kind not in "biuf":
            raise DataError(f"{self.path.name}: {key} must be one number, got {value.dtype} of shape {value.shape}")
        return float(value.reshape(()))


def is_matlab(head: bytes) -> bool:
    """Whether a file's first kilobyte is a MATLAB v5 or v7.3 (HDF5) header."""
    return head[124:128] in _V5 or HDF5_SIGNATURE in (head[:8], head[_USER_BLOCK : _USER_BLOCK + 8])


def read(
    path: str | Path, wanted: Collection[str], *, limit_bytes: int = LIMIT_BYTES, timeout_s: float | None = None
) -> MatFile:
    """Read the variables ``wanted`` that the file has; MATLAB's at the top or inside a struct ``saved_data``.

    Numbers are arrays of one element. Real arrays of three axes stay in HDF5 files, all of them, and count in no limit.

    Raises
    ------
    DataError
        When the file is missing, damaged, no MATLAB file, larger than ``limit_bytes``, points outside itself, or takes
        longer than ``timeout_s`` (default: what its size explains) to read.
    OutputError
        When the folder for temporary files has no room to unpack it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
        stamp = Stamp.of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not is_matlab(head):
        raise DataError(f"{path}: not a MATLAB v5 or v7.3 file, nor HDF5")
    limit_s = child.START_S + stamp.size / child.BYTES_PER_S if timeout_s is None else timeout_s
    try:
        with tempfile.TemporaryDirectory(prefix="fpmtools-") as folder:
            # A compressed file can unpack to more than it declares; copies take their part too.
            most = 2 * limit_bytes + child.OVERHEAD_BYTES
            arguments = [str(path.resolve()), folder, str(limit_bytes), *wanted]
            result = child.run("_mat_child.py", Path(folder), arguments, most, limit_s)
            arrays = {n: np.load(Path(folder) / file, allow_pickle=False) for n, file in result["arrays"].items()}
            places = result.get("places", {})
            stacks = {name: _stack(stamp, name, place, Path(folder)) for name, place in places.items()}
    except child.Failure as failure:
        raise failure.of(path, WHAT) from None
    except OSError as error:
        raise child.Failure("no room", str(error)).of(path, WHAT) from None
    shapes = {name: tuple(shape) for name, shape in result["shapes"].items()}
    if result["matlab"]:
        stacks = {name: stack.transpose() for name, stack in stacks.items()}
    return MatFile(path, arrays, tuple(result["names"]), shapes, result["matlab"], stacks)


def _stack(stamp: Stamp, name: str, place: Mapping[str, Any], folder: Path) -> ChunkedImages:
    """Images that stay in their file, at the place that the child process tells, axes as stored."""
    dtype, shape = np.dtype(place["dtype"]), tuple(place["shape"])
    if "offset" in place:
        return ChunkedImages.of(Slabs(stamp, place["offset"], shape, dtype))
    table = np.load(folder / place["table"], allow_pickle=False)
    fill = np.frombuffer(bytes.fromhex(place["fill"]), dtype)[0]
    chunk, filters = tuple(place["chunk"]), tuple(place["filters"])
    return ChunkedImages.of(Packed(stamp, name, shape, chunk, dtype, fill, filters, table))


def _whole(stack: ChunkedImages, what: str) -> NDArray[Any]:
    """All of a stack, axes as it has them."""
    if (declared := math.prod(stack.shape) * stack.dtype.itemsize) > LIMIT_BYTES:
        raise DataError(f"{what} declares {declared / 1e9:.3g} GB, the limit is {LIMIT_BYTES / 1e9:.3g} GB")
    return Images.of(stack).stored()
