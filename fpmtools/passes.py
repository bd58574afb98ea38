"""What passes over images that stay in their files have told, kept in the user's cache folder for the next time.

A pass is not repeated while the files have the names, sizes and times of change (ns) that they had: what is kept is
found by these, by what is read of the files and by the versions of what computed it. It is no more than a
shortcut: where it is missing, damaged or cannot be written the pass is done, and nobody is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

import fpmtools
from fpmtools import storage
from fpmtools.errors import FpmError

VERSION = 1  # of what the passes compute; another one forgets all
LEAST_BYTES = 1 << 27  # of images in float32: fewer are read again in no time
SETTLED_S = 3.0  # a file that was changed less long ago may change again within the same tick of its file system
MOST = 500  # files that are kept, the newest
_KIND, _FOLDER = "pass", "passes"

Arrays = Mapping[str, NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """Names what a source reads, the state of its files included; ``changed_ns`` is when the last of them changed."""

    text: str
    changed_ns: int

    def part(self, of: object) -> Identity:
        """A part of it, or what is made of it."""
        return Identity(f"{self.text} | {of}", self.changed_ns)


def of_source(source: object) -> Identity | None:
    """What a source reads, if it says so: an array in memory does not."""
    found = getattr(source, "identity", None)
    return found if isinstance(found, Identity) else None


class Images(Protocol):
    """What looks like :class:`fpmtools.images.Images`."""

    @property
    def identity(self) -> Identity | None: ...

    @property
    def n_bytes(self) -> int: ...


def kept(
    images: Images, name: str, find: Callable[[], T], dump: Callable[[T], Arrays | None], restore: Callable[[Arrays], T]
) -> T:
    """What ``find`` tells of ``images``, now or before, as arrays from ``dump`` to ``restore``.

    ``name`` says what it is; ``dump`` gives None for what is not to be kept.
    """
    if images.n_bytes < LEAST_BYTES or (identity := images.identity) is None:
        return find()
    if (folder := storage.cache_dir()) is None:
        return find()
    versions = (VERSION, fpmtools.__version__, np.__version__)
    key = hashlib.sha256(repr((identity.text, name, versions)).encode(errors="surrogatepass")).hexdigest()
    file = folder / _FOLDER / f"{key[:40]}.safetensors"
    with contextlib.suppress(FpmError, LookupError, TypeError, ValueError):
        if file.is_file():
            return restore(storage.read_tensors(file, _KIND)[0])
    found = find()
    arrays = dump(found)
    if arrays is not None and time.time_ns() - identity.changed_ns > SETTLED_S * 1e9:
        with contextlib.suppress(FpmError, OSError):
            storage.write_tensors(file, arrays, _KIND, {"name": name.partition(" ")[0]})
            _prune(file.parent)
    return found


def _prune(folder: Path) -> None:
    """Keep the newest files only, and nothing of processes that were killed while they wrote."""
    storage.sweep(folder)
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[:-MOST]:
        file.unlink(missing_ok=True)
