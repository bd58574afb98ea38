"""The whole GPU table in under five minutes: every solver at several sizes, synchronised, with memory.

    python benchmarks/gpu.py                # on the GPU, or on the CPU where there is none
    python benchmarks/gpu.py --device cpu

All runs are in this process, which has the GPU already. Data are simulated on the CPU first (``--prepare`` does only
that, so that none of a lent GPU's time goes into it).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import torch

from fpmtools.problem import choose_device
from fpmtools.runs.spec import RunSpec

SIDES, QUICK_SIDES = (256, 512, 1024), (32,)
SCORED = 256  # quality over time is noted at this size only; scoring is slow beside a GPU
Z_UM = (-20.0, 20.0)
BUDGET_S = 270.0


def main() -> None:
    """Measure, write ``gpu.json``, print the table."""
    parser = common.parser(__doc__.splitlines()[0], repeats=1)
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu")
    parser.add_argument("--prepare", action="store_true", help="only simulate the data")
    args = parser.parse_args()
    sides = QUICK_SIDES if args.quick else SIDES
    files = {side: common.simulated(args.cache, (side, side)) for side in sides}
    if args.prepare:
        return
    begun = time.perf_counter()
    device = choose_device(args.device)
    rows: list[common.Record] = []
    for side, file in files.items():
        for solver in ("inr", "ap", "adam"):
            if time.perf_counter() - begun > BUDGET_S:
                print(f"time is up: {solver} at {side}² left out", file=sys.stderr)
                continue
            rows.append({"side": side, "solver": solver, **measure(args, file, side, solver, device)})
            print(rows[-1], file=sys.stderr, flush=True)
            # After each, for the machine may be taken back.
            measured = {"rows": rows, "wall_seconds": time.perf_counter() - begun}
            record = common.keep("gpu", args, measured, device=str(device))
    print(section(record))


def measure(args: argparse.Namespace, file: Path, side: int, name: str, device: torch.device) -> common.Record:
    """One run to its end after a short warm-up; at :data:`SCORED` also the time to the paper preset's quality."""
    small: dict[str, dict[str, Any]] = {"inr": {"steps": 20}, "ap": {"sweeps": 2}, "adam": {"sweeps": 2}}
    options, z_um = small[name] if args.quick else {}, Z_UM if name == "inr" else None
    whole = replace(common.spec(args, file, name, options, z_um), device=str(device))
    paper = common.paper_run(args.results, (side, side)) if side == SCORED else None
    try:
        plain = run(whole, args, device)
        goal = {key: paper["run"]["quality"][key] for key in ("psnr", "ssim")} if paper else None
        reached = run(common.until(whole, goal), args, device)["seconds_to_target"] if goal else None
    except common.RunFailed as error:
        return {"failed": str(error)}
    return {
        "seconds": plain["seconds"],
        "steps_per_second": plain["steps"] / plain["seconds"],
        "to_paper_quality_s": reached,
        "device_memory_mb": plain["device_memory_mb"],
        "quality": plain["quality"],
    }


def run(wanted: RunSpec, args: argparse.Namespace, device: torch.device) -> common.Record:
    """A run in this process, alone in the GPU's memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return common.work(wanted, args, alone=False)


def section(record: common.Record) -> str:
    """The record as Markdown."""
    rows = [
        (
            f"`{row['solver']}` {row['side']}²",
            row.get("seconds", row.get("failed")),
            row.get("to_paper_quality_s"),
            row.get("steps_per_second"),
            row.get("device_memory_mb"),
            f"{row['quality']['psnr']:.2f}" if "quality" in row else None,
            f"{row['quality']['ssim']:.3f}" if "quality" in row else None,
        )
        for row in record["rows"]
    ]
    head = ("", "whole run, s", "to paper's quality, s", "steps/s", "GPU memory, MB", "PSNR, dB", "SSIM")
    return "\n\n".join(
        [
            f"On {record['about']['hardware']['device_name']}, {common.show(record['wall_seconds'])} s for the whole "
            "table, synchronised; `inr` over z ±20 µm, the others 21 planes.",
            common.table(head, rows),
        ]
    )


if __name__ == "__main__":
    common.to_the_end(main)
