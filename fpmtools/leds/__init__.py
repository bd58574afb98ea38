"""LEDs: regular arrangements (:mod:`.patterns`), descriptions and files of a board, and what it tells of each LED."""

from __future__ import annotations

from fpmtools.leds.board import Board, at
from fpmtools.leds.describe import NamesNeeded, from_mapping
from fpmtools.leds.files import from_file, from_json, patterns_from_file
from fpmtools.leds.names import places
from fpmtools.leds.patterns import MOST_LEDS, direction_sines, orient, raster, rings, seen_from, spiral

__all__ = [
    "MOST_LEDS",
    "Board",
    "NamesNeeded",
    "at",
    "direction_sines",
    "from_file",
    "from_json",
    "from_mapping",
    "orient",
    "patterns_from_file",
    "places",
    "raster",
    "rings",
    "seen_from",
    "spiral",
]
