"""Results into the files of other programs: which writer a name means, what may be replaced, what is to be told."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fpmtools import registry, storage
from fpmtools.errors import OptionError, OutputError, expect, printable, unknown
from fpmtools.progress import bar
from fpmtools.records import WriterRecord

if TYPE_CHECKING:
    from fpmtools.formats.volume import Volume
    from fpmtools.optics import Shape
    from fpmtools.progress import Show
    from fpmtools.reconstruction import Reconstruction
    from fpmtools.registry import Supplied

    Writer: TypeAlias = Supplied[WriterRecord]

SOON_S = 0.5  # what takes no longer needs no bar


def export(
    reconstruction: Reconstruction,
    path: str | Path,
    *,
    z_um: float | Sequence[float] | None = None,
    shape: Shape | None = None,
    format: str | None = None,  # what everyone calls it, even if it hides a builtin
    channels: Sequence[str] | None = None,
    name: str = "",
    force: bool = False,
    progress: bool = True,
) -> list[str]:
    """Write a reconstruction into a file that other programs open.

    Parameters
    ----------
    path
        The end of its name says which format; what is there already stays, and is an error, without ``force``.
    z_um
        One z or several, ascending; default: the only one that the reconstruction has.
    shape
        (y, x) of the planes; default: the reconstruction's.
    format
        Name of a writer, in place of the one that the path's end means.
    channels
        ``"amplitude"``, ``"phase"`` (rad), ``"path"`` (nm) and ``"intensity"`` of formats that hold real numbers;
        default: the first 2, of a result in several colours the intensity of each.
    name
        What the image is called in the file; default: the file's own name.
    progress
        Whether many planes or tiles show a bar, in a terminal and in a notebook.

    Returns
    -------
    list of str
        What the format could not say as it is, a line for each.

    Raises
    ------
    OptionError
        When no writer has such a suffix or name, or it cannot hold what is asked for.
    OutputError
        When the file is there already, or cannot be written.
    """
    from fpmtools.dataset import as_planes
    from fpmtools.formats.volume import Volume
    from fpmtools.reconstruction import Reconstruction

    expect(reconstruction, Reconstruction, "export: reconstruction", "a Reconstruction")
    expect(path, (str, Path), "export: path", "a path")
    expect(shape or (1, 1), (tuple, list), "export: shape", "two whole numbers (y, x)")
    expect(name, str, "export: name", "a text")
    path = Path(path)
    writer = writer_for(path, format)
    low, high = reconstruction.grid.z_range
    if z_um is None and low != high:
        raise OptionError(f"the reconstruction covers z from {low:g} to {high:g} µm: say which z")
    planes = [low] if z_um is None else as_planes(z_um)
    check(writer, path, len(planes), channels)
    claim(writer, path, force)
    called = name or path.name.partition(".")[0] or "reconstruction"
    volume = Volume.of(reconstruction, planes, shape, channels, called)
    with bar(path.name, progress) as show:
        return write(writer, path, volume, show)


def writer_for(path: Path, name: str | None = None) -> Writer:
    """The writer called ``name``, or the one whose suffix, the longest that fits, ``path`` has.

    Those of fpmtools come first; only what they do not have is looked for in other packages. Raises
    :class:`OptionError` with those that there are.
    """
    own = list(registry.built_in_writers())
    if found := _named(own, name) if name is not None else _by_suffix(own, path):
        return found
    every = registry.writers()
    if found := _named(every, name) if name is not None else _by_suffix(every, path):
        return found
    if name is not None:
        raise unknown("format", name, [writer.record.name for writer in every])
    known = ", ".join(suffix for writer in every for suffix in writer.record.suffixes)
    raise OptionError(f"{printable(path)}: the end of its name says no format: give one of {known}, or name the format")


def _named(writers: Iterable[Writer], name: str) -> Writer | None:
    return next((writer for writer in writers if writer.record.name == name), None)


def _by_suffix(writers: Iterable[Writer], path: Path) -> Writer | None:
    fits = [(len(s), w) for w in writers for s in w.record.suffixes if path.name.lower().endswith(s)]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None


def check(writer: Writer, path: Path, planes: int, channels: Sequence[str] | None) -> None:
    """Raise :class:`OptionError` where the format cannot hold what is asked for."""
    record = writer.record
    if planes > 1 and not record.stacks:
        raise OptionError(f"{printable(path)}: {record.name} holds one plane, not {planes}: say which z")
    if channels is not None and record.holds != "real":
        held = "the complex field" if record.holds == "complex" else "a picture of amplitude and phase"
        raise OptionError(f"{printable(path)}: {record.name} holds {held}: leave out the channels")
    if channels is not None and not channels:
        raise OptionError("channels: name at least one of amplitude, phase, path, intensity")


def claim(writer: Writer, path: Path, force: bool) -> None:
    """Raise :class:`OutputError` when what is there must not be replaced; a folder only by what is one too."""
    marks = writer.record.folder
    if path.is_dir():
        if not marks:
            raise OutputError(f"{path} is a folder; give the name of a file")
        if path.is_symlink() or not any((path / mark).is_file() for mark in marks):
            raise OutputError(f"{path} is a folder of something else, and is not replaced")
    if (path.exists() or path.is_symlink()) and not force:
        raise OutputError(f"{path} exists, and is replaced by force only")


def write(writer: Writer, path: Path, volume: Volume, show: Show | None = None) -> list[str]:
    """Let a writer write, to a temporary place first; returns what users must be told, a line for each.

    ``show`` is called with events as :func:`fpmtools.progress.bar` describes them, with their ``seconds``, where there
    is more than one plane or tile and it takes a while.
    """
    record = writer.record
    if volume.colours and (record.holds == "complex" or (record.holds == "picture" and not record.colours)):
        known = ", ".join(volume.colours)
        raise OptionError(f"{printable(path)}: {record.name} holds one colour, this result has {known}: say which")
    told: list[str] = []
    function = registry.format_function(writer)
    pace = _Pace(volume, show)

    def make(made: Path) -> None:
        told.extend(function(made, replace(volume, room=made.parent, tell=pace)) or ())

    storage.place(path, make)
    pace.finish()
    return [printable(line, 300) for line in told]


class _Pace:
    """How far a volume is written, for ``show``; what is looked at twice counts once."""

    def __init__(self, volume: Volume, show: Show | None) -> None:
        self._show, self._begun, self._heard = show, time.monotonic(), False
        self._doing, each = ("plane", 1) if volume.tile is None else ("tile", _tiles(volume.shape, volume.tile))
        self._each, self._total = each, each * len(volume.z_um)
        self._planes: dict[float, float] = {}  # how much of each is done

    def __call__(self, z_um: float, share: float) -> None:
        self._planes[z_um] = min(self._planes.get(z_um, 0.0) + share, 1.0)
        self._tell(min(int(sum(self._planes.values()) * self._each + 1e-6), self._total - 1))

    def finish(self) -> None:
        """All is written."""
        if self._heard:
            self._tell(self._total)

    def _tell(self, step: int) -> None:
        seconds = time.monotonic() - self._begun
        if self._show is None or self._total == 1 or seconds < SOON_S:
            return
        self._heard = True
        left = seconds / step * (self._total - step) if step else None
        event = {"step": step, "total": self._total, "doing": self._doing, "seconds": seconds, "remaining_s": left}
        self._show(event)


def _tiles(shape: Shape, tile: Shape) -> int:
    return math.prod(-(-n // side) for n, side in zip(shape, tile, strict=True))
