"""``fpmtools calibrate``: pupil, LED board, gains and background from the images, as a file that runs take."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _inputs
from fpmtools.cli._output import claim_file, echo, print_json
from fpmtools.errors import OptionError, unknown

if TYPE_CHECKING:
    from fpmtools.calibration import Calibration

SHOWN = {
    "background": "a background for each image",
    "pupil": "aberrations of the objective",
    "board": "the LED board's place, rotation and height",
    "gain": "brightness of each LED",
    "jitter": "place of each LED",
}


@click.command(short_help="Find the instrument from the images.")
@click.argument("data", metavar="NAME|PATH")
@_inputs.reading_options
@click.option("--z", "z_um", type=float, help="Where the sample is, µm. Default: what the data say, else 0.")
@click.option("--groups", metavar="NAME,...", help=f"What to look for, of {', '.join(SHOWN)}. Default: all.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Random seed.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("calibration.safetensors"), show_default=True)
@_inputs.force_option
@_inputs.json_option
def calibrate(
    data: str, z_um: float | None, groups: str | None, seed: int, out: Path, force: bool, as_json: bool, **reading: Any
) -> None:
    """Fit pupil, LED board, gains and background together with the object, and write what was found.

    Each is kept only if images of LEDs that the object has not seen are predicted better with it. Runs take the file by
    --calibration FILE; where nothing is found it says what the data say.
    """
    chosen = tuple(SHOWN) if groups is None else tuple(word.strip() for word in groups.split(",") if word.strip())
    for name in chosen:
        if name not in SHOWN:
            raise unknown("group", name, SHOWN)
    if not chosen:
        raise OptionError("--groups names nothing to look for")
    claim_file(out, force)
    from fpmtools import calibrate as estimators
    from fpmtools.calibrate import joint
    from fpmtools.threads import limited

    given = _inputs.take_reading(reading)
    dataset = _inputs.load(data, given)
    depth = dataset.planes_um[len(dataset.planes_um) // 2] if z_um is None else z_um
    with limited(1):
        start = estimators.resolve(dataset)
        found = joint.fit(dataset, start, z_um=depth, groups=chosen, seed=seed)
    found.save(out, dataset.optics)
    words = ["fpmtools", "run", "--data", data, *_inputs.spelled(given), "--calibration", str(out)]
    about = {"file": str(out), "z_um": depth, "joint": found.found.get("joint"), "command": shlex.join(words)}
    if as_json:
        print_json(about)
    else:
        _show(found, start)
        echo(f"\nwritten to {out}. To run with it:\n  {about['command']}")


def _show(found: Calibration, start: Calibration) -> None:
    import numpy as np

    report = found.found.get("joint")
    if report is None:
        echo("Nothing is looked for: too few images, patterns, or no bright field.")
        return
    echo(f"error of the bright field: {report['explained']:.3g} × what noise alone makes")
    if not report["groups"]:
        echo("The images agree with what is known of the instrument: there is nothing to find.")
        return
    echo("error of images that the object has not seen, without and with")
    for name, group in report["groups"].items():
        verdict = "kept" if group["kept"] else "not kept"
        echo(f"  {SHOWN[name]:<43} {group['without']:.3g} → {group['with']:.3g}  {verdict}")
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
