"""Files that survive: written to a temporary name, synced, renamed; with checksums; nothing runs on opening."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, OutputError

FORMAT_VERSION = 1


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
    return write_bytes(path, (json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n").encode())


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
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    info = {"format": FORMAT_VERSION, "what": kind, "sha256": _digest(arrays), "header": finite(header)}
    return write_bytes(path, save(arrays, metadata={"fpmtools": json.dumps(info)}))


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
    return tensors, info["header"]


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(f"{name}:{arrays[name].dtype.str}:{arrays[name].shape}".encode())
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()
