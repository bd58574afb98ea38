"""MATLAB files, read without trusting them.

v7.3 files are HDF5, which can point at other files: :func:`screen` walks the file with h5py first, and only then does
mat73 read it. v5 files are parsed in a child process, because a damaged one can crash SciPy's reader.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError

LIMIT_BYTES = 8 << 30  # of all variables together
TIMEOUT_S = 300.0
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512  # where MATLAB puts the HDF5 signature, after its text header
_DEFLATE_RATIO = 1100  # deflate cannot compress better than 1032 : 1
_BUILT_IN_FILTERS = 6  # identifiers up to this are part of the HDF5 library; others load plugins
_STRUCT = "saved_data"  # some authors wrap everything in one struct of this name


@dataclass(frozen=True)
class MatFile:
    """Some variables of a MATLAB file, and the names of all of them."""

    path: Path
    arrays: Mapping[str, NDArray[Any]]
    names: tuple[str, ...]

    def array(self, key: str) -> NDArray[Any]:
        """The variable ``key``; :class:`DataError` when it is absent or no numeric array."""
        if key in self.arrays:
            return self.arrays[key]
        if key in self.names:
            raise DataError(f"{self.path.name}: variable {key} is not a numeric array")
        raise DataError(f"{self.path.name}: has no variable {key} (found: {', '.join(self.names) or 'none'})")

    def number(self, key: str) -> float:
        """The variable ``key`` as one number."""
        value = self.array(key)
        if value.size != 1 or value.dtype.kind not in "biuf":
            raise DataError(f"{self.path.name}: {key} must be one number, got {value.dtype} of shape {value.shape}")
        return float(value.reshape(()))


def is_matlab(head: bytes) -> bool:
    """Whether a file's first kilobyte is a MATLAB v5 or v7.3 (HDF5) header."""
    return _is_v5(head) or HDF5_SIGNATURE in (head[:8], head[_USER_BLOCK : _USER_BLOCK + 8])


def read(
    path: str | Path, wanted: Collection[str], *, limit_bytes: int = LIMIT_BYTES, timeout_s: float = TIMEOUT_S
) -> MatFile:
    """Read the variables ``wanted`` that the file has, at the top or inside a struct ``saved_data``.

    Axes are MATLAB's, [row, column, page]; numbers are arrays of one element.

    Raises
    ------
    DataError
        When the file is missing, damaged, no MATLAB file, larger than ``limit_bytes``, points outside itself, or takes
        longer than ``timeout_s`` to parse.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not is_matlab(head):
        raise DataError(f"{path}: not a MATLAB v5 or v7.3 file")
    if _is_v5(head):
        return _read_v5(path, wanted, limit_bytes, timeout_s)
    return _read_v73(path, wanted, limit_bytes)


def _is_v5(head: bytes) -> bool:
    return head[124:128] in (b"\x00\x01IM", b"\x01\x00MI")  # version 1.0, then the byte order


# ---------------------------------------------------------------- v5, in a child process


def _read_v5(path: Path, wanted: Collection[str], limit_bytes: int, timeout_s: float) -> MatFile:
    script = Path(__file__).with_name("_mat5.py")
    # One thread: each thread of a BLAS reserves address space, which is limited.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="fpmtools-") as folder:
        command = [
            sys.executable,
            "-P",
            str(script),
            str(path.resolve()),
            folder,
            str(limit_bytes),
            *wanted,
        ]
        try:
            run = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"{path}: gave up after {timeout_s:g} s; is the file damaged?") from None
        try:
            result = json.loads((Path(folder) / "result.json").read_text())
        except (OSError, ValueError):
            raise DataError(f"{path}: damaged: it crashed the MATLAB v5 reader (exit {run.returncode})") from None
        if "error" in result:
            raise DataError(f"{path}: damaged, truncated or too large MATLAB v5 file ({_one_line(result['error'])})")
        arrays = {name: np.load(Path(folder) / file, allow_pickle=False) for name, file in result["arrays"].items()}
    return MatFile(path, arrays, tuple(result["names"]))


# ---------------------------------------------------------------- v7.3, screened first


def _read_v73(path: Path, wanted: Collection[str], limit_bytes: int) -> MatFile:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            screen(file, limit_bytes)
            names = [name for name in file if not name.startswith("#")]
            inner = list(file[_STRUCT]) if isinstance(file.get(_STRUCT), h5py.Group) else []
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged or truncated MATLAB v7.3 file ({_one_line(error)})") from error
    include = [name for name in wanted if name in names] + [f"{_STRUCT}/{name}" for name in wanted if name in inner]
    found = _mat73(path, include) if include else {}
    struct = found.pop(_STRUCT, None)
    if isinstance(struct, dict):
        found = {**struct, **found}
    arrays = {name: np.asarray(found[name]) for name in wanted if isinstance(found.get(name), np.ndarray | np.generic)}
    return MatFile(path, arrays, tuple(names + inner))


def _mat73(path: Path, include: list[str]) -> dict[str, Any]:
    # Imported here and nowhere else: mat73 is GPL-3.0, and only this kind of file needs it.
    import mat73

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of variables that are there, past verbose=False
    try:
        return dict(mat73.loadmat(path, only_include=include, verbose=False))
    except Exception as error:  # mat73 raises almost anything on an unusual file
        raise DataError(f"{path}: mat73 cannot read it ({_one_line(error) or type(error).__name__})") from error
    finally:
        logging.disable(disabled)


def screen(file: Any, limit_bytes: int = LIMIT_BYTES) -> None:
    """Refuse an open ``h5py.File`` that could read, or reserve, more than itself.

    Raises :class:`DataError` for external storage, external, soft and user-defined links, virtual data sets, named
    types, filters from plugins, groups that are linked twice, and arrays that are larger than ``limit_bytes`` together
    or than what the file stores could ever unpack to.
    """
    import h5py

    name = Path(file.filename).name
    groups, total, seen = [file["/"]], 0, set()
    while groups:
        group = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise DataError(f"{name}: refused: group {group.name} is linked twice")
        seen.add(address)
        for key in group:
            where = f"{group.name.rstrip('/')}/{key}"
            if not _is_hard_link(group, key):
                raise DataError(f"{name}: refused: {where} is a link, not data (it could point to any file)")
            item = group[key]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                total += _screen_dataset(item, f"{name}: refused: {where}")
            else:
                raise DataError(f"{name}: refused: {where} is neither a group nor an array")
            if total > limit_bytes:
                raise DataError(
                    f"{name}: refused: its arrays declare {total / 1e9:.3g} GB, the limit is {limit_bytes / 1e9:.3g} GB"
                )


def _is_hard_link(group: Any, key: str) -> bool:
    import h5py

    with contextlib.suppress(TypeError):  # h5py's answer to a user-defined link
        return isinstance(group.get(key, getlink=True), h5py.HardLink)
    return False


def _screen_dataset(item: Any, refused: str) -> int:
    """Bytes that an HDF5 data set declares."""
    import h5py

    plan = item.id.get_create_plist()
    if plan.get_external_count() > 0:
        raise DataError(f"{refused} keeps its values in another file")
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        raise DataError(f"{refused} is a virtual data set, made of other files")
    if any(plan.get_filter(i)[0] > _BUILT_IN_FILTERS for i in range(plan.get_nfilters())):
        raise DataError(f"{refused} needs a compression plugin")
    declared = int(item.size or 0) * int(item.dtype.itemsize)
    if declared > _DEFLATE_RATIO * item.id.get_storage_size() + (1 << 20):
        raise DataError(f"{refused} declares {declared / 1e9:.3g} GB but stores {item.id.get_storage_size()} bytes")
    return declared


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
