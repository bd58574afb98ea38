"""Where the LEDs stand: regular patterns, files that list positions, and the direction sines they light from."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import DataError, OptionError, printable, unknown

MOST_LEDS = 100_000
_FILE_BYTES = 1 << 24  # of a file with LED positions
_RULES = {"raster": ("ny", "nx"), "spiral": ("count",), "rings": ("counts",)}
_FORMS = (
    'LED positions are {"na": [[x, y], …]}, {"positions_mm": [[x, y], …], "height_mm": …} or a rule such as '
    '{"rule": "rings", "counts": [1, 8, 12], "pitch_mm": 4, "height_mm": 80}'
)


def raster(ny: int, nx: int, pitch_mm: float) -> NDArray[np.float64]:
    """``ny`` rows of ``nx`` LEDs, row by row with x fastest; [led, (x, y)] in mm, centred on (0, 0)."""
    _check_count("rows and columns", ny, nx)
    y, x = np.mgrid[:ny, :nx]
    return np.stack([x.ravel() - (nx - 1) / 2, y.ravel() - (ny - 1) / 2], axis=1) * pitch_mm


def spiral(count: int, pitch_mm: float) -> NDArray[np.float64]:
    """``count`` LEDs of a square grid from the centre outwards: +x, +y, −x, −x, −y, −y, +x, +x, +x, …

    Returns [led, (x, y)] in mm; the first LED is at (0, 0).
    """
    _check_count("LEDs", count)
    positions, here, heading = [(0, 0)], (0, 0), (1, 0)
    leg = 0
    while len(positions) < count:
        for _ in range(leg // 2 + 1):
            here = (here[0] + heading[0], here[1] + heading[1])
            positions.append(here)
        heading = (-heading[1], heading[0])
        leg += 1
    return np.array(positions[:count], dtype=np.float64) * pitch_mm


def rings(counts: Sequence[int], pitch_mm: float) -> NDArray[np.float64]:
    """``counts[k]`` LEDs on a circle of radius k ``pitch_mm``, ring by ring, each from angle 0 (+x) towards +y.

    Returns [led, (x, y)] in mm, centred on (0, 0). The first count is the centre's: 1, or 0 for none.
    """
    if len(counts) == 0 or min(counts) < 0 or not 0 < sum(counts) <= MOST_LEDS or counts[0] > 1:
        raise OptionError(
            f"rings: counts {printable(list(counts))} must start with the centre's 1 or 0 and hold at least one "
            f"LED, and {MOST_LEDS} at most"
        )
    positions = []
    for ring, count in enumerate(counts):
        angle = 2 * np.pi * np.arange(count) / max(count, 1)
        positions.append(ring * pitch_mm * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return np.concatenate(positions)


def direction_sines(positions_mm: ArrayLike, height_mm: float) -> NDArray[np.float64]:
    """Direction sines p / sqrt(|p|² + h²) of LEDs at ``positions_mm`` [led, (x, y)], ``height_mm`` from the sample."""
    if not (math.isfinite(height_mm) and height_mm > 0):
        raise OptionError(f"LEDs: height_mm must be a positive number, got {height_mm:g}")
    p = _pairs(positions_mm, "positions_mm")
    return np.asarray(p / np.sqrt(np.square(p).sum(axis=1, keepdims=True) + height_mm**2))


def orient(na: NDArray[np.float64], axes: str) -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] on the image's axes, from those on the LED board's.

    ``axes`` names the board axis that runs along the image's x, and the one along its y, each with its sign:
    ``"x,y"`` keeps them, ``"-x,-y"`` turns both round, ``"-y,x"`` takes x from −(board y) and y from board x.
    """
    terms = [term.strip().removeprefix("+") for term in axes.split(",")]
    letters = [term.removeprefix("-") for term in terms]
    if sorted(letters) != ["x", "y"]:
        raise OptionError(
            f"LEDs: axes {printable(axes)!r} must be x and y in either order, each with its sign, such as '-y,x'"
        )
    signs = np.array([-1.0 if term.startswith("-") else 1.0 for term in terms])
    return np.asarray(na[:, ["xy".index(letter) for letter in letters]] * signs)


def from_mapping(spec: Mapping[str, Any], what: str = "LEDs") -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] from a description.

    Parameters
    ----------
    spec
        One of ``{"na": [[x, y], …]}``, ``{"positions_mm": [[x, y], …], "height_mm": h}``, or a rule with
        ``pitch_mm`` and ``height_mm``: ``{"rule": "raster", "ny": 15, "nx": 15}``, ``{"rule": "spiral", "count":
        225}``, ``{"rule": "rings", "counts": [1, 8, 12]}``. ``"axes"`` turns the board, see :func:`orient`.
    what
        Where the description stands, for messages.
    """
    if not isinstance(spec, Mapping):
        raise DataError(f"{what}: {_FORMS}")
    spec = dict(spec)
    axes = str(spec.pop("axes", "x,y"))
    try:
        if "na" in spec:
            na = _pairs(_only(spec, "na")[0], "na")
        elif "positions_mm" in spec:
            positions, height = _only(spec, "positions_mm", "height_mm")
            na = direction_sines(positions, float(height))
        elif "rule" in spec:
            rule = str(spec["rule"])
            if rule not in _RULES:
                raise unknown("LED rule", rule, _RULES)
            _, pitch, height, *sizes = _only(spec, "rule", "pitch_mm", "height_mm", *_RULES[rule])
            na = direction_sines(_pattern(rule, sizes, float(pitch)), float(height))
        else:
            raise DataError(_FORMS)
        return orient(na, axes)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what}: {printable(str(error))}; {_FORMS}") from error
    except (DataError, OptionError) as error:
        raise type(error)(f"{what}: {error}") from error


def from_json(text: str, what: str = "LEDs") -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] from a description in JSON, see :func:`from_mapping`."""
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what}: not valid JSON ({printable(str(error))}): {printable(text, 40)}") from None
    return from_mapping(spec, what)


def from_file(path: str | Path) -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] from a file: JSON (:func:`from_mapping`) or CSV with a line of column names.

    CSV columns are ``na_x, na_y`` (direction sines), or ``x_mm, y_mm, height_mm``; other columns are ignored, and so
    are lines that start with #. LEDs are in the order of the images.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise DataError(f"{path}: too large for a file with LED positions ({_FILE_BYTES >> 20} MiB at most)")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text with LED positions ({error})") from error
    if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
        return from_json(text, str(path))
    try:
        return _from_csv(text, path)
    except (csv.Error, ValueError) as error:  # such as a quotation mark that is never closed
        raise DataError(f"{path}: not a table of LED positions ({printable(str(error))})") from error


def _from_csv(text: str, path: Path) -> NDArray[np.float64]:
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    rows = csv.DictReader([line for _, line in lines], skipinitialspace=True)
    names = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = names
    columns = next((c for c in (("na_x", "na_y"), ("x_mm", "y_mm", "height_mm")) if set(c) <= set(names)), None)
    if columns is None:
        found = printable(", ".join(names)) or "none"
        raise DataError(f"{path}: needs columns na_x, na_y or x_mm, y_mm, height_mm; found: {found}")
    values = []
    for (number, _), row in zip(lines[1:], rows, strict=True):
        try:
            values.append([float(row[column]) for column in columns])
        except (TypeError, ValueError):
            raise DataError(f"{path}: line {number} does not hold a number in each of {', '.join(columns)}") from None
    if not values:
        raise DataError(f"{path}: holds no LED positions")
    table = np.array(values)
    if len(columns) == 2:
        return table
    if not (np.isfinite(table[:, 2]).all() and table[:, 2].min() > 0):
        raise DataError(f"{path}: height_mm must be positive in every line")
    return np.asarray(table[:, :2] / np.linalg.norm(table, axis=1, keepdims=True))


def _pattern(rule: str, sizes: list[Any], pitch_mm: float) -> NDArray[np.float64]:
    if not (math.isfinite(pitch_mm) and pitch_mm > 0):
        raise OptionError(f"pitch_mm must be a positive number, got {pitch_mm:g}")
    if rule == "rings":
        return rings([int(count) for count in sizes[0]], pitch_mm)
    if rule == "spiral":
        return spiral(int(sizes[0]), pitch_mm)
    return raster(int(sizes[0]), int(sizes[1]), pitch_mm)


def _only(spec: Mapping[str, Any], *names: str) -> list[Any]:
    """The values of ``names``, all of which must be there, and nothing else."""
    if missing := [name for name in names if name not in spec]:
        raise DataError(f"{', '.join(missing)} is missing")
    if extra := [name for name in spec if name not in names]:
        raise unknown("entry", extra[0], [*names, "axes"])
    return [spec[name] for name in names]


def _pairs(values: ArrayLike, name: str) -> NDArray[np.float64]:
    pairs = np.asarray(values, dtype=np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise DataError(f"{name} must be a list of [x, y] pairs, got shape {pairs.shape}")
    if not np.isfinite(pairs).all():
        led = int((~np.isfinite(pairs)).any(axis=1).argmax())
        raise DataError(f"{name} must be finite numbers, and those of LED {led} are not")
    return pairs


def _check_count(what: str, *counts: int) -> None:
    if min(counts) < 1 or math.prod(counts) > MOST_LEDS:
        got = printable(counts)
        raise OptionError(f"LED pattern: {what} must be at least 1 and at most {MOST_LEDS} together, got {got}")
