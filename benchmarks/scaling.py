"""How cost grows with image size, LEDs and planes, for each solver: fitted exponents, and memory against planes.

    python benchmarks/scaling.py

Cost is what a run with default options takes: the mean time of a step × the number of steps; for ``ap``, which stops
by itself, a run of 8 sweeps to its end.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import common
import numpy as np

SOLVERS = ("inr", "ap", "adam")
SIDES, QUICK_SIDES = (64, 96, 128, 192, 256, 384, 512), (16, 24)
LEDS, QUICK_LEDS = (9, 17, 34, 68, 136, 272), (9, 17)
PLANES, QUICK_PLANES = (1, 3, 5, 11, 21, 41, 81), (1, 3)
FIXED = {"side": 128, "leds": 68, "planes": 5}  # where the other two stand while one is varied
QUICK_FIXED = {"side": 16, "leds": 9, "planes": 2}
AXES = {"side": "pixels of an image", "leds": "LEDs", "planes": "planes 1 µm apart"}
NA_LED = 0.25  # the LEDs fill this disc, however many there are
STEPS_S = 1.0  # some steps, or one
AP = {"sweeps": 8, "stop_below": 0}


def main() -> None:
    """Measure, write ``scaling.json`` and ``scaling.png``, print the table."""
    args = common.parser(__doc__.splitlines()[0], repeats=1).parse_args()
    values = (QUICK_SIDES, QUICK_LEDS, QUICK_PLANES) if args.quick else (SIDES, LEDS, PLANES)
    points = [
        {"axis": axis, **measure(args, axis, value, solver)}
        for axis, series in zip(AXES, values, strict=True)
        for value in series
        for solver in SOLVERS
    ]
    fits = {
        f"{quantity} {axis}": {solver: exponent(points, axis, solver, quantity) for solver in SOLVERS}
        for axis in AXES
        for quantity in ("full_seconds", "peak_memory_mb")
    }
    record = common.keep(
        "scaling", args, {"points": points, "fits": fits, "fixed": QUICK_FIXED if args.quick else FIXED}
    )
    plot(record, args.results / "scaling.png")
    print(section(record))


def measure(args: argparse.Namespace, axis: str, value: int, solver: str) -> common.Record:
    """One point: ``value`` along ``axis``, the others where :data:`FIXED` has them."""
    at = {**(QUICK_FIXED if args.quick else FIXED), axis: value}
    print(f"{solver}: {at}", file=sys.stderr, flush=True)
    data = common.simulated(args.cache, (at["side"], at["side"]), sample="thin", leds=disc(at["leds"]))
    whole = common.spec(args, data, solver, AP if solver == "ap" else {}, tuple(map(float, range(at["planes"]))))
    wanted = whole if solver == "ap" else common.briefly(whole, 0.05 if args.quick else STEPS_S)
    runs = [common.work(wanted, args) for _ in range(args.repeats)]
    runs = [run | ({"full_seconds": run["seconds"]} if solver == "ap" else {}) for run in runs]
    best = min(runs, key=lambda run: float(run["full_seconds"]))
    return {"at": value**2 if axis == "side" else value, **best}


def disc(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """``count`` directions spread evenly over a disc, the first in its centre, [led, (x, y)]."""
    index = np.arange(count)
    radius = NA_LED * np.sqrt(index / max(count - 1, 1))
    angle = index * math.pi * (3 - math.sqrt(5))
    return np.round(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), 6)


def exponent(points: list[common.Record], axis: str, solver: str, quantity: str) -> float:
    """Slope of a straight line through the points in log-log axes."""
    chosen = [point for point in points if point["axis"] == axis and point["solver"] == solver]
    at, found = (np.log([float(point[name]) for point in chosen]) for name in ("at", quantity))
    return float(np.polyfit(at, found, 1)[0])


def plot(record: common.Record, path: Path) -> None:
    """Cost against each axis, and memory against planes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    wanted = [*((axis, "full_seconds") for axis in AXES), ("planes", "peak_memory_mb")]
    for panel, (axis, quantity) in zip(panels, wanted, strict=True):
        for solver in SOLVERS:
            chosen = [point for point in record["points"] if point["axis"] == axis and point["solver"] == solver]
            slope = record["fits"][f"{quantity} {axis}"][solver]
            at, found = ([point[name] for point in chosen] for name in ("at", quantity))
            panel.loglog(at, found, "o-", label=f"{solver}: exponent {slope:.2f}")
        panel.set_xlabel(AXES[axis])
        panel.set_ylabel("s" if quantity == "full_seconds" else "peak memory, MB")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def section(record: common.Record) -> str:
    """The record as Markdown."""
    fits, fixed = record["fits"], record["fixed"]
    rows = [
        (
            f"`{solver}`",
            *(f"{fits[f'full_seconds {axis}'][solver]:.2f}" for axis in AXES),
            f"{fits['peak_memory_mb planes'][solver]:.2f}",
            *(common.show(point["peak_memory_mb"]) for point in _ends(record, solver)),
        )
        for solver in SOLVERS
    ]
    few, many = (point["at"] for point in _ends(record, SOLVERS[0]))
    return "\n\n".join(
        [
            "Exponents of straight lines fitted in log-log axes to the cost of a run with default options: 1 is "
            f"linear. While one is varied the others stay at {fixed['side']}² pixels, {fixed['leds']} LEDs, "
            f"{fixed['planes']} planes. `ap` does 8 sweeps here. Memory is that of the whole process.",
            common.table(
                ("", "time: pixels", "LEDs", "planes", "memory: planes", f"MB at {few}", f"MB at {many} planes"), rows
            ),
            "![cost against size](results/scaling.png)",
        ]
    )


def _ends(record: common.Record, solver: str) -> tuple[common.Record, common.Record]:
    chosen = [point for point in record["points"] if point["axis"] == "planes" and point["solver"] == solver]
    return chosen[0], chosen[-1]


if __name__ == "__main__":
    common.to_the_end(main)
