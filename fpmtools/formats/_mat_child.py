"""Child process: read a MATLAB or HDF5 file that is not trusted, and leave its numeric arrays as .npy files.

A damaged v5 file can crash SciPy's reader. A v7.3 file is HDF5, which can point at other files, and references in it
can lead mat73 round in circles: :func:`screen` walks it first, and only then does mat73 read it. HDF5 that MATLAB did
not write is read as it is. Memory and time are limited by ``_limited.py``, which runs this.

Of HDF5's real arrays of three dimensions only the place is told, where their numbers lie as they are, or in chunks
that zlib unpacks: at which bytes, see :func:`placed`.

Arguments: the file, an empty folder for the results, the limit in bytes, the names wanted. The file
``result.json`` is either ``{"failed": "refused" | "damaged" | "no room", "why": …}`` or ``{"matlab": whether MATLAB's
order of axes holds, "names": [all names], "shapes": {name of a real array: shape}, "arrays": {name: file}, "places":
{name: place}}``. Nothing of fpmtools is imported.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STRUCT = "saved_data"  # some authors wrap everything in one struct of this name
_BYTES = {"single": 4, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "logical": 1, "char": 2}
_REAL = ("single", "double", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))
_V5 = (b"\x00\x01IM", b"\x01\x00MI")  # version 1.0, then the byte order
_DEFLATE_RATIO = 1100  # deflate cannot compress better than 1032 : 1
_BUILT_IN_FILTERS = 6  # identifiers up to this are part of the HDF5 library; others load plugins
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}  # those that can be undone without it
_CHUNK_BYTES = 1 << 28  # of one that is unpacked without it
_MOST_CHUNKS = 1 << 24


class Refused(Exception):
    """What the file asks for could harm, or reach beyond it."""


class Found(NamedTuple):
    """Names of all variables, shapes of those that are real arrays, and the values of those that are wanted.

    ``places``: of arrays that stay in the file.
    """

    names: list[str]
    shapes: dict[str, list[int]]
    values: dict[str, Any]
    matlab: bool = True
    places: dict[str, dict[str, Any]] | None = None


def main(source: str, folder: str, limit_bytes: int, wanted: list[str]) -> None:
    """Read ``wanted`` (also inside a struct ``saved_data``) from ``source``."""
    out = Path(folder)
    result: dict[str, Any]
    try:
        with open(source, "rb") as file:
            read = read_v5 if file.read(128)[124:] in _V5 else read_hdf5
        found = read(source, out, limit_bytes, wanted)
        numeric = [name for name in wanted if _is_numeric(found.values.get(name))]
        files = {name: f"{i}.npy" for i, name in enumerate(numeric)}
        for name, file_name in files.items():
            np.save(out / file_name, found.values[name], allow_pickle=False)
        known = {"matlab": found.matlab, "names": found.names, "shapes": found.shapes}
        result = {**known, "arrays": files, "places": found.places or {}}
    except Refused as error:
        result = {"failed": "refused", "why": str(error)}
    except MemoryError:
        result = {"failed": "damaged", "why": f"it takes more than the limit of {limit_bytes / 1e9:.3g} GB"}
    except Exception as error:  # both libraries raise almost anything on a damaged file
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        result = {"failed": "no room" if full else "damaged", "why": str(error) or type(error).__name__}
        for path in out.iterdir():
            path.unlink()
    (out / "result.json").write_text(json.dumps(result))


def read_v5(source: str, out: Path, limit_bytes: int, wanted: list[str]) -> Found:
    """A file of version 5; arrays inside a struct ``saved_data`` too."""
    from scipy.io import loadmat, whosmat

    variables = whosmat(source)
    names = [name for name, _, _ in variables]
    declared = sum(math.prod(shape) * _BYTES.get(kind, 8) for name, shape, kind in variables if name in wanted)
    if declared > limit_bytes:
        raise MemoryError
    shapes = {name: list(shape) for name, shape, kind in variables if kind in _REAL}
    values = loadmat(source, variable_names=[*wanted, STRUCT])
    struct = values.pop(STRUCT, None)
    if struct is not None and struct.dtype.names and struct.size == 1:
        inner = {name: struct[name].item() for name in struct.dtype.names}
        names += inner
        shapes |= {n: list(v.shape) for n, v in inner.items() if _is_numeric(v) and v.dtype.kind != "c"}
        values = {**inner, **values}
    return Found(names, shapes, values)


def read_hdf5(source: str, out: Path, limit_bytes: int, wanted: list[str]) -> Found:
    """A file of version 7.3, or any HDF5, once it has passed :func:`screen`; tables of chunks are left in ``out``."""
    import h5py

    with h5py.File(source, "r") as file:
        arrays = screen(file)
        matlab = any("MATLAB_class" in file[name].attrs for name in file)
        shifts = _shifts(out, file.userblock_size)
        found = {at: placed(item, shifts, out) for at, item in arrays.items() if _is_real(item, matlab)}
        places = {at: place for at, place in found.items() if place is not None}
        total = sum(_declared(item) for at, item in arrays.items() if at not in places)
        if total > limit_bytes:
            raise Refused(f"its arrays declare {total / 1e9:.3g} GB, the limit is {limit_bytes / 1e9:.3g} GB")
        if not matlab:
            real = {name: list(arrays[name].shape) for name in found}
            read = [name for name in wanted if name in arrays and name not in places and _is_numeric(arrays[name])]
            return Found(list(arrays), real, {name: arrays[name][()] for name in read}, False, places)
        names = [name for name in file if not name.startswith("#")]
        inner = list(file[STRUCT]) if isinstance(file.get(STRUCT), h5py.Group) else []
        where = {**{name: f"{STRUCT}/{name}" for name in inner}, **{name: name for name in names}}
        shapes = {name: list(arrays[at].shape[::-1]) for name, at in where.items() if at in found}
    include = [where[name] for name in wanted if name in where and where[name] not in places]
    values = {}
    if include:
        import mat73  # here and nowhere else: it is GPL-3.0, and only this kind of file needs it

        values = dict(mat73.loadmat(Path(source), only_include=include, verbose=False))
    struct = values.pop(STRUCT, None)
    stay = {name: places[at] for name, at in where.items() if at in places}
    return Found(names + inner, shapes, {**struct, **values} if isinstance(struct, dict) else values, True, stay)


def placed(item: Any, shifts: tuple[int, int], out: Path) -> dict[str, Any] | None:
    """Where the numbers of a stack of images lie in its file; None where they must be read at once.

    ``{"dtype": …, "shape": …, "offset": first byte}`` where they lie as they are, or ``{…, "chunk": shape, "filters":
    [in the order in which they were applied], "fill": …, "table": file}``: a .npy of [axis, …, (byte, size, mask of
    filters left out)].
    """
    import h5py

    plan, dtype = item.id.get_create_plist(), item.dtype
    if item.ndim != 3 or min(item.shape) < 2 or item.id.get_type() != h5py.h5t.py_create(dtype):
        return None
    place = {"dtype": dtype.str, "shape": list(item.shape)}
    if plan.get_layout() == h5py.h5d.CONTIGUOUS:
        offset = item.id.get_offset()
        return None if offset is None else {**place, "offset": int(offset) + shifts[0]}
    filters = [plan.get_filter(i) for i in range(plan.get_nfilters())]
    odd = any(code not in _FILTERS or (code == 2 and list(how[:1]) != [dtype.itemsize]) for code, _, how, _ in filters)
    odd = odd or any(code == 2 for code, *_ in filters[1:])  # numbers are shuffled, not what has been made of them
    if plan.get_layout() != h5py.h5d.CHUNKED or odd or math.prod(item.chunks) * dtype.itemsize > _CHUNK_BYTES:
        return None
    grid = [-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True)]
    if math.prod(grid) > _MOST_CHUNKS or not hasattr(item.id, "chunk_iter"):
        return None
    found: list[tuple[int, ...]] = []
    item.id.chunk_iter(lambda at: found.append((*at.chunk_offset, at.byte_offset + shifts[1], at.size, at.filter_mask)))
    every, table = np.array(found, np.int64).reshape(-1, 6), np.zeros((*grid, 3), np.int64)
    table[tuple((every[:, :3] // item.chunks).T)] = every[:, 3:]
    file = f"chunks{sum(1 for _ in out.iterdir())}.npy"
    np.save(out / file, table, allow_pickle=False)
    known = {"chunk": list(item.chunks), "filters": [_FILTERS[code] for code, *_ in filters]}
    return {**place, **known, "fill": np.asarray(item.fillvalue, dtype).tobytes().hex(), "table": file}


def _shifts(out: Path, user_block: int) -> tuple[int, int]:
    """What is to be added to the library's first bytes of arrays that lie as they are, and of chunks.

    Some versions count from the file's beginning, and others from behind MATLAB's header, the user block.
    """
    import h5py

    if not user_block:
        return 0, 0
    twin, plain, chunked = out / "twin.h5", bytes(range(64, 96)), bytes(range(96, 128))
    with h5py.File(twin, "w", userblock_size=512) as file:
        at_plain = file.create_dataset("plain", data=np.frombuffer(plain, np.uint8)).id.get_offset()
        item = file.create_dataset("chunked", data=np.frombuffer(chunked, np.uint8), chunks=(32,))
        file.flush()
        at_chunk = item.id.get_chunk_info(0).byte_offset
    content = twin.read_bytes()
    twin.unlink()
    return (
        user_block if content.index(plain) != at_plain else 0,
        user_block if content.index(chunked) != at_chunk else 0,
    )


def screen(file: Any) -> dict[str, Any]:
    """All arrays of an open ``h5py.File`` by their paths; a refusal when it could read, or reserve, more than itself.

    Refused are external storage, external, soft and user-defined links, virtual data sets, named types, filters from
    plugins, groups that are linked twice, and arrays that are larger than what the file stores could ever unpack to.
    """
    import h5py

    groups, seen = [file["/"]], set()
    arrays = {}
    while groups:
        group = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise Refused(f"group {group.name} is linked twice")
        seen.add(address)
        for key in group:
            where = f"{group.name.rstrip('/')}/{key}"
            if not _is_hard_link(group, key):
                raise Refused(f"{where} is a link, not data (it could point to any file)")
            item = group[key]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                _screen_dataset(item, where)
                arrays[where.strip("/")] = item
            else:
                raise Refused(f"{where} is neither a group nor an array")
    return arrays


def _is_hard_link(group: Any, key: str) -> bool:
    import h5py

    with contextlib.suppress(TypeError):  # h5py's answer to a user-defined link
        return isinstance(group.get(key, getlink=True), h5py.HardLink)
    return False


def _declared(item: Any) -> int:
    """The bytes that an array takes, as it says."""
    return int(item.size or 0) * int(item.dtype.itemsize)


def _screen_dataset(item: Any, where: str) -> None:
    """Refuse an HDF5 data set that is not in its file, or cannot be as large as it says."""
    import h5py

    plan = item.id.get_create_plist()
    if plan.get_external_count() > 0:
        raise Refused(f"{where} keeps its values in another file")
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        raise Refused(f"{where} is a virtual data set, made of other files")
    if any(plan.get_filter(i)[0] > _BUILT_IN_FILTERS for i in range(plan.get_nfilters())):
        raise Refused(f"{where} needs a compression plugin")
    declared = _declared(item)
    if declared > _DEFLATE_RATIO * item.id.get_storage_size() + (1 << 20):
        raise Refused(f"{where} declares {declared / 1e9:.3g} GB but stores {item.id.get_storage_size()} bytes")


def _is_numeric(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is not None and dtype.kind in "biufc"


def _is_real(item: Any, matlab: bool) -> bool:
    """Whether an HDF5 array is of real numbers; MATLAB's text and logical values are numbers, too."""
    if item.dtype.kind not in "iuf":
        return False
    kind = item.attrs.get("MATLAB_class")
    return not matlab or (kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)) in _REAL


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
