"""A result by the bars of a resolution target: their contrast against their frequency, as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fpmtools.cli._inputs import one_plane
from fpmtools.cli._output import echo, print_json
from fpmtools.errors import DataError, FpmError

if TYPE_CHECKING:
    from fpmtools.reconstruction import Reconstruction


AUTO = "auto"


def judge(result: Path, listed: Path, z_um: float | None, phase: bool, figure_file: Path, as_json: bool) -> None:
    """Measure the bars that the file ``listed`` names, with "auto" all that are found; print the numbers, draw them."""
    import numpy as np

    from fpmtools.metrics import finding, targets
    from fpmtools.report import figures
    from fpmtools.report.targets import bar_contrasts
    from fpmtools.results import open_result

    wanted = None if str(listed) == AUTO else targets.from_file(listed)
    reconstruction = open_result(result)
    z_um = one_plane(reconstruction, result) if z_um is None else z_um
    field, pixel_um = reconstruction.field(z_um), reconstruction.grid.pixel_um
    image = np.angle(field * np.conj(field.mean())) if phase else np.square(np.abs(field))
    if wanted is None and not (wanted := finding.find_bars(image, pixel_um)):
        other = "intensity (leave out --phase)" if phase else "phase (--phase)"
        raise DataError(f"{result}: no three-bar elements are found; name them in a file, or look at the {other}")
    found = [targets.field_contrast(field, pixel_um, bars, phase=phase) for bars in wanted]
    cutoffs = _cutoffs(result, reconstruction, phase)
    extent_um = reconstruction.grid.extent_um
    figures.save(bar_contrasts(image, extent_um, found, cutoffs, phase=phase), figure_file)
    unit = "rad" if phase else "contrast"
    if as_json:
        rows = [
            {"label": one.bars.label, "per_mm": one.bars.per_mm, "x_um": one.bars.x_um, "y_um": one.bars.y_um,
             "angle_deg": one.bars.angle_deg, "contrast": one.contrast, "moved_um": one.moved_um}
            for one in found
        ]  # fmt: skip
        print_json(
            {"bars": rows, "of": "phase" if phase else "intensity", "cutoffs": cutoffs, "figure": str(figure_file)}
        )
        return
    echo(f"{'element':<12} {'per mm':>8} {'bar (µm)':>9} {'angle':>6} {unit:>9} {'moved (µm)':>11}")
    for one in found:
        bars = one.bars
        echo(
            f"{bars.label:<12.12} {bars.per_mm:>8.1f} {bars.width_um:>9.3f} {bars.angle_deg:>6.0f} "
            f"{one.contrast:>9.3f} {one.moved_um:>+11.3f}"
        )
    for label, per_mm in cutoffs.items():
        echo(f"cut-off: {label} {per_mm:.0f} per mm")
    echo(f"figure   {figure_file}")


def _cutoffs(result: Path, reconstruction: Reconstruction, phase: bool) -> dict[str, float]:
    """Line pairs per mm that the optics pass, where the run beside the result tells of them."""
    from fpmtools.optics import Optics
    from fpmtools.runs.folder import RUN_FILE
    from fpmtools.runs.spec import read_json

    known = reconstruction.calibration
    place = (result if result.is_dir() else result.parent) / RUN_FILE
    if known is None or not place.is_file():
        return {}
    try:
        optics = Optics(**read_json(place)["data"]["optics"])
    except (FpmError, KeyError, TypeError):
        return {}
    synthetic = 1000 * optics.synthetic_na(known.selected().na) / optics.wavelength_um
    found = {"objective NA/λ": 1000 * optics.cutoff, "synthetic NA/λ": synthetic}
    # A sum of two waves inside the aperture differs by up to twice its radius.
    return found if phase else {**found, "intensity 2NA/λ": 2 * synthetic}
