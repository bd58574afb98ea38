"""Parts of a plane that are made once and needed twice: they wait on the disk, for memory may not hold them."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.optics import Box

Field = NDArray[np.complex64]


class Once:
    """``read(box)``, but for what was kept; in a ``with`` block, at whose end that goes.

    Parameters
    ----------
    read
        Makes the pixels in a box (y, x, height, width) of the plane, complex64 [..., y, x].
    room
        The folder for a file that has no name, and so never stays behind. Without one, or where its disk becomes full,
        nothing is kept, and what is asked for again is made again.
    """

    def __init__(self, read: Callable[[Box], Field], room: Path | None) -> None:
        self._read, self._room = read, room
        self._file: IO[bytes] | None = None
        self._kept: dict[Box, tuple[int, tuple[int, ...]]] = {}  # where each begins, and its shape
        self._last: tuple[Box, Field] | None = None  # asked for by whoever then wants to see all, this one first

    def __enter__(self) -> Once:
        return self

    def __exit__(self, *error: object) -> None:
        self._forget()

    def __call__(self, box: Box) -> Field:
        """The pixels in a box, which are not the caller's to change."""
        if box in self._kept and self._file is not None:
            start, shape = self._kept[box]
            self._file.seek(start)
            return np.frombuffer(self._file.read(8 * math.prod(shape)), np.complex64).reshape(shape)
        if self._last is None or self._last[0] != box:
            self._last = None
            self._last = box, self._read(box)
        return self._last[1]

    def keep(self, box: Box) -> Field:
        """The same, and it will be there when it is next asked for."""
        part = self(box)
        if self._room is not None and box not in self._kept:
            try:
                self._append(box, part)
            except OSError:
                self._forget()
        return part

    def _append(self, box: Box, part: NDArray[Any]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._room)  # noqa: SIM115 (closed at the end of the block)
        self._kept[box] = self._file.seek(0, 2), part.shape
        self._file.write(np.ascontiguousarray(part, np.complex64).data)
        self._file.flush()

    def _forget(self) -> None:
        self._kept.clear()
        self._room = self._last = None
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a full disk, which is told of by now
                self._file.close()
            self._file = None
