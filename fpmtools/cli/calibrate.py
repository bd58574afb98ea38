"""``fpmtools calibrate``: pupil, LED board, gains and background from the images, as a file that runs take."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fpmtools.cli import _complete, _inputs
from fpmtools.cli._groups import Grouped
from fpmtools.cli._output import claim_file, echo, print_json
from fpmtools.cli._progress import Progress
from fpmtools.runs import log
from fpmtools.runs.spec import GROUPS, DataSpec, RunSpec


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
@_inputs.verbose_option
@_inputs.json_option
def calibrate(
    data: str,
    z_um: float | None,
    groups: str,
    seed: int,
    out: Path,
    force: bool,
    quiet: bool,
    verbose: bool,
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
    from fpmtools.calibrate.telling import told

    given = _inputs.take_reading(reading)
    dataset = _inputs.load(data, given)
    shown, lines = Progress("calibrate", style="none" if quiet else "auto", verbose=verbose), log.Lines()

    def tell(event: dict[str, Any]) -> None:
        if (line := lines(event)) is not None:
            shown.show({"event": log.LOG, "text": line})
        if event["event"] != log.LOG:
            shown.show(event)

    start = resolve(dataset)
    for text in (log.of_versions(), log.of_data(dataset)):
        tell({"event": log.LOG, "text": text})
    found = fit_instrument(
        dataset,
        groups,
        z_um=planes,
        start=start,
        seed=seed,
        progress=False,
        on_step=lambda step, steps: tell({"event": "calibrating", "step": step, "total": steps}),
    )
    for text in log.of_calibration(found):
        tell({"event": log.LOG, "text": text})
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
        for line in told(found, start):
            echo(line)
        echo(f"\nwritten to {out}. To run with it:\n  {about['command']}")
