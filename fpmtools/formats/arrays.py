"""Files of arrays whose layout nobody knows (``.mat``, HDF5, ``.npy``, ``.npz``): any 3-D array of intensities.

Which axis counts the images: see :func:`fpmtools.formats.recording.image_axis`. Rows are y, columns are x. Nothing is
scaled or turned.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, OptionError, printable, unknown
from fpmtools.formats import matfile
from fpmtools.formats.chunks import ChunkedImages, Slabs
from fpmtools.formats.raw import RawImages, Stamp
from fpmtools.formats.recording import Recording, along, image_axis
from fpmtools.images import Images

LIMIT_BYTES = 8 << 30  # of arrays that are read as a whole
_HARMLESS_BYTES = 1 << 28  # of an array, however few bytes its file has
_RATIO = 100  # beyond that, an array may be this much larger than its file
_MOST_MEMBERS = 10_000
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def is_numpy(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is NumPy's ``.npy``, or a ``.npz``."""
    return head.startswith((np.lib.format.MAGIC_PREFIX, b"PK\x03\x04"))


def read_mat(mat: matfile.MatFile, key: str | None, leds: int | None) -> Recording:
    """The images in a MATLAB or HDF5 file."""
    key = choose(mat.shapes, key, mat.path)
    found = mat.images(key) if key in mat.stacks else matfile.read(mat.path, [key]).array(key)
    return recording(found, key, mat.path, leds, mat.matlab)


def read_numpy(path: Path, key: str | None, leds: int | None) -> Recording:
    """The images in a ``.npy`` or ``.npz`` file, without unpickling anything."""
    try:
        if zipfile.is_zipfile(path):
            return _read_npz(path, key, leds)
        if key is not None:
            raise OptionError(f"{path}: holds one array without a name; leave out the key {printable(key)!r}")
        return _read_npy(path, leds)
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable NumPy file ({' '.join(str(error).split())[:200]})") from error


def _read_npy(path: Path, leds: int | None) -> Recording:
    """An array in a file of its own; read when it is needed."""
    with path.open("rb") as file:
        size = path.stat().st_size
        shape, in_order, dtype = _declared(file, size, path, path.name)
        if len(shape) == 3 and 0 not in shape and dtype.kind in "iuf":
            if in_order and image_axis(shape, leds, False) == 0:  # image by image
                images = RawImages.of(path, file.tell(), shape, dtype)
                layout = f"array {path.stem} {shape}, images along axis 0"
                return Recording(path.stem, Images.of(images), None, {}, provenance={"layout": layout})
            lies = Slabs(Stamp.of(path), file.tell(), shape if in_order else shape[::-1], dtype)
            stack = ChunkedImages.of(lies)
            return recording(stack if in_order else stack.transpose(), path.stem, path, leds)
        _limit(math.prod(shape) * dtype.itemsize, path, path.name)
        file.seek(0)
        return recording(np.load(file, allow_pickle=False), path.stem, path, leds)


def _read_npz(path: Path, key: str | None, leds: int | None) -> Recording:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()[:_MOST_MEMBERS]}
        shapes = {}
        for name, info in members.items():
            if info.filename.endswith(".npy"):
                with archive.open(info) as file:
                    shape, _, dtype = _declared(file, info.file_size, path, name)
                    _limit(math.prod(shape) * dtype.itemsize, path, name)
                    shapes[name] = shape if dtype.kind in "biufc" else ()
        key = choose(shapes, key, path)
        declared, held = members[key].file_size, members[key].compress_size
        if declared > max(_HARMLESS_BYTES, _RATIO * held):
            raise DataError(f"{path}: refused: {key} declares {declared / 1e9:.3g} GB, and holds {held / 1e6:.3g} MB")
        with archive.open(members[key]) as file:
            return recording(np.lib.format.read_array(file, allow_pickle=False), key, path, leds)


def _declared(file: IO[bytes], size: int, path: Path, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether its last axis is fastest, and type that an array's header declares.

    It must be real, and fit into its ``size`` in bytes.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise DataError(f"{path}: {printable(name)} is an array of named fields, not of numbers")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject or dtype.kind not in "biufc":
        return (), True, dtype
    declared = math.prod(shape) * dtype.itemsize
    if declared > size:
        held = f"its file has {size / 1e9:.3g} GB"
        raise DataError(f"{path}: refused: {printable(name)} declares {declared / 1e9:.3g} GB, and {held}")
    return tuple(int(n) for n in shape), not fortran, dtype


def _limit(declared: int, path: Path, name: str) -> None:
    """Refuse what would be read as a whole and is too large for that."""
    if declared > LIMIT_BYTES:
        limit = f"the limit is {LIMIT_BYTES / 1e9:.3g} GB"
        raise DataError(f"{path}: refused: {printable(name)} declares {declared / 1e9:.3g} GB, and {limit}")


def choose(shapes: Mapping[str, tuple[int, ...]], key: str | None, path: Path) -> str:
    """The array that is meant: ``key``, or the only one of three dimensions.

    Raises :class:`OptionError` when there is no ``key``, or when several could be meant; :class:`DataError` when none.
    """
    stacks = [name for name, shape in shapes.items() if len(shape) == 3]
    if key is not None:
        if key not in shapes:
            raise unknown(f"key in {path.name}:", key, stacks or shapes)
        return key
    if len(stacks) > 1:
        listed = ", ".join(f"{name} {shapes[name]}" for name in stacks[:8])
        raise OptionError(f"{path}: several arrays may be the images; choose one with key: {printable(listed)}")
    if not stacks:
        listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:8]) or "none"
        raise DataError(f"{path}: no array of three dimensions for the images; arrays found: {printable(listed)}")
    return stacks[0]


def recording(
    array: NDArray[Any] | ChunkedImages, key: str, path: Path, leds: int | None, matlab: bool = False
) -> Recording:
    """Images [image, y, x] from a 3-D array; ``leds`` is how many there should be, where that is known."""
    if isinstance(array, np.ndarray) and array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.dtype.kind not in "iufc":
        what = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{path}: {printable(key)} must be images of three dimensions, in numbers, got {what}")
    axis = image_axis(array.shape, leds, matlab)
    layout = f"array {key} {array.shape}, images along axis {axis}"
    return Recording(path.stem, along(array, axis), None, {}, provenance={"layout": layout})
