"""Time to quality: every solver and preset against ``inr --preset paper``, in one run, interleaved.

    python benchmarks/speed.py --record-paper   # once, half an hour: the full published schedule, for its quality
    python benchmarks/speed.py                  # per-step cost × steps then stands for the time of the full run

The sample is the tilted blood smear (±10 µm); ``inr`` trains on z ±20 µm, the others solve planes 1 µm apart through
the sample: that is all that ``fpmtools compare`` does not do with the same words. What is measured, and how repeats
become a row, is its: the time to a target in one run, the whole time and the quality in the end in another. The clock
stands still while a snapshot is scored.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import common

from fpmtools.columns import Column
from fpmtools.comparison import rows
from fpmtools.runs.spec import RunSpec

SHAPE, QUICK_SHAPE = (256, 256), (32, 40)
Z_UM = (-20.0, 20.0)
STACK_PLANES = 161  # the published stack
PAPER_S, STEP_S, QUICK_S = 5.0, 0.5, 0.05  # some steps: of the paper preset in each repeat, by threads, in a quick run
NAMES = ("ap", "adam")
COLUMNS = (
    *(Column(name, path=(name,), spread=True) for name in ("seconds", "seconds_to_target")),
    *(Column(name, path=(name,)) for name in ("stored_bytes", "peak_memory_mb")),
    *(Column(name, path=("quality", name)) for name in common.QUALITY),
)


def main() -> None:
    """Measure, write ``speed.json``, print the table."""
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--shape", type=common.shape, metavar="H,W", help="size of the raw images (default: 256,256)")
    parser.add_argument("--record-paper", action="store_true", help="run the published schedule to its end, once")
    parser.add_argument("--only", metavar="NAME,…", help="only these rows, for example inr,ap")
    args = parser.parse_args()
    args.shape = args.shape or (QUICK_SHAPE if args.quick else SHAPE)
    args.repeats = 1 if args.quick else args.repeats
    paper = common.paper_run(args.results, args.shape)
    if args.record_paper or (args.quick and paper is None):
        paper = record_paper(args)
        if not args.quick:
            return
    if paper is None:
        sys.exit("error: no full run of the paper preset on these data is on record; first run with --record-paper")
    print(section(common.keep("speed", args, measure(args, paper))))


def record_paper(args: argparse.Namespace) -> common.Record:
    """Run the published schedule to its end and keep its quality over time."""
    tracked = replace(_paper(args), outputs=replace(common.SCORED, track=True))
    measured = {"shape": args.shape, "data": common.data_name(args.shape), "run": common.work(tracked, args)}
    return common.keep(common.paper_name(args.shape), args, measured)


def measure(args: argparse.Namespace, paper: common.Record) -> common.Record:
    """Every case in turn: some of paper's steps, and two runs of each of the others."""
    cases = {label: spec for label, spec in _cases(args).items() if not args.only or label in args.only.split(",")}
    goal = {name: paper["run"]["quality"][name] for name in ("psnr", "ssim")}
    specs = {"paper": common.briefly(_paper(args), QUICK_S if args.quick else PAPER_S)}
    for label, spec in cases.items():
        specs |= {label: spec, _to_goal(label): common.until(spec, goal)}
    runs = common.interleaved({name: partial(common.work, spec, args) for name, spec in specs.items()}, args.repeats)
    reference = {
        "seconds": common.spread(run["full_seconds"] for run in runs["paper"]),
        "recorded_seconds": paper["run"]["seconds"],
        "steps": runs["paper"][0]["total_steps"],
        "stored_bytes": runs["paper"][0]["stored_bytes"],
        "peak_memory_mb": runs["paper"][0]["peak_memory_mb"],
        **goal,
    }
    return {
        "shape": args.shape,
        "z_um": Z_UM,
        "paper": reference,
        "rows": [_row(label, runs[label], runs[_to_goal(label)], reference) for label in cases],
        "threads": _threads(args),
        "stack_bytes": common.stack_bytes(_data(args), STACK_PLANES),
    }


def _to_goal(label: str) -> str:
    return f"{label} to paper's quality"


def _row(label: str, whole: list[common.Record], to_goal: list[common.Record], paper: common.Record) -> common.Record:
    """A row as ``fpmtools compare`` has it, of the runs to the end and of those to the goal."""
    times = ({"seconds_to_target": run["seconds_to_target"], "label": label} for run in to_goal)
    found = rows.row([run | reached for run, reached in zip(whole, times, strict=True)], COLUMNS)
    reach = _spread(found, "seconds_to_target")
    return {
        "label": label,
        "steps": whole[0]["total_steps"],
        "to_paper_quality_s": reach,
        "faster": reach and paper["seconds"]["median"] / reach["median"],
        "seconds": _spread(found, "seconds"),
        "quality": {name: found[name] for name in common.QUALITY},
        "stored_bytes": found["stored_bytes"],
        "peak_memory_mb": found["peak_memory_mb"],
        "trajectory": to_goal[0]["trajectory"],
    }


def _spread(found: common.Record, name: str) -> common.Record | None:
    ends = {"median": found[name], "min": found[f"{name}_min"], "max": found[f"{name}_max"]}
    return None if found[name] is None else ends


def _threads(args: argparse.Namespace) -> list[common.Record]:
    """Time of one step with one thread and with all."""
    table = []
    for name in ("inr", *NAMES):
        for threads in sorted({1, args.threads}):
            spec = replace(_spec(args, name, {}), threads=threads)
            found = common.work(common.briefly(spec, QUICK_S if args.quick else STEP_S), args)
            table.append({"solver": name, "threads": threads, "step_seconds": found["step_seconds"]})
    return table


def _cases(args: argparse.Namespace) -> dict[str, RunSpec]:
    """Row label → run: the default and every preset of each solver, but for paper of ``inr``."""
    from fpmtools import registry

    small = {"inr": {"steps": 20}, "ap": {"sweeps": 2}, "adam": {"sweeps": 2}} if args.quick else {}
    cases: dict[str, RunSpec] = {}
    for name in ("inr", *NAMES):
        cases[name] = _spec(args, name, small.get(name, {}))
        for preset in registry.solver_class(name).presets:
            if (name, preset) != ("inr", "paper"):
                options = {"preset": preset, **small.get(name, {})}
                cases[f"{name}:preset={preset}"] = _spec(args, name, options)
    return cases


def _paper(args: argparse.Namespace) -> RunSpec:
    return _spec(args, "inr", {"preset": "paper", **({"epochs": 1, "led_batch": 16} if args.quick else {})})


def _spec(args: argparse.Namespace, solver: str, options: dict[str, Any]) -> RunSpec:
    return common.spec(args, _data(args), solver, options, Z_UM if solver == "inr" else None)


def _data(args: argparse.Namespace) -> Path:
    return common.simulated(args.cache, args.shape)


def section(record: common.Record) -> str:
    """The record as Markdown."""
    paper, stack = record["paper"], record["stack_bytes"]
    height, width = record["shape"]
    head = ("solver", "to paper's quality, s", "faster", "whole run, s", "PSNR, dB", "SSIM", "phase, rad", "memory, MB")
    goal = (f"{paper['psnr']:.2f}", f"{paper['ssim']:.3f}")
    lines = [("paper preset", paper["seconds"], "1×", paper["seconds"], *goal, None, paper["peak_memory_mb"])]
    sizes = [("paper preset", paper["stored_bytes"])]
    for row in record["rows"]:
        found = row["quality"]
        lines.append(
            (
                f"`{row['label']}`",
                row["to_paper_quality_s"] or "not reached",
                row["faster"] and f"{row['faster']:.0f}×",
                row["seconds"],
                f"{found['psnr']:.2f}",
                f"{found['ssim']:.3f}",
                found["phase_rmse_rad"],
                row["peak_memory_mb"],
            )
        )
        sizes.append((f"`{row['label']}`", row["stored_bytes"]))
    ratios = [
        (label, common.size(stored), *(other / stored for other in (paper["stored_bytes"], *stack.values())))
        for label, stored in sizes
    ]
    threads = [(row["solver"], row["threads"], 1e3 * row["step_seconds"]) for row in record["threads"]]
    return "\n\n".join(
        [
            f"Tilted smear, {height}×{width} raw pixels. The paper preset's time is {paper['steps']} steps at the cost "
            "per step measured beside the others; its quality is that of the recorded full run "
            f"({common.show(paper['recorded_seconds'])} s). Median (min–max) of the repeats; what is loaded at first "
            "use is not counted. Memory is that of the whole process.",
            common.table(head, lines),
            "What is stored, and how many times smaller that is than the paper preset's network and than "
            f"{STACK_PLANES} planes: float32 amplitude, float32 complex, 16-bit complex inside the synthetic aperture.",
            common.table(("solver", "stored", "paper", "amplitude", "complex", "band-limited"), ratios),
            "One step, by the number of threads:",
            common.table(("solver", "threads", "ms"), threads),
        ]
    )


if __name__ == "__main__":
    common.to_the_end(main)
