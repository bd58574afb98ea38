"""What a default costs on samples that nobody tuned it for: every default against its presets and variants.

    python benchmarks/families.py [--lab FOLDER] [--measured FOLDER] [--jobs 2]

A family is a sample, a set of LEDs, a level of noise and a size. Simulated ones come from this project's simulator and
from two that share no code with it (``--lab``), and are scored by the PSNR of the amplitude, each pixel at its true
depth, in dB and at most 50: more is rounding. Measured ones are scored by the error of left-out LEDs, −20 log₁₀, with
the instrument as it is found, which is the same for all. The regret of a default is what the best of its solver's
configurations has more. No default changes without this table.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np

import fpmtools
from fpmtools import evaluation, threads
from fpmtools.calibrate import improve, resolve
from fpmtools.dataset import Dataset
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster

MOST = 50.0  # dB
MEASURED_SIDE = 64
LAB_SIDE, LAB_PLANES = 128, 41


def dark_rings() -> list[list[float]]:
    """68 LEDs on rings to NA 0.45, 1.8 times the objective's."""
    found = []
    for number, count in enumerate((1, 8, 12, 20, 27)):
        angles = 2 * np.pi * np.arange(count) / count + 0.1 * number
        found += [[0.45 * number / 4 * np.cos(a), 0.45 * number / 4 * np.sin(a)] for a in angles]
    return found


LEDS: dict[str, Any] = {
    "inside": "rings",
    "dark rings": dark_rings(),
    "11 × 11": "grid",
    "15 × 15": direction_sines(raster(15, 15, 4.0), 74.0),
}
NOISE: dict[str, dict[str, float]] = {
    "none": {},
    "20 000": {"photons": 2e4},
    "500": {"photons": 500.0, "read_noise": 2.0},
}
# Sample, LEDs, photons per pixel, size.
OURS = (
    ("thin", "inside", "none", (64, 64)),
    ("thin", "dark rings", "500", (64, 96)),
    ("thin", "11 × 11", "500", (64, 64)),
    ("thin", "15 × 15", "none", (64, 64)),
    ("phase", "inside", "500", (64, 64)),
    ("phase", "11 × 11", "none", (64, 64)),
    ("bars", "inside", "500", (64, 64)),
    ("bars", "dark rings", "none", (64, 64)),
    ("bars", "15 × 15", "500", (64, 64)),
    ("tilted", "inside", "none", (96, 96)),
    ("tilted", "dark rings", "20 000", (96, 96)),
    ("tilted", "11 × 11", "500", (96, 96)),
    ("tilted", "15 × 15", "none", (96, 96)),
    ("layers", "inside", "500", (96, 96)),
    ("layers", "dark rings", "20 000", (96, 96)),
    ("layers", "11 × 11", "none", (96, 96)),
    ("thick", "inside", "none", (96, 96)),
    ("thick", "dark rings", "500", (96, 96)),
)
QUICK = (("thin", "inside", "500", (32, 32)), ("tilted", "11 × 11", "500", (32, 32)))
LAB = {  # script, and what follows the folder
    "lab: tilted": ("tilted.py", ["1"]),
    "lab: tilted, another": ("tilted.py", ["5"]),
    "lab: photographs": ("bench.py", ["--seed", "3"]),
    "lab: photographs, part of a field": ("bench.py", ["--seed", "3", "--tile"]),
}
LAB_OPTICS = {"tilted.py": {"wavelength_um": 0.5226}, "bench.py": {"wavelength_um": 0.532}}

CONFIGURATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "inr": {
        "default": {},
        "paper": {"preset": "paper"},
        "weights=equal": {"options": {"weights": "equal"}},
        "plane=1": {"options": {"plane": 1.0}},
        "plane=0.5, z_nodes=9": {"options": {"plane": 0.5, "z_nodes": 9}},
        "steps=600": {"options": {"steps": 600}},
        "steps=1200": {"options": {"steps": 1200}},
    },
    "ap": {
        "default": {},
        "paper": {"preset": "paper"},
        "prior=0": {"options": {"prior": 0.0}},
        "prior=1": {"options": {"prior": 1.0}},
        "stop_below=5e-3": {"options": {"stop_below": 5e-3}},
    },
    "adam": {
        "default": {},
        "weights=equal": {"options": {"weights": "equal"}},
        "sweeps=60": {"options": {"sweeps": 60}},
    },
    "lowrank": {"default": {}},
    "lbfgs": {
        "default": {},
        "weights=explained": {"options": {"weights": "explained"}},
        "tv=0": {"options": {"tv": 0.0}},
    },
}


@dataclass(frozen=True)
class Family:
    """Data on which configurations are compared: ``file`` has the instrument that all are given."""

    name: str
    file: Path
    truth: Path | None = None  # folder of a lab script, which scores there
    script: Path | None = None
    z_um: tuple[float, ...] | None = None
    optics: dict[str, float] = field(default_factory=dict)

    def load(self) -> Dataset:
        """The data set."""
        return fpmtools.load(self.file, optics=self.optics)


def main() -> None:
    """Measure, write ``families.json``, print the table."""
    parser = common.parser(__doc__.splitlines()[0], repeats=1)
    common.measured_option(parser)
    parser.add_argument("--lab", type=Path, default=common.HERE.parents[1] / "shared" / "lab", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=3, help="of this project's samples")
    parser.add_argument(
        "--solvers", metavar="NAME,…", default=",".join(CONFIGURATIONS), help="others stay as they are recorded"
    )
    parser.add_argument("--leave-out", metavar="NAME,…", default="", help="configurations; inr's paper takes longest")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, of one thread each")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    if args.quick:
        args.measured = args.lab = Path()
    families = [*ours(args), *laboratory(args), *measured(args)]
    configurations = {name: CONFIGURATIONS[name] for name in args.solvers.split(",")}
    jobs = [
        (family, solver, label, how)
        for family in families
        for solver, labelled in configurations.items()
        for label, how in list(labelled.items())[: 1 if args.quick else None]
        if label not in args.leave_out.split(",")
    ]
    found: dict[str, dict[str, dict[str, Any]]] = {
        family.name: {solver: {} for solver in configurations} for family in families
    }
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(args.jobs, mp_context=spawn) as pool:
        waiting = {
            pool.submit(one, family, solver, how): (family.name, solver, label) for family, solver, label, how in jobs
        }
        for done in concurrent.futures.as_completed(waiting):
            name, solver, label = waiting[done]
            found[name][solver][label] = done.result()
            print(name, solver, label, found[name][solver][label], file=sys.stderr, flush=True)
    earlier, since = before(args, found)
    ordered = {
        name: {
            solver: {label: runs[label] for label in labelled if label in runs}
            for solver, labelled in CONFIGURATIONS.items()
            if (runs := {**earlier[name], **entry}.get(solver))
        }
        for name, entry in found.items()
    }
    since |= dict.fromkeys(configurations, common.about(1, "cpu")["date"])
    print(section(common.keep("families", args, {"seed": args.seed, "families": ordered, "since": since})))


def before(args: Any, found: Iterable[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What the record has of solvers that it has for all of the families ``found``, and since when."""
    record = common.kept(args.results, "families")
    if record is None or (record["quick"], record["seed"]) != (args.quick, args.seed):
        return {name: {} for name in found}, {}
    known = [record["families"].get(name, {}) for name in found]
    solvers = set.intersection(*map(set, known)) if known else set()
    since = {solver: record.get("since", {}).get(solver, record["about"]["date"]) for solver in solvers}
    return {name: {s: entry[s] for s in solvers} for name, entry in zip(found, known, strict=True)}, since


def ours(args: Any) -> list[Family]:
    """Samples of this project's simulator."""
    made = []
    for sample, leds, noise, size in QUICK if args.quick else OURS:
        places = LEDS[leds] if isinstance(LEDS[leds], str) else np.asarray(LEDS[leds]).tolist()
        arguments = {"sample": sample, "leds": places, "seed": args.seed, **NOISE[noise]}
        file = common.simulated(args.cache, size, **arguments)
        made.append(Family(f"{sample}, {leds}, {noise}, {size[0]} × {size[1]}", file))
    return made


def laboratory(args: Any) -> list[Family]:
    """Samples of the two other simulators, where they are."""
    made = []
    for name, (script, words) in LAB.items():
        file = args.lab / script
        if not file.is_file():
            continue
        folder = args.cache / re.sub(r"\W+", "-", name)
        deep = script == "tilted.py"
        command = ["make", str(LAB_SIDE), str(folder), *words] if deep else ["make", str(folder), *words]
        subprocess.run([sys.executable, "-W", "ignore", str(file), *command], check=True, stdout=subprocess.DEVNULL)
        depths = tuple(np.linspace(-20, 20, LAB_PLANES).tolist()) if deep else (0.0,)
        data = folder / ("tilted.mat" if deep else "bench.mat")
        made.append(Family(name, data, folder, file, depths, LAB_OPTICS[script]))
    return made


def measured(args: Any) -> list[Family]:
    """The middle of the measured sets, with the instrument as it is found."""
    made = []
    for name, data in common.measured(args.measured):
        side = min(MEASURED_SIDE, *data.image_shape)
        y, x = ((n - side) // 2 for n in data.image_shape)
        part = data.crop(y, x, side, side)
        found = improve(part, resolve(part))
        file = args.cache / f"family-{name}.safetensors"
        native.save(replace(part, calibration=found), file)
        made.append(Family(f"measured: {name}", file))
    return made


def one(family: Family, solver: str, how: dict[str, Any]) -> common.Record:
    """Score, SSIM, seconds and bytes of one run."""
    data = family.load()
    solve = partial(fpmtools.reconstruct, solver=solver, calibration="nominal", z_um=family.z_um, **how)
    with threads.limited(1):
        begun = time.perf_counter()
        result = solve(data)
        seconds = time.perf_counter() - begun
        if family.script is not None:
            numbers = by_lab(family, result)
        elif data.truth is not None:
            scored = evaluation.evaluate(result, data, ("psnr", "ssim"))
            numbers = {"score": scored["psnr"], "ssim": scored["ssim"]}
        else:
            left_out = evaluation.evaluate(result, data, ("held_out",), solver=solve)["held_out"]
            numbers = {"score": -20 * np.log10(left_out)}
    with tempfile.TemporaryDirectory() as scratch:
        stored = result.save(Path(scratch) / "result").stat().st_size
    score = min(float(numbers.pop("score")), MOST)
    return {"score": score, **numbers, "seconds": seconds, "bytes": stored}


def by_lab(family: Family, result: Any) -> dict[str, float]:
    """What the lab's own script says of a result."""
    assert family.script is not None
    assert family.truth is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if family.script.name == "bench.py":
            np.save(folder / "field.npy", result.field(0.0))
            said = lab(family.script, "score", str(family.truth), str(folder / "field.npy"))
            return {"score": json.loads(said)["amplitude_db"]}
        truth = folder / "truth.npz"
        truth.symlink_to(family.truth.resolve() / "truth.npz")
        shape = np.load(truth)["truth"].shape
        for z in range(-10, 11):
            np.save(folder / f"z_{z}.npy", result.field(float(z), shape=shape))
        psnr, ssim = re.findall(r"-?[\d.]+", lab(family.script, "score", str(folder)))
        return {"score": float(psnr), "ssim": float(ssim)}


def lab(script: Path, *words: str) -> str:
    """What a lab script prints."""
    command = [sys.executable, "-W", "ignore", str(script), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def regret(runs: dict[str, common.Record]) -> float:
    """What the best of a solver's configurations has more than its default, dB."""
    return max(float(run["score"]) for run in runs.values()) - float(runs["default"]["score"])


def below_paper(entries: Iterable[dict[str, dict[str, common.Record]]], solver: str) -> str:
    """What its preset ``paper`` has more than a default, at most, dB; a dash for a solver without."""
    every = [entry[solver] for entry in entries]
    gaps = [runs["paper"]["score"] - runs["default"]["score"] for runs in every if "paper" in runs]
    return f"{max(0.0, *gaps):.2f}" if gaps else "–"


def section(record: common.Record) -> str:
    """The record as Markdown."""
    families, solvers = record["families"], next(iter(record["families"].values()))
    rows: list[tuple[Any, ...]] = []
    for name, entry in families.items():
        cells = []
        for runs in entry.values():
            best = max(runs, key=lambda label, runs=runs: runs[label]["score"])  # type: ignore[misc]
            gap = regret(runs)
            cells.append(f"{runs['default']['score']:.2f}" + (f" (+ {gap:.2f}, {best})" if gap >= 0.05 else ""))
        rows.append((name, *cells))
    gaps = {solver: [regret(entry[solver]) for entry in families.values()] for solver in solvers}
    rows.append(("**mean regret**", *(f"{np.mean(gap):.2f}" for gap in gaps.values())))
    rows.append(("**worst regret**", *(f"{max(gap):.2f}" for gap in gaps.values())))
    rows.append(("below `paper` by, at most", *(below_paper(families.values(), solver) for solver in solvers)))
    return "\n\n".join(
        [
            "Each default in dB, and in brackets what the best of its solver's configurations has more. Sample, LEDs, "
            "photons per pixel, size; measured sets by left-out LEDs, −20 log₁₀ of their error. Run on: "
            + ", ".join(f"`{solver}` {day}" for solver, day in record["since"].items())
            + ".",
            common.table(("", *(f"`{solver}`" for solver in solvers)), rows),
        ]
    )


if __name__ == "__main__":
    common.to_the_end(main)
