"""The whole GPU table in under five minutes: every solver at several sizes, synchronised, with memory.

    python benchmarks/gpu.py                # on the GPU, or on the CPU where there is none
    python benchmarks/gpu.py --device cpu

Data are simulated on the CPU first (``--prepare`` does only that, so that none of a lent GPU's time goes into it).
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import common
import one
import torch

import fpmtools
from fpmtools.errors import SolverError
from fpmtools.problem import choose_device, prepare

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
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    rows: list[common.Record] = []
    for side, file in files.items():
        data = fpmtools.load(file)
        for solver in ("inr", "ap", "adam"):
            if time.perf_counter() - begun > BUDGET_S:
                print(f"time is up: {solver} at {side}² left out", file=sys.stderr)
                continue
            rows.append({"side": side, "solver": solver, **measure(args, data, side, solver, device)})
            print(rows[-1], file=sys.stderr, flush=True)
    measured = {"rows": rows, "wall_seconds": time.perf_counter() - begun}
    print(section(common.keep("gpu", args, measured, device=str(device))))


def measure(
    args: argparse.Namespace, data: fpmtools.Dataset, side: int, name: str, device: torch.device
) -> common.Record:
    """One run to its end after a short warm-up; at :data:`SCORED` also the time to the paper preset's quality."""
    small: dict[str, dict[str, Any]] = {"inr": {"steps": 20}, "ap": {"sweeps": 2}, "adam": {"sweeps": 2}}
    solver = one.make_solver(name, small[name] if args.quick else {})
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        problem = prepare(data, solver, z_um=Z_UM if name == "inr" else None, device=str(device))
        paper = common.paper_run(args.results, (side, side)) if side == SCORED else None
        goal = {key: paper["run"]["quality"][key] for key in ("psnr", "ssim")} if paper else None
        plain = one.run_through(problem, solver, data, None, one.GROWTH)
        reached = one.run_through(problem, solver, data, goal, one.GROWTH)["reached_seconds"] if goal else None
    except SolverError as error:
        return {"failed": str(error)}
    memory = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    return {
        "seconds": plain["seconds"],
        "steps_per_second": plain["steps"] / plain["seconds"],
        "to_paper_quality_s": reached,
        "warm_up_seconds": plain["warm_up_seconds"],
        "device_memory_mb": memory,
        "quality": plain["quality"],
    }


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
    main()
