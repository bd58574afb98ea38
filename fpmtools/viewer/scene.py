"""What the page shows, as pictures and numbers: everything is rendered here, on one thread, and kept for a while."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from fpmtools.errors import OptionError
from fpmtools.viewer.layers import LUMINANCE, MAPS, complex_picture, palette, picture, true_picture
from fpmtools.viewer.regions import TILE, Box, level_shape
from fpmtools.viewer.sources import AMPLITUDE, COLOUR, PHASE, RAW, SPECTRUM, TRUE_COLOUR, UNWRAPPED, Source

OVERLAP = 1  # pixels by which neighbouring tiles overlap, so that no seam shows between them
BINS = 96  # of a histogram
MOST_SAMPLES = 2048  # of a profile
LARGEST_PART = 1 << 20  # pixels that a profile reads

T = TypeVar("T")
UNITS = {AMPLITUDE: "", PHASE: "rad", UNWRAPPED: "rad", COLOUR: "", TRUE_COLOUR: "", RAW: "", SPECTRUM: "log₁₀"}
OWN_COLOURS: Mapping[str, Callable[[NDArray[Any], float, float], bytes]] = {
    COLOUR: complex_picture,
    TRUE_COLOUR: true_picture,
}


class Scene:
    """Sources to look at, of which :meth:`tile`, :meth:`scale`, :meth:`at` and :meth:`profile` tell the page.

    A solver's code is called on one thread only. All of them raise :class:`OptionError` for what is not there.
    """

    def __init__(self, sources: Sequence[Source], title: str = "", notes: Sequence[str] = ()) -> None:
        if not sources:
            raise OptionError("nothing to look at")
        self.sources, self.title, self.notes = list(sources), title, list(notes)
        self._rendering = ThreadPoolExecutor(1, "rendering")

    def close(self) -> None:
        """Render nothing more."""
        self._rendering.shutdown(wait=False, cancel_futures=True)

    def describe(self) -> dict[str, Any]:
        """All that the page needs to know beforehand, JSON-ready."""
        return {
            "title": self.title,
            "notes": self.notes,
            "tile": TILE,
            "overlap": OVERLAP,
            "sources": [_described(source, self._raw_of(source)) for source in self.sources],
            "palettes": {name: _hexadecimal(name) for name in (*MAPS, "hue")},
        }

    def tile(
        self,
        source: int,
        layer: str,
        at: float,
        level: int,
        x: int,
        y: int,
        *,
        low: float,
        high: float,
        colours: str = "gray",
    ) -> bytes:
        """The tile in column ``x`` and row ``y`` of a level, as PNG; ``low`` to ``high`` is black to white.

        ``colours`` is a name of :data:`MAPS`; the layers ``colour`` and ``truecolour`` have their own.
        """
        of = self._source(source)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise OptionError(f"the range {low:g} … {high:g} is empty")
        if colours not in MAPS and layer not in OWN_COLOURS:
            palette(colours)  # says what there is
        box = _tile_box(level_shape(of.layer_shape(layer), _small(level)), x, y)
        values = self._rendered(lambda: of.values(layer, at, box, level))
        own = OWN_COLOURS.get(layer)
        return own(values, low, high) if own is not None else picture(values, low, high, colours)

    def scale(self, source: int, layer: str, at: float) -> dict[str, Any]:
        """The range and the colours that suit a layer, and its histogram between ``from`` and ``to``."""
        of = self._source(source)

        def found() -> dict[str, Any]:
            scale, values = of.scale(layer, at), of.overview(layer, at)
            values = _brightness(values)
            values = values[np.isfinite(values)]
            ends = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
            low, high = min(ends[0], scale.low), max(ends[1], scale.high)
            counts, _ = np.histogram(values, BINS, (low, high if high > low else low + 1e-6))
            return {
                "low": scale.low,
                "high": scale.high,
                "colours": next((name for name, real in MAPS.items() if scale.cmap in (name, real)), scale.cmap),
                "from": low,
                "to": high,
                "counts": counts.tolist(),
                "unit": UNITS[layer],
            }

        return self._rendered(found)

    def at(self, source: int, layer: str, at: float, x: int, y: int) -> dict[str, Any]:
        """The values of one pixel at full size, by name: of a field amplitude and phase."""
        of = self._source(source)
        box = Box(y, x, 1, 1)
        names = (AMPLITUDE, PHASE) if layer in (AMPLITUDE, PHASE, COLOUR) else (layer,)
        if layer == TRUE_COLOUR:
            lit = self._rendered(lambda: of.values(layer, at, box, 0)[0, 0].tolist())
            return {
                name: {"value": value, "unit": ""} for name, value in zip(("red", "green", "blue"), lit, strict=True)
            }
        values = self._rendered(lambda: {name: float(of.values(name, at, box, 0)[0, 0]) for name in names})
        return {name: {"value": value, "unit": UNITS[name]} for name, value in values.items()}

    def profile(
        self, source: int, layer: str, at: float, start: tuple[float, float], end: tuple[float, float]
    ) -> dict[str, Any]:
        """Values along the line from ``start`` to ``end`` (x, y) in pixels, about one per pixel, with their distance.

        Distances are in µm, or of a spectrum in cycles/µm. Between pixels the layer is interpolated linearly, its phase
        as that of the complex field. A line across a large picture is read at a coarser level.
        """
        of = self._source(source)
        if not all(map(math.isfinite, (*start, *end))):
            raise OptionError("a line needs two finite ends")
        shape, size = of.layer_shape(layer), _pixel(of, layer)
        xs, ys = (np.array([_within(one[k], shape[1 - k]) for one in (start, end)]) for k in (0, 1))
        length = math.hypot(float(np.diff(xs)[0]) * size[1], float(np.diff(ys)[0]) * size[0])
        level = _level_for(xs, ys, of.layer_levels(layer))
        xs, ys = ((at + 0.5) / (1 << level) - 0.5 for at in (xs, ys))
        box = _around(xs, ys, level_shape(shape, level))
        part = self._rendered(lambda: of.values(COLOUR if layer == PHASE else layer, at, box, level))
        part = _brightness(part) if layer == TRUE_COLOUR else part
        count = int(min(max(2, round(math.hypot(*np.diff(xs), *np.diff(ys))) + 1), MOST_SAMPLES))
        share = np.linspace(0, 1, count)
        values = _sampled(
            part, [one[0] + (one[1] - one[0]) * share - first for one, first in ((ys, box.y), (xs, box.x))]
        )
        values = np.angle(values) if layer == PHASE else _brightness(values)
        return {"distance": (length * share).tolist(), "values": values.tolist(), "unit": UNITS[layer]}

    def _raw_of(self, source: Source) -> int | None:
        return self.sources.index(source.raw) if source.raw in self.sources else None

    def _source(self, number: int) -> Source:
        if not 0 <= number < len(self.sources):
            raise OptionError(f"there are {len(self.sources)} things to look at, and no number {number}")
        return self.sources[number]

    def _rendered(self, compute: Callable[[], T]) -> T:
        return self._rendering.submit(compute).result()


def _brightness(values: NDArray[Any]) -> NDArray[Any]:
    """One number a pixel: of what is complex its size, of red, green and blue how bright they are together."""
    if values.ndim == 3:
        return np.asarray(values @ LUMINANCE)
    return np.abs(values) if np.iscomplexobj(values) else values


def _described(source: Source, raw: int | None) -> dict[str, Any]:
    lights = source.lights
    return {
        "name": source.name,
        "kind": source.kind,
        "facts": dict(source.facts),
        "layers": {
            layer: {
                "shape": list(source.layer_shape(layer)),
                "levels": source.layer_levels(layer),
                "pixel": list(_pixel(source, layer)),
                "origin": _origin(source, layer),
                "unit": UNITS[layer],
            }
            for layer in source.layers
        },
        "z_range": list(z_range) if (z_range := getattr(source, "z_range", None)) else None,
        "planes": list(getattr(source, "planes", ())),
        "raw": raw,
        "count": getattr(source, "count", 0),
        "lights": None
        if lights is None
        else {
            "na": np.round(lights.na, 6).tolist(),
            "used": lights.used.tolist(),
            "objective_na": lights.objective_na,
            "wavelength_um": lights.wavelength_um,
        },
    }


def _pixel(source: Source, layer: str) -> tuple[float, float]:
    """The step (y, x) from pixel to pixel: µm, or of a spectrum cycles/µm."""
    if layer != SPECTRUM:
        return source.pixel_um
    (h, w), (y, x) = source.spectrum_shape, source.pixel_um
    return 1 / (h * y), 1 / (w * x)


def _origin(source: Source, layer: str) -> list[float]:
    """Where the middle of the first pixel (x, y) is: µm, or of a spectrum cycles/µm."""
    if layer != SPECTRUM:
        return [source.corner_um[1], source.corner_um[0]]
    (h, w), (y, x) = source.spectrum_shape, _pixel(source, layer)
    return [-(w // 2) * x, -(h // 2) * y]


def _hexadecimal(name: str) -> list[str]:
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette(name)[::4].tolist()]


def _small(level: int) -> int:
    if not 0 <= level < 32:
        raise OptionError(f"there is no level {level}")
    return level


def _tile_box(shape: tuple[int, int], x: int, y: int) -> Box:
    """The pixels of a tile, with those it shares with its neighbours."""
    h, w = shape
    if not (0 <= x * TILE < w and 0 <= y * TILE < h):
        raise OptionError(f"there is no tile in column {x} and row {y} of {h} × {w} pixels")
    top, left = max(0, y * TILE - OVERLAP), max(0, x * TILE - OVERLAP)
    return Box(top, left, min(h, (y + 1) * TILE + OVERLAP) - top, min(w, (x + 1) * TILE + OVERLAP) - left)


def _within(at: float, count: int) -> float:
    return min(max(at, 0.0), count - 1.0)


def _level_for(xs: NDArray[np.float64], ys: NDArray[np.float64], count: int) -> int:
    """The finest of ``count`` levels at which what a line lies in is not too large to be read."""
    pixels = (np.ptp(xs) + 3) * (np.ptp(ys) + 3)
    return next((level for level in range(count) if pixels <= LARGEST_PART << (2 * level)), count - 1)


def _around(xs: NDArray[np.float64], ys: NDArray[np.float64], shape: tuple[int, int]) -> Box:
    """The smallest box that holds a line and what it is interpolated from."""
    ends = []
    for at, count in ((ys, shape[0]), (xs, shape[1])):
        first = min(max(0, math.floor(at.min())), count - 1)
        ends.append((first, max(1, min(count, math.floor(at.max()) + 2) - first)))
    return Box(ends[0][0], ends[1][0], ends[0][1], ends[1][1])


def _sampled(part: NDArray[Any], places: Sequence[NDArray[np.float64]]) -> NDArray[Any]:
    def read(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(map_coordinates(values, places, order=1, mode="nearest"))

    return read(part.real) + 1j * read(part.imag) if np.iscomplexobj(part) else read(part)
