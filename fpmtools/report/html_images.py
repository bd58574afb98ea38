"""The pictures of the report as data URIs: amplitude, phase and error of every plane, bounded in number and in bytes.

They are for looking at. Fields are resampled band-limited, as complex fields, before amplitude and phase are taken.
Pictures are levels of grey, 8 bits over a range wider than what is shown at first; the page gives them contrast and
colours. Amplitudes may be compressed with loss, phases and errors are exact to a level.
"""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from fpmtools.dataset import Truth
from fpmtools.optics import Shape, resample
from fpmtools.reconstruction import without_piston
from fpmtools.report.contrast import FULL_CIRCLE, Scale, gray_scale, phase_scale
from fpmtools.report.html_folder import Folder, InFocus, Row
from fpmtools.report.rendering import LARGEST, Field, Rendered, scaled, shown_planes

SMALLEST = 64  # pixels of the longer side
MOST_BYTES = 4_500_000  # of all pictures, before base64 adds a third
ROOM = 0.3  # of a contrast's span, beyond it on either side: so far it can be widened
MOST_ROOM = 2.0  # the same, where a raw image reaches so far
COLOURS = 128
ERROR_MAP = "magma"
RESIDUAL, BLOCK = "RdBu_r", 6  # pixels that a sample is shown with


def galleries(folder: Folder) -> list[dict[str, Any]]:
    """One JSON-ready gallery per data set; an empty list where no solver has a result.

    Each holds ``data``, ``extent_um`` (y, x), ``shape``, ``z_um`` of the planes shown, ``error_max`` (None without a
    truth), ``scales`` (of amplitude, phase and error: ``window``, the values that are shown from end to end of the
    ``colours``, the name of a map; ``range``, those of the levels 0 and 255; ``cyclic``: it goes round),
    and ``sources``: the solvers, the truth and the raw image, each with its ``name``, its ``kind``, its place among the
    colours or -1, ``planes`` ([z] of amplitude and phase, None where it has no such z) and ``focus``: the picture with
    every pixel at its true depth (amplitude, phase, error), or None; all there is of truth and raw image.
    """
    found = {data: sources for data in folder.datasets if (sources := _sources(folder, data))}
    return [_gallery(folder, data, sources, MOST_BYTES // len(found)) for data, sources in found.items()]


def singular_pictures(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Share and picture of each of :class:`fpmtools.metrics.patterns.SingularPictures`, as a run's record has them.

    White is 0, red where the camera has seen more. Whatever is not a picture of numbers is left out.
    """
    shares, pictures = (
        values if isinstance(values := found.get(name), list) else [] for name in ("shares", "pictures")
    )
    shown = []
    for share, picture in zip(shares, pictures, strict=False):
        try:
            values = np.asarray(picture, dtype=np.float64)
            share = float(share)
        except (TypeError, ValueError):
            continue
        if values.ndim == 2 and values.size and np.isfinite(values).all() and math.isfinite(share):
            large = np.kron(values, np.ones((BLOCK, BLOCK)))
            top = float(np.percentile(np.abs(values), 99.5)) or 1.0
            shown.append({"share": share, "uri": coloured(0.5 + large / (2 * top), RESIDUAL)})
    return shown


def palette(name: str) -> list[str]:
    """The 128 colours of a matplotlib colour map as ``#rrggbb``."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in _palette(name).tolist()]


@dataclass(frozen=True)
class _Source:
    """A solver's result, and how it stands beside the truth where there is one."""

    row: Row
    rendered: Rendered
    truth: Truth | None
    in_focus: InFocus | None

    def plane(self, z_um: float, shape: Shape) -> Field | None:
        """The plane at ``z_um``, mean phase 0, as bright as the truth; None outside the reconstructed range."""
        field = self.rendered.plane(z_um, shape)
        gain = 1.0 if self.in_focus is None else abs(self.in_focus.gain)
        return None if field is None else without_piston(field) * np.float32(gain)

    def error(self, shape: Shape) -> NDArray[np.floating[Any]] | None:
        """|truth - aligned field| [y, x]."""
        if self.truth is None or self.in_focus is None:
            return None
        return np.asarray(np.abs(resample(self.truth.field - self.in_focus.field, shape)))


def _gallery(folder: Folder, data: str, sources: Sequence[_Source], most_bytes: int) -> dict[str, Any]:
    truth = folder.truths.get(data)
    grid = sources[0].rendered.grid
    z_um = _planes(sources)
    shape = _fitting_shape(sources, z_um, most_bytes)
    middle = [source.plane(z_um[len(z_um) // 2], shape) for source in sources]
    errors = [source.error(shape) for source in sources]
    error_max = _error_max(errors)
    known = ((source.row.name, source.rendered.measured) for source in sources if source.rendered.measured is not None)
    whose, measured = next(known, ("", None))
    scales = _scales(middle, truth, error_max, None if measured is None else measured.amplitude)
    shown = [_shown(source, folder.solvers.index(source.row.name), z_um, shape, scales) for source in sources]
    for picture, error in zip(shown, errors, strict=True):
        if error is not None:
            picture["focus"]["error"] = _picture(error, scales["error"])
            picture["error_map"] = coloured(error / error_max, ERROR_MAP)
    if truth is not None:
        shown.append(_beside("truth", "truth", _pictures(resample(truth.field, shape), scales), len(z_um)))
    if measured is not None:
        raw = {"amplitude": _picture(_enlarged(measured.amplitude, shape), scales["amplitude"])}
        of = f" of {whose}" if folder.picture else ""
        shown.append(_beside(f"raw image {measured.image}{of}", "raw", raw, len(z_um)))
    return {
        "data": data,
        "extent_um": list(grid.extent_um),
        "shape": list(shape),
        "z_um": z_um,
        "scales": scales,
        "error_max": None if truth is None else error_max,
        "sources": shown,
    }


def _beside(name: str, kind: str, focus: Mapping[str, str], planes: int) -> dict[str, Any]:
    return {"name": name, "kind": kind, "colour": -1, "planes": [None] * planes, "focus": focus}


def _enlarged(values: NDArray[np.floating[Any]], shape: Shape) -> NDArray[np.floating[Any]]:
    """``values`` [y, x] at ``shape`` in blocks, each around the place of its sample: the first ones coincide."""
    rows, columns = (
        np.minimum((np.arange(fine) * coarse / fine + 0.5).astype(int), coarse - 1)
        for coarse, fine in zip(values.shape, shape, strict=True)
    )
    return values[np.ix_(rows, columns)]


def _scales(
    middle: Sequence[Field | None],
    truth: Truth | None,
    error_max: float,
    raw: NDArray[np.floating[Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Of amplitude, phase and error; phase is cyclic where it wraps, and else as wide as it needs to be.

    The window is that of the results; a ``raw`` amplitude that goes beyond lies within the range.
    """
    grey = _window(middle, truth)
    leading = [field for field in middle if field is not None] if truth is None else [truth.field]
    return {
        "amplitude": _scale(grey, lowest=0.0, beside=None if raw is None else gray_scale([raw])),
        "phase": _scale(phase_scale(leading), lowest=-math.pi, highest=math.pi),
        "error": _scale(Scale(ERROR_MAP, 0.0, error_max), lowest=0.0),
    }


def _scale(scale: Scale, lowest: float, highest: float = math.inf, beside: Scale | None = None) -> dict[str, Any]:
    span = scale.high - scale.low
    low, high = scale.low - ROOM * span, scale.high + ROOM * span
    if beside is not None:
        low = min(low, max(beside.low, scale.low - MOST_ROOM * span))
        high = max(high, min(beside.high, scale.high + MOST_ROOM * span))
    ends = [max(low, lowest), min(high, highest)]
    cyclic = scale == FULL_CIRCLE
    return {"window": [scale.low, scale.high], "range": ends, "colours": scale.cmap, "cyclic": cyclic}


def _sources(folder: Folder, data: str) -> list[_Source]:
    truth, found = folder.truths.get(data), []
    for row in folder.of(data):
        if isinstance(row.rendered, Rendered):
            found.append(_Source(row, row.rendered, truth, folder.in_focus(row)))
    return found


def _planes(sources: Sequence[_Source]) -> list[float]:
    """The z that were asked for, at most as many as are rendered."""
    asked = next((z for source in sources if (z := source.row.recorded("z_um"))), None)
    return shown_planes(asked) if asked else sorted({z for source in sources for z in source.rendered.z_um})


def _fitting_shape(sources: Sequence[_Source], z_um: Sequence[float], most_bytes: int) -> Shape:
    """The size at which all pictures together should take ``most_bytes``, judged by the middle planes."""
    grid = sources[0].rendered.grid.shape
    largest = scaled(grid, LARGEST)
    samples = [field for source in sources if (field := source.plane(z_um[len(z_um) // 2], largest)) is not None]
    scales = _scales(samples, None, 1.0)
    weights = [3 / 4 * len(uri) for field in samples for uri in _pictures(field, scales).values()]
    expected = 2 * float(np.mean(weights or [0])) * len(sources) * (len(z_um) + 2)
    return scaled(grid, max(SMALLEST, int(max(largest) * math.sqrt(min(1.0, most_bytes / max(expected, 1.0))))))


def _window(fields: Sequence[Field | None], truth: Truth | None) -> Scale:
    """The truth's grey scale; without one, the median over the solvers, so that none that went wrong decides it."""
    leading = [field for field in fields if field is not None] if truth is None else [truth.field]
    scales = [gray_scale([np.abs(field)]) for field in leading] or [gray_scale([])]
    return Scale("gray", float(np.median([s.low for s in scales])), float(np.median([s.high for s in scales])))


def _error_max(errors: Sequence[NDArray[np.floating[Any]] | None]) -> float:
    """The upper end of the error scale: what 99.8 % of the median solver's pixels stay below."""
    tops = [float(np.percentile(error, 99.8)) for error in errors if error is not None]
    return max(float(np.median(tops)), 1e-6) if tops else 1.0


def _shown(
    source: _Source, colour: int, z_um: Sequence[float], shape: Shape, scales: Mapping[str, Any]
) -> dict[str, Any]:
    planes = [None if (field := source.plane(z, shape)) is None else _pictures(field, scales) for z in z_um]
    focus = None if source.in_focus is None else _pictures(resample(source.in_focus.field, shape), scales)
    return {"name": source.row.name, "kind": "result", "colour": colour, "planes": planes, "focus": focus}


def _pictures(field: Field, scales: Mapping[str, Any]) -> dict[str, str]:
    values = {"amplitude": np.abs(field), "phase": np.angle(field)}
    return {quantity: _picture(shown, scales[quantity]) for quantity, shown in values.items()}


def _picture(values: NDArray[np.floating[Any]], scale: Mapping[str, Any]) -> str:
    """Levels over the range of a scale; without loss but for amplitudes."""
    low, high = scale["range"]
    return gray((values - low) / (high - low), exact=scale["colours"] != "gray")


def gray(levels: NDArray[np.floating[Any]], *, exact: bool = False) -> str:
    """A picture of ``levels`` [y, x], 0 black and 1 white, as a data URI; ``exact``: without loss."""
    image = Image.fromarray(np.round(255 * np.clip(np.nan_to_num(levels), 0, 1)).astype(np.uint8))
    if features.check("webp") and not exact:
        return _uri(image, "webp", quality=86)
    return _uri(image, "png", optimize=True)


def photograph(picture: NDArray[np.floating[Any]]) -> str:
    """``picture`` [y, x, (r, g, b)], sRGB from 0 to 1, as a data URI."""
    image = Image.fromarray(np.round(255 * np.clip(np.nan_to_num(picture), 0, 1)).astype(np.uint8))
    return _uri(image, "webp", quality=92) if features.check("webp") else _uri(image, "png", optimize=True)


def coloured(share: NDArray[np.floating[Any]], cmap: str) -> str:
    """A picture of ``share`` [y, x], 0 to 1, in the colours of a matplotlib colour map, as a data URI."""
    index = np.clip(np.floor(COLOURS * np.nan_to_num(share)), 0, COLOURS - 1).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette(_palette(cmap).tobytes())
    return _uri(image, "png", optimize=True)


@functools.cache
def _palette(name: str) -> NDArray[np.uint8]:
    share = (np.arange(COLOURS) + 0.5) / COLOURS
    return np.asarray(np.round(255 * matplotlib.colormaps[name](share)[:, :3]), dtype=np.uint8)


def _uri(image: Image.Image, kind: str, **how: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
