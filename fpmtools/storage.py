"""Files that survive: written to a temporary name, synced, renamed; with checksums; nothing runs on opening."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpmtools.errors import DataError, OutputError

FORMAT_VERSION = 1
SCRATCH_BYTES = 1 << 27  # what a scratch array may take up in memory
PART_BYTES = 1 << 24
SAFETENSORS_NAMES = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "f2": "F16", "u4": "U32", "i4": "I32", "f4": "F32",
    "u8": "U64", "i8": "I64", "f8": "F64", "c8": "C64",
}  # fmt: skip


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, sync it, and rename it into place.

    Raises :class:`OutputError` when the disk is full or the folder cannot be written; an older file at ``path`` is
    then untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return path


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Atomically write ``content``."""
    return write_atomic(path, lambda file: file.write(content))


def write_json(path: str | Path, value: Any) -> Path:
    """Atomically write ``value`` as indented JSON (no NaN or infinity: they become null)."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n"
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))  # a path's odd bytes become JSON's own escapes


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process has begun to write in ``folder``; only for who holds the folder's lock."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """``value`` with NumPy's arrays and scalars as Python's and non-finite numbers as None, ready for strict JSON."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_tensors(path: str | Path, tensors: Mapping[str, NDArray[Any]], kind: str, header: Mapping[str, Any]) -> Path:
    """Write real arrays and a JSON header as one safetensors file; ``kind`` says what the file is."""
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    double = sorted(name for name, array in arrays.items() if array.dtype == np.complex128)  # unknown to safetensors
    arrays |= {name: arrays[name].view(np.float64) for name in double}
    info = {"format": FORMAT_VERSION, "what": kind, "sha256": _digest(arrays), "header": finite(header)}
    if double:
        info["complex128"] = double
    # Written here and not by the library, which would hold two more copies of every array.
    table: dict[str, Any] = {"__metadata__": {"fpmtools": json.dumps(info)}}
    offset = 0
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):
        end = offset + arrays[name].nbytes
        dtype, shape = arrays[name].dtype, list(arrays[name].shape)
        table[name] = {"dtype": SAFETENSORS_NAMES[dtype.str[1:]], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)

    def write(file: IO[bytes]) -> None:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in list(table)[1:]:
            for part in _parts(arrays[name]):
                file.write(part)

    return write_atomic(path, write)


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote: arrays and header.

    Raises :class:`DataError` when the file is missing, of another kind, truncated, or its checksum does not match.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            info = json.loads((file.metadata() or {}).get("fpmtools", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable fpmtools file ({error})") from error
    if not isinstance(info, dict) or info.get("what") != kind:
        raise DataError(f"{path}: not an fpmtools {kind} file")
    if info.get("format") != FORMAT_VERSION:
        raise DataError(f"{path}: written in format {info.get('format')}; this fpmtools reads format {FORMAT_VERSION}")
    if info.get("sha256") != _digest(tensors):
        raise DataError(f"{path}: damaged: the checksum of its tensors does not match")
    tensors |= {name: tensors[name].view(np.complex128) for name in info.get("complex128", ())}
    return tensors, info["header"]


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(f"{name}:{arrays[name].dtype.str}:{arrays[name].shape}".encode())
        for part in _parts(np.asarray(arrays[name], order="C")):
            sha.update(part)
    return sha.hexdigest()


def _parts(array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of a contiguous array, little by little."""
    flat = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8)
    for begin in range(0, flat.size, PART_BYTES):
        yield memoryview(flat[begin : begin + PART_BYTES])  # type: ignore[arg-type]
        release(array)


def scratch(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A zeroed array; a large one in an unnamed temporary file, which :func:`release` takes out of memory.

    The file is reserved in full beforehand, in the system's folder for temporary files (``TMPDIR``); where the disk
    has no room for it the array is in memory after all.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > SCRATCH_BYTES and hasattr(os, "posix_fallocate"):
        with contextlib.suppress(OSError), tempfile.TemporaryFile(prefix="fpmtools-") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    return np.zeros(shape, dtype)


def slices(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The parts of an array along its first axis, each taken out of memory again where :func:`release` can."""
    for part in array if array.ndim > 1 else [array]:
        yield part
        release(array)


def release(array: NDArray[Any]) -> None:
    """Take an array of :func:`scratch`, or a view of it, out of memory until it is next used; others stay."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: the file keeps what was written
