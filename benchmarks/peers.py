"""Other packages on the same arrays, by the same score: fpm-rs and PtyLab.py, where they are installed.

    python3.12 -m venv out/fpmrs-venv && out/fpmrs-venv/bin/pip install --pre fpm-rs
    python3.12 -m venv out/ptylab-venv && out/ptylab-venv/bin/pip install ptylab
    python benchmarks/peers.py

Three sets of 81 LEDs, 128² → 256², NA 0.1, most of them dark field: *clean* (LEDs on the Fourier grid, no noise; an
inverse crime, shown for reference), *noisy* (the same at 500 photons per pixel) and *tile* (the centre of a field four
times as wide: LEDs off the grid, light crossing the borders). Then the duel on the noisy set: the fewest sweeps with
which the best solver of fpm-rs comes close to its best, and those with which ``ap`` is as good, timed in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np

import fpmtools
from fpmtools import metrics
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster

OPTICS = {"wavelength_um": 0.5226, "na": 0.1, "magnification": 4.0, "camera_pixel_um": 4.0}
LEDS = direction_sines(raster(9, 9, 4.0), 90.0)
SIDE, QUICK_SIDE = 128, 32
WIDER = 4
SWEEPS, QUICK_SWEEPS = 20, 2
COURSE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)  # sweeps that each side of the duel is given, to see when it gets where
NEAR_DB = 0.1  # an opponent counts as arrived this close to its best
INSTALLED = {"fpm-rs": "fpmrs-venv", "ptylab": "ptylab-venv"}
OPPONENTS = {
    "fpm-rs": ("AlternatingProjection", "AdaptiveAlternatingProjection", "Fpie", "Epry", "GradientDescent", "Admm"),
    "ptylab": ("ePIE", "qNewton", "mqNewton"),
}
SWEEP_OPTION = {"fpm-rs": "iterations", "ptylab": "numIterations"}


def main() -> None:
    """Measure, write ``peers.json``, print the tables."""
    parser = common.parser(__doc__.splitlines()[0])
    opponent_options(parser)
    args = parser.parse_args()
    opponents = installed(args)
    files = data_sets(args)
    rows = [row for label, file in files.items() for row in everyone(label, file, opponents, args)]
    measured = {
        "versions_of_opponents": versions(opponents),
        "side": QUICK_SIDE if args.quick else SIDE,
        "sweeps": QUICK_SWEEPS if args.quick else SWEEPS,
        "rows": rows,
        "duel": duel(files["noisy"], rows, opponents["fpm-rs"], args) if "fpm-rs" in opponents else None,
    }
    print(section(common.keep("peers", args, measured)))


def opponent_options(parser: argparse.ArgumentParser) -> None:
    """``--fpm-rs PYTHON``, ``--ptylab PYTHON``."""
    for name, folder in INSTALLED.items():
        default = common.HERE.parent / "out" / folder / "bin" / "python"
        parser.add_argument(f"--{name}", type=Path, default=default, metavar="PYTHON", help=f"a Python that has {name}")


def installed(args: argparse.Namespace) -> dict[str, Path]:
    """The Python of each opponent that there is one of."""
    pythons = {name: getattr(args, name.replace("-", "_")) for name in INSTALLED}
    return {name: python for name, python in pythons.items() if python.is_file()}


def versions(opponents: Mapping[str, Path]) -> dict[str, str]:
    """Of these."""
    return {name: _version(name, python) for name, python in opponents.items()}


def data_sets(args: argparse.Namespace) -> dict[str, Path]:
    """Files of the three sets."""
    side = QUICK_SIDE if args.quick else SIDE
    common_arguments: dict[str, Any] = {"sample": "thin", "leds": LEDS, "optics": OPTICS}
    clean = common.simulated(args.cache, (side, side), on_grid=True, **common_arguments)
    noisy = common.simulated(args.cache, (side, side), on_grid=True, photons=500.0, **common_arguments)
    wide = common.simulated(args.cache, (WIDER * side, WIDER * side), **common_arguments)
    tile = wide.with_name(f"tile-{wide.name}")
    if not tile.is_file():
        corner = (WIDER - 1) * side // 2
        native.save(fpmtools.load(wide).crop(corner, corner, side, side), tile)
    return {"clean": clean, "noisy": noisy, "tile": tile}


def everyone(label: str, file: Path, opponents: dict[str, Path], args: argparse.Namespace) -> list[common.Record]:
    """Every opponent and every solver of ours on one set."""
    sweeps = QUICK_SWEEPS if args.quick else SWEEPS
    rows = []
    for package, python in opponents.items():
        for solver in OPPONENTS[package][: 1 if args.quick else None]:
            for snap in (False, True) if label == "tile" else (False,):
                found = opponent(package, python, solver, sweeps, file, args.threads, snap=snap)
                name = f"{package} {solver}" + (", LEDs moved to the grid" if snap else "")
                rows.append({"set": label, "package": package, "solver": solver, "label": name, **found})
    for solver in ("ap", "adam", "inr"):
        options = {"steps": 20} if args.quick and solver == "inr" else {}
        found = common.work(common.spec(args, file, solver, options), args)
        rows.append({"set": label, "package": "fpmtools", "solver": solver, "label": f"`{solver}`", **_brief(found)})
    return rows


def _scores(plane: fpmtools.Reconstruction, data: fpmtools.Dataset) -> common.Record:
    scores = metrics.score(plane, data)
    return {name: scores[name] for name in common.QUALITY}


def opponent(
    package: str,
    python: Path,
    solver: str,
    sweeps: int,
    file: Path,
    threads: int,
    *,
    snap: bool = False,
    score: Callable[[fpmtools.Reconstruction, fpmtools.Dataset], common.Record] = _scores,
) -> common.Record:
    """Another package's run on the same arrays; ``snap`` moves the LEDs to the Fourier grid first."""
    data = fpmtools.load(file)
    truth = data.truth
    assert truth is not None
    height, width = data.image_shape
    na, order = data.na, data.calibration.order
    if snap:
        step = data.optics.wavelength_um / (np.array([width, height]) * data.optics.pixel_um)
        na = np.rint(na / step) * step
    job = {**OPTICS, "object_shape": truth.field.shape, "solver": solver, "options": {SWEEP_OPTION[package]: sweeps}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # What noise leaves below zero counts as zero; some packages refuse it.
        np.save(folder / "intensities.npy", np.maximum(data.intensities[order], 0).astype(np.float64))
        np.save(folder / "na.npy", na[order])
        (folder / "job.json").write_text(json.dumps(job))
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}
        command = [str(python), str(common.HERE / "opponents.py"), package, str(folder)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "Agg", **limits}
        )
        if done.returncode:
            return {"failed": done.stderr.strip().splitlines()[-1]}
        field = np.load(folder / "object.npy").astype(np.complex64)
        seconds = json.loads((folder / "done.json").read_text())["seconds"]
    extent = (height * data.optics.pixel_um, width * data.optics.pixel_um)
    plane = fpmtools.PlaneStack(field[None], (0.0,), fpmtools.Grid(truth.field.shape, extent, (0.0, 0.0)))
    return {"seconds": seconds, **score(plane, data)}


def duel(file: Path, rows: list[common.Record], python: Path, args: argparse.Namespace) -> common.Record:
    """``ap`` against fpm-rs's best classical solver on the noisy set: time to the same in-band quality, in turn."""
    candidates = [row for row in rows if row["set"] == "noisy" and row["package"] == "fpm-rs" and "in_band_db" in row]
    best = max(candidates, key=lambda row: float(row["in_band_db"]))["solver"]
    counts = COURSE[: 2 if args.quick else None]
    theirs = {n: opponent("fpm-rs", python, best, n, file, args.threads)["in_band_db"] for n in counts}
    ours = {n: ours_after(n, file, args)["in_band_db"] for n in counts}
    goal = max(theirs.values()) - NEAR_DB
    enough, own = (next((n for n in counts if course[n] >= goal), None) for course in (theirs, ours))
    assert enough is not None
    cases = {"fpm-rs": partial(opponent, "fpm-rs", python, best, enough, file, args.threads)}
    if own is not None:
        for name, threads in {"ap": args.threads, "ap, one thread": 1}.items():
            cases[name] = partial(ours_after, own, file, argparse.Namespace(**{**vars(args), "threads": threads}))
    times = {
        name: common.spread(run["seconds"] for run in found)
        for name, found in common.interleaved(cases, args.repeats).items()
    }
    return {
        "opponent": best,
        "sweeps": enough,
        "own_sweeps": own,
        "goal_db": goal,
        "opponent_seconds": times.pop("fpm-rs"),
        "seconds": times or {"ap": None},
        "final_db": ours[counts[-1]],
        "course": [{"sweeps": n, "opponent_db": theirs[n], "ap_db": ours[n]} for n in counts],
    }


def ours_after(sweeps: int, file: Path, args: argparse.Namespace) -> common.Record:
    """``ap`` after so many sweeps, or fewer where it stops by itself."""
    return _brief(common.work(common.spec(args, file, "ap", {"sweeps": sweeps}), args))


def _brief(found: common.Record) -> common.Record:
    return {"seconds": found["seconds"], **found["quality"]}


def _version(name: str, python: Path) -> str:
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True).stdout.strip() or "unknown"


def section(record: common.Record) -> str:
    """The record as Markdown."""
    side, found = record["side"], record["duel"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions_of_opponents"].items()) or "none"
    parts = [
        f"81 LEDs, {side}² → {2 * side}², NA 0.1. Opponents at {record['sweeps']} sweeps and their own defaults, "
        f"ours at their defaults, one run each. Installed opponents: {versions}. In-band quality is "
        "10 log₁₀(Σ|t|² / Σ|t − g f|²) of the complex field inside the synthetic aperture."
    ]
    for label in ("clean", "noisy", "tile"):
        rows = [
            (row["label"], row.get("seconds", row.get("failed")), *_numbers(row))
            for row in record["rows"]
            if row["set"] == label
        ]
        parts += [f"**{label}**", common.table(("", "s", "in band, dB", "amplitude PSNR, dB", "phase, rad"), rows)]
    if found:
        lines = [(f"fpm-rs {found['opponent']}, {found['sweeps']} sweeps", found["opponent_seconds"], 1)]
        for name, seconds in found["seconds"].items():
            share = seconds and seconds["median"] / found["opponent_seconds"]["median"]
            sweeps = f", {own} sweeps" if (own := found.get("own_sweeps")) else ""
            lines.append((f"`ap`{sweeps}{name.removeprefix('ap')}", seconds or "not reached", share))
        parts += [
            f"**The duel**: time to {found['goal_db']:.2f} dB in band on the noisy set, which is {NEAR_DB} dB below "
            f"the best that any number of sweeps up to {COURSE[-1]} gives {found['opponent']}, the best solver of "
            f"fpm-rs here. "
            f"`ap` ends at {found['final_db']:.2f} dB.",
            common.table(("", "s", "share of its time"), lines),
        ]
    return "\n\n".join(parts)


def _numbers(row: common.Record) -> tuple[str | None, ...]:
    if "failed" in row:
        return None, None, None
    return f"{row['in_band_db']:.1f}", f"{row['psnr']:.1f}", f"{row['phase_rmse_rad']:.3f}"


if __name__ == "__main__":
    common.to_the_end(main)
