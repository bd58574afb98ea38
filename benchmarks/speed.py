"""Time to quality: every solver and preset against ``inr --preset paper``, in one run, interleaved.

    python benchmarks/speed.py --record-paper   # once, half an hour: the full published schedule, for its quality
    python benchmarks/speed.py                  # per-step cost × steps then stands for the time of the full run

The sample is the tilted blood smear (±10 µm); ``inr`` trains on z ±20 µm, the others solve planes 1 µm apart through
the sample. Quality is the amplitude of the 21-plane composite, each column at its own depth, against the band-limited
truth. The clock stands still while a snapshot is scored.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import common

SHAPE, QUICK_SHAPE = (256, 256), (32, 40)
Z_UM = (-20.0, 20.0)
STACK_PLANES = 161  # the published stack
PAPER_STEPS = 12  # timed in each repeat
MEMORY_STEPS = 3  # enough for everything to be allocated; scoring would add its own
NAMES = ("ap", "adam")


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
    goal = {"psnr": float("inf")}  # never reached: the whole course is scored
    made = common.work({**_job(args, "inr", _paper_options(args)), "goal": goal, "growth": 1.3}, args)
    measured = {"shape": args.shape, "data": common.data_name(args.shape), "run": made}
    return common.keep(common.paper_name(args.shape), args, measured)


def measure(args: argparse.Namespace, paper: common.Record) -> common.Record:
    """Every case in turn: paper's steps, and full runs of the others."""
    cases = {label: case for label, case in _cases(args).items() if not args.only or label in args.only.split(",")}
    goal = {name: paper["run"]["quality"][name] for name in ("psnr", "ssim")}
    jobs = {"paper": {**_job(args, "inr", _paper_options(args)), "steps": PAPER_STEPS}}
    jobs |= {label: {**_job(args, solver, options), "goal": goal} for label, (solver, options) in cases.items()}
    runs = common.interleaved({label: partial(common.work, job, args) for label, job in jobs.items()}, args.repeats)
    short = {label: {**job, "steps": MEMORY_STEPS} for label, job in jobs.items() if label != "paper"}
    memory = {label: common.work(job, args)["peak_memory_mb"] for label, job in short.items()}
    reference = {
        "seconds": common.spread(run["full_seconds"] for run in runs["paper"]),
        "recorded_seconds": paper["run"]["seconds"],
        "steps": runs["paper"][0]["total_steps"],
        "stored_bytes": runs["paper"][0]["stored_bytes"],
        "peak_memory_mb": runs["paper"][0]["peak_memory_mb"],
        **goal,
    }
    rows = [_row(label, runs[label], memory[label], reference) for label in cases]
    return {
        "shape": args.shape,
        "z_um": Z_UM,
        "paper": reference,
        "rows": rows,
        "threads": _threads(args),
        "stack_bytes": common.stack_bytes(_data(args), STACK_PLANES),
    }


def _row(label: str, runs: list[common.Record], peak_mb: float, paper: common.Record) -> common.Record:
    times = [run["reached_seconds"] for run in runs]
    reach = None if None in times else common.spread(times)
    return {
        "label": label,
        "steps": runs[0]["total_steps"],
        "to_paper_quality_s": reach,
        "faster": reach and paper["seconds"]["median"] / reach["median"],
        "seconds": common.spread(run["seconds"] for run in runs),
        "warm_up_seconds": common.spread(run["warm_up_seconds"] for run in runs),
        "quality": runs[0]["quality"],
        "stored_bytes": runs[0]["stored_bytes"],
        "peak_memory_mb": peak_mb,
        "trajectory": runs[0]["trajectory"],
    }


def _threads(args: argparse.Namespace) -> list[common.Record]:
    """Time of one step with one thread and with all."""
    count = 3 if args.quick else 10
    jobs = {name: {**_job(args, name, {}), "steps": count} for name in ("inr", *NAMES)}
    return [
        {"solver": name, "threads": threads, "step_seconds": common.work(job, args, threads)["step_seconds"]}
        for name, job in jobs.items()
        for threads in sorted({1, args.threads})
    ]


def _cases(args: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any]]]:
    """Row label → solver and options: the default and every preset of each solver, but for paper of ``inr``."""
    from fpmtools import registry

    small = {"inr": {"steps": 20}, "ap": {"sweeps": 2}, "adam": {"sweeps": 2}} if args.quick else {}
    cases: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in ("inr", *NAMES):
        cases[name] = (name, small.get(name, {}))
        for preset in registry.solver_class(name).presets:
            if (name, preset) != ("inr", "paper"):
                cases[f"{name}:preset={preset}"] = (name, {"preset": preset, **small.get(name, {})})
    return cases


def _job(args: argparse.Namespace, solver: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"data": _data(args), "solver": solver, "options": options, "z_um": Z_UM if solver == "inr" else None}


def _data(args: argparse.Namespace) -> str:
    return str(common.simulated(args.cache, args.shape))


def _paper_options(args: argparse.Namespace) -> dict[str, Any]:
    return {"preset": "paper", **({"epochs": 1, "led_batch": 16} if args.quick else {})}


def section(record: common.Record) -> str:
    """The record as Markdown."""
    paper, stack = record["paper"], record["stack_bytes"]
    height, width = record["shape"]
    head = ("solver", "to paper's quality, s", "faster", "whole run, s", "PSNR, dB", "SSIM", "phase, rad", "memory, MB")
    goal = (f"{paper['psnr']:.2f}", f"{paper['ssim']:.3f}")
    rows = [("paper preset", paper["seconds"], "1×", paper["seconds"], *goal, None, paper["peak_memory_mb"])]
    sizes = [("paper preset", paper["stored_bytes"])]
    for row in record["rows"]:
        found = row["quality"]
        rows.append(
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
            common.table(head, rows),
            "What is stored, and how many times smaller that is than the paper preset's network and than "
            f"{STACK_PLANES} planes: float32 amplitude, float32 complex, 16-bit complex inside the synthetic aperture.",
            common.table(("solver", "stored", "paper", "amplitude", "complex", "band-limited"), ratios),
            "One step, by the number of threads:",
            common.table(("solver", "threads", "ms"), threads),
        ]
    )


if __name__ == "__main__":
    main()
