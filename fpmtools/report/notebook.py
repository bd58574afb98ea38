"""How data sets, calibrations, results and comparisons show themselves in a notebook: facts beside small pictures.

Everything goes through one template, which escapes all text; the pictures are data URIs, the LED map is SVG. Colours
are those of the page around it, light or dark.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibrate.inspection import Inspection
from fpmtools.calibration import Calibration
from fpmtools.comparison import Comparison
from fpmtools.dataset import Dataset
from fpmtools.display import Listing
from fpmtools.errors import FpmError, OptionError
from fpmtools.optics import resample
from fpmtools.pupil import polynomial_phase
from fpmtools.reconstruction import Reconstruction, without_piston
from fpmtools.report.contrast import Scale, gray_scale, phase_scale, z_label
from fpmtools.report.html_images import coloured, gray
from fpmtools.report.html_templates import render
from fpmtools.report.rendering import Field, scaled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 170  # pixels of a picture's longer side on the page
FINEST = 2 * SIDE  # of the picture itself, for screens with two dots per pixel
MOST_LEDS, MOST_RESULTS = 2000, 8
MAP = 1.12  # half of the LED map's side, over the farthest thing in it

Picture = Mapping[str, Any]
Floats = NDArray[np.floating[Any]]


def dataset(data: Dataset) -> str:
    """The brightest image, the LEDs, and the facts."""
    brightest = int(data.images.means.argmax())
    image = np.asarray(data.images[brightest], dtype=np.float64)
    pictures = [
        _picture(image, gray_scale([image]), f"image {brightest}, the brightest"),
        _leds(data.calibration, data.optics.na),
    ]
    return _page(data.heading(), data.facts(), pictures)


def calibration(known: Calibration) -> str:
    """The LEDs and the pupil's phase."""
    pictures = [_leds(known, None)]
    if known.pupil.zernike_rad.any():
        y, x = np.mgrid[-1 : 1 : FINEST * 1j, -1 : 1 : FINEST * 1j]
        # Piston and tilt are what nobody sees.
        seen = np.where(np.arange(len(known.pupil.zernike_rad)) < 3, 0, known.pupil.zernike_rad)
        phase = np.where(np.hypot(y, x) <= 1, polynomial_phase(seen, y, x), np.nan)
        largest = max(float(np.nanmax(np.abs(phase))), 0.1)
        pictures.append(_picture(phase, Scale("coolwarm", -largest, largest), f"pupil, ± {largest:.2g} rad"))
    return _page(known.heading(), known.facts(), pictures)


def reconstruction(result: Reconstruction) -> str:
    """Amplitude and phase in the middle plane, and the facts."""
    z_um = float(np.mean(result.grid.z_range))
    field = without_piston(result.field(z_um, scaled(result.grid.shape, FINEST)))
    amplitude, scale = np.abs(field), phase_scale([field])
    pictures = [
        _picture(amplitude, gray_scale([amplitude]), f"amplitude, {z_label(z_um)}"),
        _picture(np.angle(field), scale, f"phase, {scale.low:.2g} … {scale.high:.2g} rad".replace("-", "−")),
    ]
    return _page(result.heading(), result.facts(), pictures)


def comparison(found: Comparison) -> str:
    """The table, and the amplitude of every result in the middle of its depth on one grey scale."""
    fields: dict[str, Field | str] = {}
    for title in list(found.reconstructions)[:MOST_RESULTS]:
        try:
            result = found.reconstructions[title]
            fields[title] = result.field(float(np.mean(result.grid.z_range)), scaled(result.grid.shape, FINEST))
        except FpmError as error:  # a file that is gone, a plugin that is
            fields[title] = str(error)
    amplitudes = {title: np.abs(field) for title, field in fields.items() if not isinstance(field, str)}
    scale = gray_scale(amplitudes.values())
    pictures = [
        _picture(amplitudes[title], scale, title) if title in amplitudes else {"caption": f"{title}: {field}"}
        for title, field in fields.items()
    ]
    left = len(found.reconstructions) - len(fields)
    return _page(found.heading(), {}, pictures, found.table(), f"and {left} more results" if left > 0 else "")


def inspection(found: Inspection) -> str:
    """The findings and the figure that goes with them."""
    from fpmtools.report import looking

    buffer = io.BytesIO()
    looking.inspection(found).savefig(buffer, format="png", dpi=100)
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return _page(found.heading(), found.facts(), [], figure=uri)


def listing(rows: Listing) -> str:
    """The table."""
    return _page("", {}, [], rows.table(), rows.note)


def plot(result: Reconstruction, z_um: float | None, unwrap: bool, axes: Sequence[Axes] | None) -> list[Axes]:
    """Amplitude and phase at a z, in two axes of a new figure unless they are given."""
    amplitude, phase = result.amplitude(z_um), result.phase(z_um, unwrap=unwrap)
    height, width = result.grid.extent_um
    if axes is None:
        from matplotlib import pyplot

        side = 4.2
        size = (2 * side + 1.4, min(max(side * height / width, 1.5), 9) + 0.6)
        drawn = list(pyplot.subplots(1, 2, figsize=size, layout="constrained", sharex=True, sharey=True)[1])
    else:
        drawn = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(drawn) != 2:
        raise OptionError(f"plot: axes must be two, one for the amplitude and one for the phase, got {len(drawn)}")
    low, high = gray_scale([phase]).low, gray_scale([phase]).high
    colours = Scale("viridis", low, high) if unwrap else phase_scale([np.exp(1j * phase)])
    for one, values, scale, title in (
        (drawn[0], amplitude, gray_scale([amplitude]), "amplitude"),
        (drawn[1], phase, colours, "phase (rad)"),
    ):
        shown = one.imshow(values, cmap=scale.cmap, vmin=scale.low, vmax=scale.high, extent=(0, width, height, 0))
        one.figure.colorbar(shown, ax=one, fraction=0.046, pad=0.02)
        one.set(title=title, xlabel="x (µm)")
    drawn[0].set_ylabel("y (µm)")
    return drawn


def _page(
    heading: str,
    facts: Mapping[str, str],
    pictures: Sequence[Picture],
    table: Sequence[Sequence[str]] = (),
    note: str = "",
    figure: str = "",
) -> str:
    values = {"heading": heading, "facts": facts, "pictures": pictures, "table": table, "note": note, "figure": figure}
    return render("notebook.html", values)


def _picture(values: Floats, scale: Scale, caption: str) -> Picture:
    """``values`` [y, x] in the colours of ``scale``, at most :data:`FINEST` pixels large."""
    height, width = _on_page(values.shape)
    small = values if max(values.shape) <= FINEST else resample(values, scaled(values.shape, FINEST))
    levels = (small - scale.low) / (scale.high - scale.low)
    uri = gray(levels) if scale.cmap == "gray" else coloured(levels, scale.cmap)
    return {
        "uri": uri,
        "width": width,
        "height": height,
        "caption": caption,
        "coarse": max(small.shape) < SIDE,
        "round": bool(np.isnan(values).any()),
    }


def _on_page(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width on the page: the longer side is :data:`SIDE`."""
    return max(1, round(SIDE * shape[0] / max(shape))), max(1, round(SIDE * shape[1] / max(shape)))


def _leds(known: Calibration, objective_na: float | None) -> Picture:
    """Where the LEDs stand, as the image sees them: y downwards; what is left out is hollow."""
    na = known.na[:MOST_LEDS]
    reach = MAP * max(float(np.abs(na).max()), objective_na or 0.0, 1e-6)
    used = known.used[: len(na)] if known.patterns is None else np.ones(len(na), bool)
    radius = float(np.clip(1.2 / np.sqrt(len(na)), 0.02, 0.06))
    dots = [{"x": x / reach, "y": y / reach, "used": bool(u)} for (x, y), u in zip(na.tolist(), used, strict=True)]
    caption = "LEDs (NA)" if objective_na is None else f"LEDs, circle: NA {objective_na:.3g}"
    circle = None if objective_na is None else objective_na / reach
    return {"dots": dots, "circle": circle, "radius": radius, "side": SIDE, "caption": caption}
