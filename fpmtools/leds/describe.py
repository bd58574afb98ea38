"""A description of the LED board, as JSON, YAML and Python spell it, becomes a :class:`Board`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, OptionError, printable, unknown
from fpmtools.leds.board import COLUMNS, Board, board
from fpmtools.leds.names import places
from fpmtools.leds.patterns import direction_sines, pairs, positive_height, raster, rings, spiral

_RULES = {"raster": ("ny", "nx"), "spiral": ("count",), "rings": ("counts",), "names": ()}
_OPTIONAL = {"raster": (), "spiral": ("first", "then", "even"), "rings": (), "names": ("pattern", "centre")}
_FORMS = (
    'LED positions are {"na": [[x, y], …]}, {"positions_mm": [[x, y], …], "height_mm": …} or a rule such as '
    '{"rule": "rings", "counts": [1, 8, 12], "pitch_mm": 4, "height_mm": 80}'
)


class NamesNeeded(OptionError):
    """LED positions that depend on the names of image files, where there are none, or none yet."""


def from_mapping(spec: Mapping[str, Any], what: str = "LEDs", names: Sequence[str] | None = None) -> Board:
    """A board from a description.

    Parameters
    ----------
    spec
        One of ``{"na": [[x, y], …]}`` (with ``"height_mm": h`` where it is known, for angles that change over the
        field), ``{"positions_mm": [[x, y], …], "height_mm": h}``, or a rule with ``pitch_mm`` and ``height_mm``:
        ``{"rule": "raster", "ny": 15, "nx": 15}``, ``{"rule": "spiral", "count": 225}`` (with ``first``, ``then``,
        ``even`` of :func:`fpmtools.leds.spiral`), ``{"rule": "rings", "counts": [1, 8, 12]}``, ``{"rule": "names"}``
        (places on the grid from the files' names, with ``pattern`` of :func:`fpmtools.leds.places`; ``centre`` [x, y]
        is the place on the axis, default: 0, 0 where a number is negative, else the middle of all).

        With any of them: ``offset_mm`` [x, y], where the board's middle stands; ``axes``, which turns the board, see
        :func:`fpmtools.leds.orient`; lists ``gain``, ``exposure_ms``, ``background``, ``used``, one value per LED, and
        ``patterns`` [image, led], see :class:`Board`.
    what
        Where the description stands, for messages.
    names
        The image files' names without their suffixes, for the rule "names".
    """
    if not isinstance(spec, Mapping):
        raise DataError(f"{what}: {_FORMS}")
    rest = dict(spec)
    axes, patterns = str(rest.pop("axes", "x,y")), rest.pop("patterns", None)
    columns = {name: rest.pop(name) for name in COLUMNS if name in rest}
    try:
        na, height_mm = _directions(rest, names)
        found = board(na, columns, height_mm).turned(axes)
        return found if patterns is None else found.with_patterns(patterns)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(f"{what}: {printable(str(error))}; {_FORMS}") from error
    except (DataError, OptionError) as error:
        raise type(error)(f"{what}: {error}") from error


def _directions(
    spec: dict[str, Any], names: Sequence[str] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Direction sines [led, (x, y)] on the board's axes, and the height [led] of each LED where it is known."""
    if "na" in spec:
        na = pairs(_only(spec, ("na",), ("height_mm",))["na"], "na")
        return na, np.full(len(na), positive_height(spec["height_mm"])) if "height_mm" in spec else None
    if "positions_mm" in spec:
        values = _only(spec, ("positions_mm", "height_mm"), ("offset_mm",))
        positions = pairs(values["positions_mm"], "positions_mm")
    elif "rule" in spec:
        rule = str(spec["rule"])
        if rule not in _RULES:
            raise unknown("LED rule", rule, _RULES)
        values = _only(spec, ("rule", "pitch_mm", "height_mm", *_RULES[rule]), ("offset_mm", *_OPTIONAL[rule]))
        positions = _positions(rule, values, names)
    else:
        raise DataError(_FORMS)
    offset = pairs([values.get("offset_mm", (0.0, 0.0))], "offset_mm")
    height_mm = positive_height(values["height_mm"])
    return direction_sines(positions + offset, height_mm), np.full(len(positions), height_mm)


def _positions(rule: str, values: Mapping[str, Any], names: Sequence[str] | None) -> NDArray[np.float64]:
    """Positions [led, (x, y)] in mm by a rule."""
    pitch_mm = float(values["pitch_mm"])
    if not (math.isfinite(pitch_mm) and pitch_mm > 0):
        raise OptionError(f"pitch_mm must be a positive number, got {pitch_mm:g}")
    if rule == "names":
        return _named(names, values) * pitch_mm
    if rule == "rings":
        return rings([int(count) for count in values["counts"]], pitch_mm)
    if rule == "spiral":
        turns = {name: str(values[name]) for name in ("first", "then") if name in values}
        return spiral(int(values["count"]), pitch_mm, even=bool(values.get("even", False)), **turns)
    return raster(int(values["ny"]), int(values["nx"]), pitch_mm)


def _named(names: Sequence[str] | None, values: Mapping[str, Any]) -> NDArray[np.float64]:
    """Places on the grid [image, (x, y)], those of the axis being 0, 0."""
    if not names:
        raise NamesNeeded('the rule "names" is for folders of images')
    found = places(names, values.get("pattern"))
    middle = (found.min(axis=0) + found.max(axis=0)) / 2 if found.min() >= 0 else np.zeros(2)
    return found - pairs([values.get("centre", middle)], "centre")


def _only(spec: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    """``spec``, which must have all that is ``needed`` and nothing but that and what is ``optional``."""
    if extra := [name for name in spec if name not in (*needed, *optional)]:
        raise unknown("entry", str(extra[0]), [*needed, *optional, "axes", "patterns", *COLUMNS])
    if missing := [name for name in needed if name not in spec]:
        raise DataError(f"{', '.join(missing)} is missing")
    return spec
