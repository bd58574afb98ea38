"""OME-Zarr, versions 0.4 and 0.5, as a stack of measured images: read without trusting it.

What a store may hold is looked through first: no links, nothing outside of it, numbers only, and codecs that run no
code. Its images stay there, and their chunks are unpacked when they are needed, see :mod:`.zarr_chunks`; what that
does not know is unpacked as a whole by a child process with limited memory and time.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, OptionError, printable, unknown
from fpmtools.formats import child, ome, pages, zarr_chunks
from fpmtools.formats.chunks import ChunkedImages
from fpmtools.formats.pages import Allowance
from fpmtools.formats.recording import Recording, Wanted
from fpmtools.formats.zarr_chunks import Store
from fpmtools.images import Images

MARKS = ("zarr.json", ".zgroup")  # one of which each group has
WHAT = "OME-Zarr"
_CODECS = {"bytes", "transpose", "crc32c", "blosc", "zstd", "gzip", "zlib", "lz4", "sharding_indexed"}
LIMIT_BYTES = 16 << 30  # of an image that is unpacked as a whole
_JSON_BYTES = 1 << 24
_MOST_FILES = 1_000_000
_NUMBERS = re.compile(r"[<>|]?([iuf][1248]|u?int(8|16|32|64)|float(16|32|64))")
_INSIDE = re.compile(r"(?!\.)[\w. -]+(/(?!\.)[\w. -]+)*")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a group of Zarr's."""
    return any((path / mark).is_file() for mark in MARKS)


def read(path: Path, wanted: Wanted) -> Recording:
    """The finest level of an image: its planes in their order, its pixel size.

    ``wanted.key`` names the image where the store holds several, ``wanted.channel`` the channel, by name or number, of
    several beside several planes. Raises :class:`DataError` when the store is damaged, holds no image or what must not
    be opened, and :class:`OptionError` where one of several must be named, or is not there.
    """
    if importlib.util.find_spec("zarr") is None:
        raise DataError(f"{path}: OME-Zarr needs the package zarr: pip install 'fpmtools[zarr]'")
    store = _screen(path)
    try:
        image, about = _image(path, wanted.key)
        axes = [axis["name"] if isinstance(axis, dict) else axis for axis in about["axes"]]
        level = about["datasets"][0]
        if not _INSIDE.fullmatch(str(level["path"])):
            raise DataError(f"{path}: refused: its array is at {printable(level['path'], 80)}, outside of it")
        folder = image / level["path"]
        declared = _declared(folder, path)
        shape, dtype = (
            tuple(int(n) for n in declared["shape"]),
            np.dtype(declared.get("data_type", declared.get("dtype"))),
        )
        if axes[-2:] != ["y", "x"] or len(axes) != len(shape) or not {*axes[:-2]} <= {"c", "z", "t"}:
            raise DataError(f"{path}: axes {printable(axes, 80)} of an array {shape} are not images [t, c, z, y, x]")
        places = _places(axes[:-2], shape)
        said: list[str] = []
        pixel = _pixel(about, level, axes, said)
        names = _channels(image, shape[axes.index("c")]) if "c" in axes and shape[axes.index("c")] > 1 else []
        chunks = zarr_chunks.of(store, folder, declared)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a complete OME-Zarr image ({printable(repr(error), 100)})") from error
    chosen = ome.choose(places, names, wanted.channel, path)
    size = math.prod(shape) * dtype.itemsize
    allowance = Allowance(LIMIT_BYTES if chunks is None else pages.LIMIT_BYTES)
    allowance.files_bytes = store.held
    allowance.take(size, path)
    if chunks is None:
        images = Images.of(_unpack(folder, path, size, store.held).reshape(-1, *shape[-2:]))
    else:
        images = Images.of(ChunkedImages.of(chunks))
    layout = f"OME-Zarr [{', '.join(axes)}] {list(shape)}"
    provenance: dict[str, Any] = {"layout": layout} | ({"warnings": said} if said else {})
    return Recording(ome.stem(path), images.select(chosen), None, pixel, provenance=provenance)


def _screen(path: Path) -> Store:
    """The store as it is; :class:`DataError` when there is a link among its files, or too many."""
    held, count, newest = 0, 0, os.stat(path).st_mtime_ns
    for place, folders, files in os.walk(path):
        for name in itertools.chain(folders, files):
            about = os.lstat(os.path.join(place, name))
            if os.path.islink(os.path.join(place, name)):
                raise DataError(f"{path}: refused: {printable(name, 80)} in it is a link")
            held += about.st_size
            count += 1
            newest = max(newest, about.st_mtime_ns)
        if count > _MOST_FILES:
            raise DataError(f"{path}: refused: holds more than {_MOST_FILES} files")
    return Store(Path(os.path.abspath(path)), held, count, newest)


def _json(path: Path) -> dict[str, Any]:
    """The metadata in a file; nothing where it is missing."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _JSON_BYTES:
        raise DataError(f"{path}: refused: too large for metadata")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({printable(error)})") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no metadata")
    return found


def _attributes(group: Path) -> dict[str, Any]:
    """The OME part of a group's attributes."""
    new = _json(group / "zarr.json").get("attributes", {})
    return new.get("ome", {}) if new else _json(group / ".zattrs")


def _image(path: Path, key: str | None) -> tuple[Path, dict[str, Any]]:
    """The group of the image that is meant, and what its first multiscales say."""
    if key is not None and not _INSIDE.fullmatch(key):
        raise OptionError(f"{path}: key {printable(key, 80)!r} is no place in it")
    if key is None and _attributes(path).get("multiscales"):
        return path, _attributes(path)["multiscales"][0]
    below = {str(group.relative_to(path)): group for mark in MARKS for group in map(Path, _groups(path, mark))}
    there = sorted(name for name, group in below.items() if _attributes(group).get("multiscales"))
    if key is None and len(there) > 1:
        raise OptionError(f"{path}: holds {len(there)} images; choose one by key: {printable(', '.join(there[:8]))}")
    if not there:
        raise DataError(f"{path}: holds no image with OME-Zarr metadata (multiscales)")
    if key is not None and key not in there:
        raise unknown(f"image in {path.name}:", key, there)
    image = below[key or there[0]]
    return image, _attributes(image)["multiscales"][0]


def _groups(path: Path, mark: str) -> list[Path]:
    """The groups down to three levels below."""
    return [found.parent for depth in (1, 2, 3) for found in sorted(path.glob("/".join(["*"] * depth) + f"/{mark}"))]


def _declared(folder: Path, path: Path) -> dict[str, Any]:
    """The metadata of an array, once it is known that to read it runs no code of the file's choice."""
    about = _json(folder / "zarr.json") or _json(folder / ".zarray")
    if not about:
        raise DataError(f"{path}: its array {printable(folder.name, 80)} is missing")
    dtype = about.get("data_type", about.get("dtype"))
    if not (isinstance(dtype, str) and _NUMBERS.fullmatch(dtype)):
        raise DataError(f"{path}: holds {printable(dtype, 80)}, not numbers")
    old = [about.get("compressor"), *(about.get("filters") or [])] if "dtype" in about else []
    _check_codecs([*about.get("codecs", []), *filter(None, old)], path)
    if {*about} & {"storage_transformers"} and about["storage_transformers"]:
        raise DataError(f"{path}: refused: its array has storage transformers")
    shape = tuple(int(n) for n in about["shape"])
    if len(shape) < 2 or min(shape) < 1 or math.prod(shape[:-2]) > ome.MOST_PLANES:
        raise DataError(f"{path}: an array of {shape} is no stack of images")
    return about


def _check_codecs(codecs: Sequence[Any], path: Path) -> None:
    for codec in codecs:
        name = codec if isinstance(codec, str) else codec.get("name", codec.get("id"))
        if name not in _CODECS:
            raise DataError(f"{path}: refused: packed with {printable(name, 80)}, which fpmtools does not open")
        inner = {} if isinstance(codec, str) else codec.get("configuration", {})
        _check_codecs([*inner.get("codecs", []), *inner.get("index_codecs", [])], path)


def _places(axes: Sequence[str], shape: Sequence[int]) -> list[ome.Place]:
    """(c, z, t) of each plane in the order in which they lie."""
    found = []
    for index in np.ndindex(*shape[:-2]):
        at = dict(zip(axes, index, strict=True))
        found.append((at.get("c", 0), at.get("z", 0), at.get("t", 0)))
    return found


def _pixel(
    about: Mapping[str, Any], level: Mapping[str, Any], axes: Sequence[str], said: list[str]
) -> dict[str, float]:
    """The pixel size of a level, where its unit is a length."""
    scale = np.ones(len(axes))
    for step in (*level.get("coordinateTransformations", ()), *about.get("coordinateTransformations", ())):
        if step["type"] == "scale":
            scale = scale * np.asarray(step["scale"], np.float64)
    sides: list[float | None] = []
    for axis, size in zip(about["axes"][-2:], scale[-2:], strict=True):
        factor = ome.UM.get(str(axis.get("unit"))) if isinstance(axis, dict) else None
        sides.append(None if factor is None else float(size) * factor)
    return ome.pixel_um(sides[0], sides[1], said)


def _channels(image: Path, count: int) -> list[str]:
    known = [entry.get("label") for entry in _attributes(image).get("omero", {}).get("channels", [])]
    return [str(name or f"channel {k}") for k, name in enumerate((known + [None] * count)[:count])]


def _unpack(folder: Path, path: Path, size: int, held: int) -> NDArray[Any]:
    try:
        with tempfile.TemporaryDirectory(prefix="fpmtools-") as out:
            most = 2 * size + 4 * child.OVERHEAD_BYTES  # threads and their stacks are address space too
            version = "3" if (folder / "zarr.json").is_file() else "2"  # whose metadata were looked at
            limit_s = child.START_S + (held + size) / child.BYTES_PER_S
            child.run("_zarr_child.py", Path(out), [str(folder.resolve()), out, version], most, limit_s)
            images: NDArray[Any] = np.load(Path(out) / "images.npy", allow_pickle=False)
            return images
    except child.Failure as failure:
        raise failure.of(path, WHAT) from None
    except OSError as error:
        raise child.Failure("no room", str(error)).of(path, WHAT) from None
