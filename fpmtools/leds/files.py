"""Files that tell where the LEDs stand, and which of them light an image; small, and read as text."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, printable
from fpmtools.leds.board import COLUMNS, Board, board, number
from fpmtools.leds.describe import from_mapping

HEIGHT = "height_mm"
_FILE_BYTES = 1 << 24


def from_json(text: str, what: str = "LEDs", names: Sequence[str] | None = None) -> Board:
    """A board from a description in JSON, see :func:`from_mapping`."""
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what}: not valid JSON ({printable(str(error))}): {printable(text, 40)}") from None
    return from_mapping(spec, what, names)


def from_file(path: str | Path, names: Sequence[str] | None = None) -> Board:
    """A board from a file: JSON (:func:`from_mapping`) or CSV with a line of column names.

    CSV columns are ``na_x, na_y`` (direction sines, and ``height_mm`` where it is known), or ``x_mm, y_mm,
    height_mm``; and, where known, ``gain``
    (relative intensity), ``exposure_ms``, ``background`` (light that is in every pixel on top of the dark level, in the
    images' units), ``used`` (1 or 0). Other columns are ignored, and so are lines that start with #. LEDs are in the
    order of the images.
    """
    path = Path(path)
    text = _text(path, "text with LED positions")
    if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
        return from_json(text, str(path), names)
    try:
        return _from_csv(text, path)
    except (csv.Error, ValueError) as error:  # such as a quotation mark that is never closed
        raise DataError(f"{path}: not a table of LED positions ({printable(str(error))})") from error


def patterns_from_file(path: str | Path) -> NDArray[np.float64]:
    """Weights [image, led] from a file of numbers: a line per image, a number per LED, commas or blanks between them.

    Lines that start with # are ignored. Raises :class:`DataError` when the file is anything else.
    """
    path = Path(path)
    rows: list[list[float]] = []
    for number_, line in enumerate(_text(path, "text with patterns").splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise DataError(f"{path}: line {number_} holds something else than numbers") from None
        if len(rows[-1]) != len(rows[0]):
            raise DataError(f"{path}: line {number_} has {len(rows[-1])} numbers, the first one has {len(rows[0])}")
    if not rows:
        raise DataError(f"{path}: holds no patterns")
    return np.array(rows)


def _text(path: Path, what: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: cannot be read as {what} (not a file)")
        if path.stat().st_size > _FILE_BYTES:
            raise DataError(f"{path}: too large for {what} ({_FILE_BYTES >> 20} MiB at most)")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as {what} ({error})") from error


def _from_csv(text: str, path: Path) -> Board:
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    rows = csv.DictReader([line for _, line in lines], skipinitialspace=True)
    names = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = names
    ways: tuple[tuple[str, ...], ...] = (("na_x", "na_y"), ("x_mm", "y_mm", HEIGHT))
    place = next((way for way in ways if set(way) <= set(names)), None)
    if place is None:
        found = printable(", ".join(names)) or "none"
        raise DataError(f"{path}: needs columns na_x, na_y or x_mm, y_mm, height_mm; found: {found}")
    if HEIGHT not in place and HEIGHT in names:
        place = (*place, HEIGHT)
    columns = [*place, *(name for name in COLUMNS if name in names)]
    values = []
    for (line, _), row in zip(lines[1:], rows, strict=True):
        try:
            values.append([number(column, row[column]) for column in columns])
        except (TypeError, ValueError):
            what = "a number" if "used" not in columns else "a number (used: 1 or 0)"
            raise DataError(f"{path}: line {line} does not hold {what} in each of {', '.join(columns)}") from None
    if not values:
        raise DataError(f"{path}: holds no LED positions")
    table = np.array(values)
    extra = {name: table[:, columns.index(name)] for name in columns[len(place) :]}
    height_mm = np.ascontiguousarray(table[:, 2]) if HEIGHT in place else None
    if height_mm is not None and not (np.isfinite(height_mm).all() and height_mm.min() > 0):
        raise DataError(f"{path}: height_mm must be positive in every line")
    na = table[:, :2]
    if place[0] == "x_mm":
        na = na / np.linalg.norm(table[:, :3], axis=1, keepdims=True)
    try:
        return board(np.ascontiguousarray(na), extra, height_mm)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
