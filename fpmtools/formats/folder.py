"""Which files of a folder are the images, in which order, and which one is a dark frame."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fpmtools.errors import DataError, printable

SUFFIXES = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")
_DATA = (".mat", ".h5", ".hdf5", ".npy", ".npz", ".safetensors")
LED_FILES = ("leds.csv", "leds.json")
MOST_FILES = 20_000
_DEEPEST = 4  # sub-folders below the one that is given
_DARK = re.compile(r"dark([ _-]?frames?)?([ _-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """Image files in natural order, dark frames, and what should be said about the folder."""

    images: list[Path]
    dark: list[Path]
    warnings: list[str]


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts digits in a name as numbers, and letters without regard to case."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name.lower()) if part]


def search(folder: Path) -> Found:
    """The images of a folder in natural order (2 before 10); hidden files and links to folders are left out.

    Where the folder itself has none, those of its sub-folders, folder by folder in natural order. A file called
    ``dark``, ``dark_frame`` or ``dark_2`` is a dark frame. Raises :class:`DataError` when there are no images, or more
    than :data:`MOST_FILES`.
    """
    warnings = []
    files, folders = _list(folder)
    if files and any(_list(below)[0] for below in folders[:20]):
        warnings.append(f"the images in sub-folders of {folder.name} are not read: give one of these folders for them")
    level = 0
    while not files and folders and level < _DEEPEST:
        level += 1
        listed = [_list(below) for below in folders]
        files = [file for found, _ in listed for file in found]
        folders = [below for _, found in listed for below in found]
        if len(files) > MOST_FILES or len(folders) > MOST_FILES:
            raise DataError(f"{folder}: more than {MOST_FILES} images or sub-folders")
    dark = [file for file in files if _DARK.fullmatch(file.stem)]
    images = [file for file in files if file not in dark] if dark else files
    if not images:
        other = next((path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in _DATA), None)
        hint = f"; for {printable(other)} give that file" if other else ""
        raise DataError(f"{folder}: the folder has no TIFF, PNG, BMP or JPEG images, nor have its sub-folders{hint}")
    if level and len(parents := {image.parent for image in images}) > 1:
        warnings.append(f"the images are from {len(parents)} sub-folders, one after the other in natural order")
    return Found(images, dark, warnings)


def _list(folder: Path) -> tuple[list[Path], list[Path]]:
    """Image files and sub-folders, each in natural order."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count > 5 * MOST_FILES:
                raise DataError(f"{folder}: more than {5 * MOST_FILES} files")
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(folder / entry.name)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                files.append(folder / entry.name)
    return tuple(sorted(found, key=lambda path: natural_key(path.name)) for found in (files, folders))  # type: ignore[return-value]
