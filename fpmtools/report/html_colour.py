"""What the report shows of a run in several colours: their picture, and what brought them onto each other."""

from __future__ import annotations

from typing import Any

from fpmtools.colour.result import ColourReconstruction
from fpmtools.display import number as short
from fpmtools.report import html_images, rendering
from fpmtools.report.contrast import length_label, scale_bar_um

LARGEST = 900  # pixels of the picture's longer side


def shown(result: ColourReconstruction, z_um: float) -> dict[str, Any]:
    """The picture, and what brought each colour onto the others."""
    grid = result.grid
    bar_um = scale_bar_um(grid.extent_um[1])
    picture = result.colour(z_um, rendering.scaled(grid.shape, LARGEST))
    return {
        "uri": html_images.photograph(picture),
        "bar": length_label(bar_um),
        "bar_percent": 100 * bar_um / grid.extent_um[1],
        "z": f"{short(z_um)} µm",
        "reference": result.reference,
        "colours": [_told(result, name, shade) for name, shade in result.shown_in().items()],
    }


def _told(result: ColourReconstruction, name: str, shade: str) -> dict[str, str]:
    about, own = result.parts[name], name == result.reference
    y, x = about.place.shift
    low, high = (z + about.z_um for z in result.grid.z_range)
    return {
        "name": name,
        "shade": f"#{shade}",
        "nm": short(1e3 * about.wavelength_um),
        "z": short(low, 3) if low == high else f"{short(low, 3)} … {short(high, 3)}",
        "moved": "–" if own else f"{x:+.2f}, {y:+.2f}".replace("-", "−"),
        "scale": f"{about.place.scale:+.4%}".replace("-", "−") if about.place.scale else "–",
        "alike": "–" if own else f"{about.place.correlation:.3f}",
        "white": f"{about.white:.3f}",
    }
