"""A full-size stack, 1024² × 68 LEDs over z ±20 µm: default ``inr`` until the paper preset's quality.

    python benchmarks/large.py

The paper preset would need hours at this size: its time is per-step cost × its steps, and its quality is that of a
recorded full run (``speed.py --record-paper``), at this size if there is one, else at ``--quality-from``.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import common

SHAPE, QUICK_SHAPE = (1024, 1024), (40, 48)
Z_UM = (-20.0, 20.0)
PAPER_S = 30.0  # some steps of the paper preset


def main() -> None:
    """Measure, write ``large.json``, print the table."""
    parser = common.parser(__doc__.splitlines()[0], repeats=1)
    parser.add_argument(
        "--quality-from", type=common.shape, default=(256, 256), metavar="H,W", help="size of the recorded paper run"
    )
    args = parser.parse_args()
    shape = QUICK_SHAPE if args.quick else SHAPE
    candidates = [common.paper_run(args.results, found) for found in (shape, args.quality_from)]
    paper = next((record for record in candidates if record is not None), None)
    if paper is None:
        sys.exit("error: no full run of the paper preset is on record; first run speed.py --record-paper")
    goal = {name: paper["run"]["quality"][name] for name in ("psnr", "ssim")}
    print(section(common.keep("large", args, measure(args, shape, {**goal, "shape": paper["shape"]}))))


def measure(args: argparse.Namespace, shape: tuple[int, int], goal: common.Record) -> common.Record:
    """Some of the paper preset's steps, a run to its quality, and a run to the end."""
    file = common.simulated(args.cache, shape)
    whole = common.spec(args, file, "inr", {"steps": 20} if args.quick else {}, Z_UM)
    paper = common.briefly(common.spec(args, file, "inr", {"preset": "paper"}, Z_UM), 0.05 if args.quick else PAPER_S)
    target = common.until(whole, {name: goal[name] for name in ("psnr", "ssim")})
    cases = {
        "paper": partial(common.work, paper, args),
        "to its quality": partial(common.work, target, args),
        "run": partial(common.work, whole, args, render=True),
    }
    runs = common.interleaved(cases, args.repeats)
    reach = [run["seconds_to_target"] for run in runs["to its quality"]]
    return {
        "shape": shape,
        "z_um": Z_UM,
        "goal": goal,
        "to_paper_quality_s": None if None in reach else common.spread(reach),
        "seconds": common.spread(run["seconds"] for run in runs["run"]),
        "quality": runs["run"][0]["quality"],
        "trajectory": runs["to its quality"][0]["trajectory"],
        "stored_bytes": runs["run"][0]["stored_bytes"],
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs["run"]),
        "render_seconds": common.spread(run["render_seconds"] for run in runs["run"]),
        "paper_seconds": common.spread(run["full_seconds"] for run in runs["paper"]),
        "paper_peak_memory_mb": max(run["peak_memory_mb"] for run in runs["paper"]),
        "paper_stored_bytes": runs["paper"][0]["stored_bytes"],
    }


def section(record: common.Record) -> str:
    """The record as Markdown."""
    height, width = record["shape"]
    goal, found = record["goal"], record["quality"]
    rows = [
        ("to the paper preset's quality, s", record["to_paper_quality_s"] or "not reached", None),
        ("whole run, s", record["seconds"], record["paper_seconds"]),
        ("composite PSNR, dB", f"{found['psnr']:.2f}", f"{goal['psnr']:.2f}"),
        ("composite SSIM", f"{found['ssim']:.3f}", f"{goal['ssim']:.3f}"),
        ("peak memory of the process, MB", record["peak_memory_mb"], record["paper_peak_memory_mb"]),
        ("stored", common.size(record["stored_bytes"]), common.size(record["paper_stored_bytes"])),
        (f"rendering one plane of {2 * height}×{2 * width}, s", record["render_seconds"], None),
    ]
    return "\n\n".join(
        [
            f"{height}×{width} raw pixels × 68 LEDs, z {record['z_um'][0]:g} … {record['z_um'][1]:g} µm. The paper "
            "preset's time is its steps at the measured cost per step, its quality that of its recorded full run at "
            f"{goal['shape'][0]}×{goal['shape'][1]}.",
            common.table(("", "`inr`", "paper preset"), rows),
        ]
    )


if __name__ == "__main__":
    common.to_the_end(main)
