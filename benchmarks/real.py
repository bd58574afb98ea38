"""What is wrong with a microscope, one thing at a time and all together: every solver, with and without calibration.

    python benchmarks/real.py [--measured FOLDER]

Simulated: 81 LEDs, most of them dark field, 500 photons per pixel, and the middle of a wider field but for *clean* and
*noisy*. The instrument is as the data set says, or its LED board stands off, turned, nearer and with single LEDs out
of place (*board*), or the lens has aberrations, or the LEDs differ in brightness, or the corners are dark; or all of
it. A number is the quality of the complex field in dB, −20 log₁₀ of its relative error, without a constant and a linear
phase, which no measurement tells, and without an eighth of the field at each side. Other packages run at their own
defaults, as in ``peers.py``.

Measured sets have none: there it is the residual of the bright and dark field, χ² (squared error over what noise makes)
and the error of left-out LEDs, with the instrument as given and as found.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import peers
from held_out import true_error

import fpmtools
from fpmtools import evaluation, threads
from fpmtools.calibrate import improve, resolve
from fpmtools.calibration import JOINT, Calibration
from fpmtools.dataset import Dataset
from fpmtools.formats import native
from fpmtools.pupil import Pupil

SIDE, QUICK_SIDE, WIDER = 96, 48, 2
PHOTONS, ABERRATION_RAD, VIGNETTING = 500.0, 0.9, 0.3
SOLVERS = ("ap", "adam", "inr", "epry", "lbfgs", "admm", "mpie", "fd")
MEASURED = ("uconn_red", "uconn_aberration", "thu_phase_target", "elfpie")
MEASURED_SOLVERS = ("ap", "inr")
MEASURED_SIDE = 96
FIT = ("residual_bright", "residual_dark", "chi2_bright", "chi2_dark", "held_out")


def board(data: Dataset, rng: np.random.Generator) -> Dataset:
    """It is said to stand where it does not: by 0.8 % of its distance, 1.5°, 1 %, and each LED by 0.002 NA."""
    angle, (x, y) = math.radians(1.5), 0.008 * np.array([0.8, -0.6])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    tangent = data.na / np.sqrt(1 - np.square(data.na).sum(1, keepdims=True))
    moved = 1.01 * tangent @ turn + [x, y]
    na = moved / np.sqrt(1 + np.square(moved).sum(1, keepdims=True)) + rng.normal(0, 0.002, moved.shape)
    return data.with_calibration(na=na)


def gains(data: Dataset, rng: np.random.Generator) -> Dataset:
    """LEDs of ± 10 %, and stray light of 0.5 % of the bright field."""
    factors = np.exp(0.1 * rng.standard_normal(data.n_images))
    stray = 0.005 * data.intensities.mean((1, 2)).max()
    return data.with_images((data.intensities * factors[:, None, None] + stray).astype(np.float32))


WRONG: dict[str, tuple[dict[str, Any], tuple[Callable[..., Dataset], ...]]] = {
    "clean": ({"on_grid": True, "photons": None, "surround": 1}, ()),
    "noisy": ({"surround": 1}, ()),
    "tile": ({}, ()),
    "board": ({}, (board,)),
    "aberrated": ({"aberration_rad": ABERRATION_RAD}, ()),
    "gains": ({}, (gains,)),
    "vignetted": ({"vignetting": VIGNETTING}, ()),
    "all": ({"aberration_rad": ABERRATION_RAD, "vignetting": VIGNETTING}, (gains, board)),
}


def main() -> None:
    """Measure, write ``real.json``, print the tables."""
    parser = common.parser(__doc__.splitlines()[0], repeats=1)
    common.measured_option(parser)
    peers.opponent_options(parser)
    parser.add_argument("--sets", metavar="NAME,…", default=",".join(WRONG), help="only these simulated sets")
    parser.add_argument("--solvers", metavar="NAME,…", default=",".join(SOLVERS), help="only these of our solvers")
    args = parser.parse_args()
    labels, solvers = args.sets.split(","), args.solvers.split(",")
    if args.quick:
        args.measured, labels, solvers = Path(), labels[:2], solvers[:2]
    with threads.limited(args.threads):
        sets = {label: simulated(label, solvers, args) for label in labels}
        there = ((name, data) for name, data in common.measured(args.measured) if name in MEASURED)
        found = {name: on_measured(name, data, solvers) for name, data in blind(there)}
    opponents = peers.installed(args)
    measured = {
        "versions_of_opponents": peers.versions(opponents),
        "side": QUICK_SIDE if args.quick else SIDE,
        "measured_side": MEASURED_SIDE,
        "sweeps": peers.SWEEPS,
        "sets": sets,
        "measured": found,
    }
    print(section(common.keep("real", args, measured)))


def made(label: str, args: argparse.Namespace) -> Path:
    """File of a simulated set."""
    side = QUICK_SIDE if args.quick else SIDE
    arguments, changes = WRONG[label]
    usual = {"sample": "thin", "leds": peers.LEDS, "optics": peers.OPTICS, "photons": PHOTONS, "surround": WIDER}
    file = common.simulated(args.cache, (side, side), **{**usual, **arguments})
    data = fpmtools.load(file)
    for number, change in enumerate(changes):
        data = change(data, np.random.default_rng([number, 7]))
    return native.save(data, args.cache / f"real-{label}-{side}.safetensors")


def simulated(label: str, solvers: list[str], args: argparse.Namespace) -> common.Record:
    """All solvers and opponents on one set; a number and its seconds for each."""
    file = made(label, args)
    data = fpmtools.load(file)
    begun = time.perf_counter()
    found = improve(data, resolve(data))
    seconds = time.perf_counter() - begun
    rows = {}
    for solver in solvers:
        rows[solver] = {
            how: solved(data, solver, calibration) for how, calibration in (("none", data.calibration), ("auto", found))
        }
        print(label, solver, rows[solver], file=sys.stderr, flush=True)
    for package, python in peers.installed(args).items():
        for solver in peers.OPPONENTS[package][: 1 if args.quick else None]:
            record = peers.opponent(package, python, solver, peers.SWEEPS, file, args.threads, score=quality)
            rows[f"{package} {solver}"] = {"none": record}
            print(label, package, solver, record, file=sys.stderr, flush=True)
    return {"calibrate_s": seconds, "kept": _kept(found), "rows": rows}


def solved(data: Dataset, solver: str, calibration: Calibration) -> common.Record:
    """Quality and seconds of one run with that instrument."""
    begun = time.perf_counter()
    result = fpmtools.reconstruct(data, solver, calibration=calibration)
    return {"seconds": time.perf_counter() - begun, **quality(result, data)}


def quality(result: Any, data: Dataset) -> common.Record:
    """The field in dB, see the top of this file."""
    return {"field_db": -20 * math.log10(max(true_error(result, data), 1e-9))}


def on_measured(name: str, data: Dataset, solvers: list[str]) -> common.Record:
    """The middle of a measured set, as its files say the instrument to be and as it is found."""
    side = min(MEASURED_SIDE, *data.image_shape)
    y, x = ((n - side) // 2 for n in data.image_shape)
    data = data.crop(y, x, side, side)
    begun = time.perf_counter()
    given = resolve(data)
    found = improve(data, given)
    entry = {"calibrate_s": time.perf_counter() - begun, "kept": _kept(found), "rows": {}}
    for solver in [solver for solver in MEASURED_SOLVERS if solver in solvers]:
        entry["rows"][solver] = {}
        for how, calibration in (("none", given), ("auto", found)):
            begun, seen = time.perf_counter(), replace(data, calibration=calibration)
            solve = partial(fpmtools.reconstruct, solver=solver, calibration="nominal")
            result = solve(seen)
            seconds = time.perf_counter() - begun
            numbers = evaluation.evaluate(result, seen, FIT, solver=solve)
            entry["rows"][solver][how] = {"seconds": seconds, **numbers}
            print(name, solver, how, entry["rows"][solver][how], file=sys.stderr, flush=True)
    return entry


def blind(sets: Iterator[tuple[str, Dataset]]) -> Iterator[tuple[str, Dataset]]:
    """These, and those of a known focus or pupil once more without."""
    for name, data in sets:
        yield name, data
        known = data.calibration
        if known.defocus_um or not known.pupil.ideal:
            yield f"{name}, blind", replace(data, calibration=replace(known, defocus_um=None, pupil=Pupil()))


def _kept(found: Calibration) -> list[str]:
    report = found.found.get(JOINT, {})
    kept = [name for name, group in report.get("groups", {}).items() if group["kept"]]
    return kept + [name for name in ("softness", "margin") if report.get(name)]


def section(record: common.Record) -> str:
    """The record as Markdown."""
    sets, versions = record["sets"], record["versions_of_opponents"]
    labels = next(iter(sets.values()))["rows"]
    opponents = ", ".join(f"{name} {version}" for name, version in versions.items()) or "none"

    def lines(number: str) -> list[tuple[str, ...]]:
        return [
            (
                name if " " in name else f"`{name}`",
                *(_none_auto(entry["rows"][name], number) for entry in sets.values()),
            )
            for name in labels
        ]

    rows: list[tuple[Any, ...]] = [*lines("field_db")]
    rows.append(("calibration, s", *(entry["calibrate_s"] for entry in sets.values())))
    rows.append(("kept", *(", ".join(entry["kept"]) or "nothing" for entry in sets.values())))
    parts = [
        f"81 LEDs, {record['side']}² → {2 * record['side']}², NA 0.1, 500 photons per pixel (*clean*: no noise). "
        "Quality of the complex field in dB with the instrument as given → as found; other packages at their own "
        f"defaults and {record['sweeps']} sweeps ({opponents}).",
        common.table(("", *sets), rows),
        common.table(("seconds, one run", *sets), lines("seconds")),
    ]
    if record["measured"]:
        rows = [
            (f"{name}, `{solver}`", *(_none_auto(row, number) for number in FIT), _none_auto(row, "seconds"))
            for name, entry in record["measured"].items()
            for solver, row in entry["rows"].items()
        ]
        kept = "; ".join(
            f"{name}: {', '.join(entry['kept']) or 'nothing'}" for name, entry in record["measured"].items()
        )
        header = ("", "bright field", "dark field", "χ², bright", "χ², dark", "left-out LEDs", "s")
        parts += [
            f"**Measured**, the middle {record['measured_side']}² pixels: residual of the amplitudes, χ², error of "
            f"left-out LEDs. Kept: {kept}. *Blind*: without the focus and the pupil that the files tell.",
            common.table(header, rows),
        ]
    return "\n\n".join(parts)


def _none_auto(row: common.Record, name: str) -> str:
    """As given → as found; one number where there is but one."""
    if "failed" in row["none"]:
        return "failed"
    return " → ".join(common.show(row[how].get(name)) for how in ("none", "auto") if how in row)


if __name__ == "__main__":
    common.to_the_end(main)
