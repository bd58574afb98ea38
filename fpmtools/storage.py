"""Files that survive: written to a temporary name, synced, renamed; every byte checked; nothing runs on opening.

Arrays are kept in the layout of safetensors: eight bytes with the length of a JSON header, the header, the data. The
header begins with a SHA-256 over the whole file, in which those 64 digits themselves count as zeros.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpmtools.errors import DataError, OutputError
from fpmtools.interrupts import ended_by, postponed

try:
    import fcntl
except ImportError:  # not on Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

FORMAT_VERSION = 2
SCRATCH_BYTES = 1 << 27  # what a scratch array may take up in memory
PART_BYTES = 1 << 24
HEADER_LIMIT = 100 << 20  # bytes, as in the safetensors library
DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_DTYPE_NAMES = {dtype[1:]: name for name, dtype in DTYPES.items()}
_DIGEST_AT = b'{"__metadata__": {"sha256": "'  # what every header begins with; 64 hexadecimal digits follow
_NO_DIGEST = b"0" * 64
_LEFT_OVER = re.compile(r"\..+\.[a-z0-9_]{8}\.part", re.DOTALL)


def cache_dir() -> Path | None:
    """The platform's folder for the user's caches; None for a user without a home folder."""
    import platformdirs

    with contextlib.suppress(OSError, RuntimeError, KeyError):
        folder = os.path.expanduser(platformdirs.user_cache_dir("fpmtools", appauthor=False))
        return None if folder.startswith("~") else Path(folder)  # without a home folder, ~ stays
    return None


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, sync it, and rename it into place.

    Raises :class:`OutputError` when the disk is full or the folder cannot be written; an older file at ``path`` is
    then untouched.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path) as (handle, temporary):
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError.of(error, path) from error
    return path


def place(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` make a file or a folder of this name in a temporary folder, sync it, and rename it into place.

    What was at ``path``, a folder with all that is in it too, goes once the new one is complete. A signal that ends the
    process while ``write`` is at work leaves nothing behind, other than one that cannot be caught. Raises
    :class:`OutputError` as :func:`write_atomic` does, also where ``write`` has made nothing.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent) as folder:
            made, old = Path(folder, path.name), Path(folder, "old" if path.name != "old" else "older")
            with ended_by(lambda: shutil.rmtree(folder, ignore_errors=True)):
                write(made)
                if not made.exists():
                    raise OutputError(f"{path}: nothing was written")
                _sync_all(made)
            with postponed():
                _swap(path, made, old)
            _sync_folder(path.parent)
    except OSError as error:
        raise OutputError.of(error, path) from error
    return path


def _swap(path: Path, made: Path, old: Path) -> None:
    """Put ``made`` at ``path``; what is there, if no rename replaces it, goes to ``old``, and comes back on failure."""
    if os.path.lexists(path) and (path.is_dir() or made.is_dir()):
        os.rename(path, old)
    try:
        os.replace(made, path)
    except OSError:
        if os.path.lexists(old):
            os.rename(old, path)
        raise


def _sync_all(made: Path) -> None:
    """Let a file, or all files of a folder and their names, outlast a power cut."""
    files = [made] if made.is_file() else [Path(place, name) for place, _, names in os.walk(made) for name in names]
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    for folder in {file.parent for file in files}:
        _sync_folder(folder)


def sweep(folder: str | Path) -> list[Path]:
    """Remove what killed processes left in ``folder`` of files that they were writing; returns what was removed.

    A file that a living process is writing, in whatever folder, stays: it is locked. Subfolders are not looked into.
    """
    removed = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(Path(folder).iterdir()):
            if _LEFT_OVER.fullmatch(path.name) and not path.is_symlink() and path.is_file():
                with contextlib.suppress(OSError), path.open("rb") as file:
                    if fcntl:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    removed.append(path)
    return removed


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[int, str]]:
    """A new file beside ``path``, open and locked for as long as this lasts, and then gone unless it was renamed."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
        with contextlib.ExitStack() as locked:
            if fcntl:
                lock = os.dup(handle)  # of the same open file: it outlives the one that is written to
                locked.callback(os.close, lock)
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.lexists(name):  # swept before it was locked
                os.close(handle)
                continue
            try:
                yield handle, name
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
            return


def _sync_folder(folder: Path) -> None:
    """Let a rename in ``folder`` outlast a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Atomically write ``content``."""
    return write_atomic(path, lambda file: file.write(content))


def write_json(path: str | Path, value: Any) -> Path:
    """Atomically write ``value`` as indented JSON (no NaN or infinity: they become null)."""
    return write_bytes(path, to_json(value, indent=2) + b"\n")


def to_json(value: Any, indent: int | None = None) -> bytes:
    """``value`` as strict JSON in UTF-8.

    Bytes of a path that are not UTF-8 become escapes of lone surrogates, from which :func:`json.loads` makes the same
    path again.
    """
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace")


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
    """Write arrays and a JSON header as one safetensors file; ``kind`` says what the file is."""
    arrays = {name: np.asarray(array, array.dtype.newbyteorder("="), order="C") for name, array in tensors.items()}
    double = sorted(name for name, array in arrays.items() if array.dtype == np.complex128)  # unknown to safetensors
    arrays |= {name: arrays[name][..., None].view(np.float64) for name in double}
    info = {"format": FORMAT_VERSION, "what": kind, "complex128": double, "header": finite(header)}
    # Written here and not by the library, which would hold two more copies of every array and knows no checksum.
    table: dict[str, Any] = {"__metadata__": {"sha256": _NO_DIGEST.decode(), "fpmtools": json.dumps(info)}}
    offset = 0
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):
        end = offset + arrays[name].nbytes
        dtype, shape = _DTYPE_NAMES[arrays[name].dtype.str[1:]], list(arrays[name].shape)
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    head = len(head).to_bytes(8, "little") + head

    def write(file: IO[bytes]) -> None:
        sha = hashlib.sha256(head)
        file.write(head)
        for name in list(table)[1:]:
            for part in _parts(arrays[name]):
                sha.update(part)
                file.write(part)
        file.seek(8 + len(_DIGEST_AT))
        file.write(sha.hexdigest().encode())

    return write_atomic(path, write)


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote: arrays and header.

    Raises :class:`DataError` when the file is missing, of another kind, truncated or too long, or when any of its
    bytes is not the one that was written.
    """
    arrays, header, _ = read_parts(path, kind, lambda name, size: False)
    return arrays, header


def read_parts(
    path: str | Path, kind: str, stays: Callable[[str, int], bool]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, Part]]:
    """The same, and where those arrays lie that stay in the file, as ``stays(name, bytes)`` says of each.

    Their bytes are checked too.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        with path.open("rb") as file:
            return _read(file, kind, path, stays)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: not a readable fpmtools file ({' '.join(str(error).split())[:200]})") from error


def _read(
    file: IO[bytes], kind: str, path: Path, stays: Callable[[str, int], bool]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, Part]]:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not len(_DIGEST_AT) < length <= min(HEADER_LIMIT, size - 8):
        raise ValueError("its header is damaged or cut off")
    head = file.read(length)
    table = json.loads(head)
    info = json.loads(table.pop("__metadata__")["fpmtools"])
    if info["what"] != kind:
        raise DataError(f"{path}: not an fpmtools {kind} file")
    if info["format"] != FORMAT_VERSION:
        raise DataError(
            f"{path}: written in format {info['format']}, and this fpmtools reads format {FORMAT_VERSION}: make it "
            "again, or use the version that wrote it"
        )
    parts = _places(table, size - 8 - length)
    arrays: dict[str, NDArray[Any]] = {}
    at = len(_DIGEST_AT)
    sha = hashlib.sha256(length.to_bytes(8, "little") + head[:at] + _NO_DIGEST + head[at + len(_NO_DIGEST) :])
    room = memoryview(bytearray(PART_BYTES if any(stays(name, part.n_bytes) for name, part in parts.items()) else 0))
    left: dict[str, Part] = {}
    for name, place_ in parts.items():
        flat = None
        if stays(name, place_.n_bytes):
            left[name] = replace(place_, offset=8 + length + place_.offset)
        else:
            arrays[name] = np.empty(place_.shape, place_.dtype)
            flat = memoryview(arrays[name].reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        for begin in range(0, place_.n_bytes, PART_BYTES):
            end = min(begin + PART_BYTES, place_.n_bytes)
            part = room[: end - begin] if flat is None else flat[begin:end]
            if file.readinto(part) != len(part):  # type: ignore[attr-defined]
                raise ValueError("it is cut off")
            sha.update(part)
    if head[at : at + len(_NO_DIGEST)] != sha.hexdigest().encode():
        raise DataError(f"{path}: damaged: its checksum does not match")
    arrays |= {name: arrays[name].view(np.complex128)[..., 0] for name in info["complex128"]}
    return arrays, info["header"], left


@dataclass(frozen=True)
class Part:
    """Where an array lies in a file: its first byte, shape and type."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


def _places(table: Mapping[str, Any], size: int) -> dict[str, Part]:
    """Where the arrays lie in the ``size`` bytes of data that a header lists, one after the other."""
    parts: dict[str, Part] = {}
    offset = 0
    for name, entry in table.items():
        dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
        end = offset + math.prod(shape) * dtype.itemsize
        if entry["data_offsets"] != [offset, end] or min([end, *shape]) < 0 or end > size:
            raise ValueError(f"{name} does not lie where its header says, or the file is cut off")
        parts[name] = Part(offset, tuple(shape), dtype)
        offset = end
    if offset != size:
        raise ValueError(f"it holds {size} bytes of data, and its header lists {offset}")
    return parts


def _parts(array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of a contiguous array, little by little."""
    flat = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8)
    for begin in range(0, flat.size, PART_BYTES):
        yield memoryview(flat[begin : begin + PART_BYTES])  # type: ignore[arg-type]
        release(array)


class _Spilled(mmap.mmap):
    """The memory of a scratch array: shared with its file, so that nothing is lost when it is taken away."""


def scratch(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A zeroed array; a large one in an unnamed temporary file, which :func:`release` takes out of memory.

    The file is reserved in full beforehand, in the system's folder for temporary files (``TMPDIR``); where the disk
    has no room for it the array is in memory after all.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > SCRATCH_BYTES and hasattr(os, "posix_fallocate"):
        with contextlib.suppress(OSError), tempfile.TemporaryFile(prefix="fpmtools-") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.ndarray(shape, dtype, _Spilled(file.fileno(), size))
    return np.zeros(shape, dtype)


def slices(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The parts of an array along its first axis, each taken out of memory again where :func:`release` can."""
    for part in array if array.ndim > 1 else [array]:
        yield part
        release(array)


def release(array: NDArray[Any]) -> None:
    """Take an array of :func:`scratch`, or a view of it, out of memory until it is next used; others stay.

    Another's memory map must stay: what was written into a private one would be lost.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, _Spilled) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)


def kind_of(path: str | Path) -> str:
    """What a file of :func:`write_tensors` says that it is; empty where it says nothing, or is another's."""
    broken = (OSError, ValueError, LookupError, TypeError, RecursionError)
    with contextlib.suppress(*broken), Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, 1 << 24)))
        return str(json.loads(header["__metadata__"]["fpmtools"])["what"])
    return ""
