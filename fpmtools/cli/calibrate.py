"""``fpmtools calibrate``: pupil, LED board, gains and background from the images, as a file that runs take."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _complete, _inputs
from fpmtools.cli._groups import Grouped
from fpmtools.cli._output import claim_file, echo, print_json
from fpmtools.cli._progress import Progress
from fpmtools.runs.spec import GROUPS, DataSpec, RunSpec

if TYPE_CHECKING:
    from fpmtools.calibration import Calibration


@click.command(cls=Grouped, short_help="Find the instrument from the images.")
@click.argument("data", metavar="NAME|PATH", shell_complete=_complete.data)
@_inputs.reading_options
@click.option(
    "--z", "z_um", type=float, help="Where the sample is, µm. Default: what the data say, else it is looked for."
)
@click.option(
    "--groups", metavar="NAME,...", default="auto", help=f"What to look for, of {', '.join(GROUPS)}. Default: all."
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Random seed.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("calibration.safetensors"), show_default=True)
@_inputs.force_option
@_inputs.quiet_option
@_inputs.json_option
def calibrate(
    data: str,
    z_um: float | None,
    groups: str,
    seed: int,
    out: Path,
    force: bool,
    quiet: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """Fit pupil, LED board, gains and background together with the object, and write what was found.

    Each is kept only if images of LEDs that the object has not seen are predicted better with it. Runs take the file by
    --calibration FILE; where nothing is found it says what the data say.
    """
    planes = None if z_um is None else (z_um,)
    RunSpec(DataSpec("data"), "ap", z_um=planes, calibrate=groups)
    claim_file(out, force)
    from fpmtools.calibrate import calibrate as fit_instrument
    from fpmtools.calibrate import resolve

    given = _inputs.take_reading(reading)
    dataset = _inputs.load(data, given)
    shown = Progress("calibrate", style="none" if quiet else "auto")
    start = resolve(dataset)
    found = fit_instrument(
        dataset,
        groups,
        z_um=planes,
        start=start,
        seed=seed,
        progress=False,
        on_step=lambda step, steps: shown.show({"event": "calibrating", "step": step, "total": steps}),
    )
    shown.finish()
    found.save(out, dataset.optics, dataset.box)
    words = ["fpmtools", "run", "--data", data, *_inputs.spelled(given), "--calibration", str(out)]
    known = planes or replace(dataset, calibration=found).planes_um
    about = {
        "file": str(out),
        "z_um": known[len(known) // 2],
        "joint": found.found.get("joint"),
        "command": shlex.join(words),
    }
    if as_json:
        print_json(about)
    else:
        _show(found, start)
        echo(f"\nwritten to {out}. To run with it:\n  {about['command']}")


def _show(found: Calibration, start: Calibration) -> None:
    import numpy as np

    from fpmtools.calibrate import NAMES

    report = found.found.get("joint")
    if report is None:
        echo("Nothing is looked for: too few or too small images, patterns, or no bright field.")
        return
    echo(f"error of the bright field: {report['explained']:.3g} × what noise alone makes")
    if "fitted" not in report:
        echo("The images agree with what is known of the instrument: there is nothing to find.")
        return
    if "diverged" in report:
        echo(f"The fit went astray, and nothing is changed: {report['diverged']}")
        return
    echo(f"error of left-out images: {report['nominal']:.3g} → {report['fitted']:.3g}; of it, without and with")
    if not report["groups"]:
        echo("  the sample has depth, and nothing that is looked for promises to explain the images better")
    for name, group in report["groups"].items():
        verdict = "kept" if group["kept"] else "not kept"
        echo(f"  {NAMES[name]:<40} {group['without']:.3g} → {group['with']:.3g}  {verdict}")
    if told := report["singular_values"]:
        sure = sum(value > 1 for value in told)
        echo(f"board and pupil: {sure} of {len(told)} combinations of numbers are told by the images")
        echo(f"  (singular values {told[0]:.2g} to {told[-1]:.2g}; 1: what is expected of any microscope)")
    if "exposure" in report:
        echo(f"the dark field's exposure: {report['exposure']:.3g} × the bright field's")
    if "depth_um" in report:
        echo(f"the sample is at z = {report['depth_um']:.3g} µm")
    echo(f"edge of the pupil: {report['softness'] or 'sharp'}{' Fourier pixels soft' if report['softness'] else ''}")
    echo(f"margin: {report['margin']} camera pixels beyond the border")
    if shares := report.get("residual"):
        shown = ", ".join(f"{share:.1%}" for share in shares)
        echo(f"what is left, its first pictures over the LEDs: {shown} of the squared error")
    rms = np.sqrt(np.square(found.pupil.zernike_rad[3:] - _padded(start.pupil.zernike_rad, found)[3:]).sum())
    moved = np.linalg.norm(found.na - start.na, axis=1)
    echo(
        f"pupil: {rms / (2 * np.pi):.3g} waves rms; LEDs moved by NA {np.sqrt(np.square(moved).mean()):.3g} rms; "
        f"gains ± {100 * np.std(np.log(found.gain)):.2g} %"
    )


def _padded(zernike: Any, found: Calibration) -> Any:
    import numpy as np

    count = len(found.pupil.zernike_rad)
    return np.pad(zernike[:count], (0, max(count - len(zernike), 0)))
