"""Child process: read a MATLAB or HDF5 file that is not trusted, and leave its numeric arrays as .npy files.

A damaged v5 file can crash SciPy's reader. A v7.3 file is HDF5, which can point at other files, and references in it
can lead mat73 round in circles: :func:`screen` walks it first, and only then does mat73 read it. HDF5 that MATLAB did
not write is read as it is. Memory and time are limited by ``_limited.py``, which runs this.

Arguments: the file, an empty folder for the results, the limit in bytes, the names wanted. The file
``result.json`` is either ``{"failed": "refused" | "damaged" | "no room", "why": …}`` or ``{"matlab": whether MATLAB's
order of axes holds, "names": [all names], "shapes": {name of a real array: shape}, "arrays": {name: file}}``. Nothing
of fpmtools is imported.
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


class Refused(Exception):
    """What the file asks for could harm, or reach beyond it."""


class Found(NamedTuple):
    """Names of all variables, shapes of those that are real arrays, and the values of those that are wanted."""

    names: list[str]
    shapes: dict[str, list[int]]
    values: dict[str, Any]
    matlab: bool = True


def main(source: str, folder: str, limit_bytes: int, wanted: list[str]) -> None:
    """Read ``wanted`` (also inside a struct ``saved_data``) from ``source``."""
    out = Path(folder)
    result: dict[str, Any]
    try:
        with open(source, "rb") as file:
            read = read_v5 if file.read(128)[124:] in _V5 else read_hdf5
        found = read(source, limit_bytes, wanted)
        numeric = [name for name in wanted if _is_numeric(found.values.get(name))]
        files = {name: f"{i}.npy" for i, name in enumerate(numeric)}
        for name, file_name in files.items():
            np.save(out / file_name, found.values[name], allow_pickle=False)
        result = {"matlab": found.matlab, "names": found.names, "shapes": found.shapes, "arrays": files}
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


def read_v5(source: str, limit_bytes: int, wanted: list[str]) -> Found:
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


def read_hdf5(source: str, limit_bytes: int, wanted: list[str]) -> Found:
    """A file of version 7.3, or any HDF5, once it has passed :func:`screen`."""
    import h5py

    with h5py.File(source, "r") as file:
        arrays = screen(file, limit_bytes)
        if not any("MATLAB_class" in file[name].attrs for name in file):
            real = {name: list(item.shape) for name, item in arrays.items() if item.dtype.kind in "iuf"}
            values = {name: arrays[name][()] for name in wanted if name in arrays and _is_numeric(arrays[name])}
            return Found(list(arrays), real, values, matlab=False)
        names = [name for name in file if not name.startswith("#")]
        inner = list(file[STRUCT]) if isinstance(file.get(STRUCT), h5py.Group) else []
        places = {**{name: f"{STRUCT}/{name}" for name in inner}, **{name: name for name in names}}
        shapes = {name: list(arrays[at].shape[::-1]) for name, at in places.items() if _is_real(arrays.get(at))}
    include = [places[name] for name in wanted if name in places]
    values = {}
    if include:
        import mat73  # here and nowhere else: it is GPL-3.0, and only this kind of file needs it

        values = dict(mat73.loadmat(Path(source), only_include=include, verbose=False))
    struct = values.pop(STRUCT, None)
    return Found(names + inner, shapes, {**struct, **values} if isinstance(struct, dict) else values)


def screen(file: Any, limit_bytes: int) -> dict[str, Any]:
    """All arrays of an open ``h5py.File`` by their paths; a refusal when it could read, or reserve, more than itself.

    Refused are external storage, external, soft and user-defined links, virtual data sets, named types, filters from
    plugins, groups that are linked twice, and arrays that are larger than ``limit_bytes`` together or than what the
    file stores could ever unpack to.
    """
    import h5py

    groups, total, seen = [file["/"]], 0, set()
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
                total += _screen_dataset(item, where)
                arrays[where.strip("/")] = item
            else:
                raise Refused(f"{where} is neither a group nor an array")
            if total > limit_bytes:
                raise Refused(f"its arrays declare {total / 1e9:.3g} GB, the limit is {limit_bytes / 1e9:.3g} GB")
    return arrays


def _is_hard_link(group: Any, key: str) -> bool:
    import h5py

    with contextlib.suppress(TypeError):  # h5py's answer to a user-defined link
        return isinstance(group.get(key, getlink=True), h5py.HardLink)
    return False


def _screen_dataset(item: Any, where: str) -> int:
    """Bytes that an HDF5 data set declares."""
    import h5py

    plan = item.id.get_create_plist()
    if plan.get_external_count() > 0:
        raise Refused(f"{where} keeps its values in another file")
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        raise Refused(f"{where} is a virtual data set, made of other files")
    if any(plan.get_filter(i)[0] > _BUILT_IN_FILTERS for i in range(plan.get_nfilters())):
        raise Refused(f"{where} needs a compression plugin")
    declared = int(item.size or 0) * int(item.dtype.itemsize)
    if declared > _DEFLATE_RATIO * item.id.get_storage_size() + (1 << 20):
        raise Refused(f"{where} declares {declared / 1e9:.3g} GB but stores {item.id.get_storage_size()} bytes")
    return declared


def _is_numeric(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is not None and dtype.kind in "biufc"


def _is_real(item: Any) -> bool:
    """Whether an HDF5 array is one of MATLAB's real arrays (its text is numbers, too)."""
    if item is None or item.dtype.kind not in "iuf":
        return False
    kind = item.attrs.get("MATLAB_class")
    return (kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)) in _REAL


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
