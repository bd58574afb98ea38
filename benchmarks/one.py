"""One job in a process of its own, described by JSON on the command line; prints a JSON record.

Called by the other scripts. A job names ``data`` (a file), ``solver``, ``options``, ``z_um``, and either ``steps``, to
time that many steps, or not, to solve to the end; then a ``goal`` asks when its quality was reached, and ``save`` names
a file for the result.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fpmtools
from fpmtools import engine, metrics, registry
from fpmtools.dataset import Dataset
from fpmtools.options import make_options
from fpmtools.problem import Problem, prepare
from fpmtools.reconstruction import Reconstruction
from fpmtools.runs.memory import peak_memory_mb
from fpmtools.solver import Solver

PLANES = 21  # of the composite that is scored
GROWTH = 1.1  # a snapshot after each tenth more of the time so far
WARM_UP_STEPS = 2


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job."""
    torch.set_num_threads(job["threads"])
    data = fpmtools.load(job["data"])
    solver = make_solver(job["solver"], job.get("options", {}))
    problem = prepare(data, solver, z_um=job.get("z_um"), device=job.get("device", "cpu"))
    if "steps" in job:
        return time_steps(problem, solver, job["steps"])
    return run_through(problem, solver, data, job.get("goal"), job.get("growth", GROWTH), job.get("save"))


def make_solver(name: str, options: dict[str, Any]) -> Solver[Any]:
    """A solver by name; ``options`` may hold a preset."""
    kind = registry.solver_class(name)
    return kind(make_options(kind, options))


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds of a call, the device's queue included, and what it returned."""
    synchronise(device)
    begun = time.perf_counter()
    value = call()
    synchronise(device)
    return time.perf_counter() - begun, value


def advance(solver: Solver[Any], state: Any, count: int) -> list[float]:
    """Take up to ``count`` steps on the CPU and return the seconds of each."""
    seconds: list[float] = []
    done = False
    while not done and len(seconds) < count:
        begun = time.perf_counter()
        done = solver.step(state).done
        seconds.append(time.perf_counter() - begun)
    return seconds


def time_steps(problem: Problem, solver: Solver[Any], count: int) -> dict[str, Any]:
    """Median time of a step, of which the first two are not counted; what the whole run then costs; peak memory."""
    warm_up, state = timed(lambda: solver.start(problem), problem.device)
    seconds = advance(solver, state, count + WARM_UP_STEPS - 1)
    took, progress = timed(lambda: solver.step(state), problem.device)
    seconds.append(took)
    rest = seconds[WARM_UP_STEPS:]
    with torch.no_grad():
        result = solver.result(state)
    middle = sum(problem.z_range) / 2
    render = min(timed(lambda: result.field(middle), problem.device)[0] for _ in range(2))
    return {
        "step_seconds": statistics.median(rest),
        "total_steps": progress.total,
        "full_seconds": statistics.median(rest) * progress.total,
        "warm_up_seconds": warm_up + sum(seconds) - sum(rest),
        "stored_bytes": result.stored_bytes,
        "render_seconds": render,
        "peak_memory_mb": peak_memory_mb(),
    }


def run_through(
    problem: Problem,
    solver: Solver[Any],
    data: Dataset,
    goal: dict[str, float] | None,
    growth: float,
    save: str | None = None,
) -> dict[str, Any]:
    """Solve to the end; with a ``goal`` score snapshots, the clock stopped, until every number of it is reached."""
    trajectory: list[dict[str, float]] = []
    reached: float | None = None

    def look(seconds: float, reconstruction: Reconstruction) -> None:
        nonlocal reached
        if reached is None and goal is not None:
            trajectory.append({"seconds": seconds, **quality(reconstruction, data)})
            if all(trajectory[-1][name] >= value for name, value in goal.items()):
                reached = seconds

    warm_up, _ = timed(lambda: warm(problem, solver), problem.device)
    outcome = engine.solve(problem, solver, on_snapshot=None if goal is None else look, snapshot_growth=growth)
    setup, memory = outcome.setup_seconds, peak_memory_mb()
    return {
        "seconds": setup + outcome.seconds,
        "reached_seconds": None if reached is None else setup + reached,
        "trajectory": [{**point, "seconds": setup + point["seconds"]} for point in trajectory],
        "quality": None if data.truth is None else quality(outcome.reconstruction, data),
        "warm_up_seconds": warm_up,
        "steps": outcome.steps,
        "total_steps": outcome.total_steps,
        "stored_bytes": outcome.reconstruction.stored_bytes,
        "file_bytes": None if save is None else outcome.reconstruction.save(save).stat().st_size,
        "peak_memory_mb": memory,
    }


def warm(problem: Problem, solver: Solver[Any]) -> None:
    """A few steps of a run that is thrown away: what is loaded, planned or compiled at first use."""
    state = solver.start(problem)
    for _ in range(WARM_UP_STEPS):
        if solver.step(state).done:
            return


def quality(reconstruction: Reconstruction, data: Dataset) -> dict[str, float]:
    """Composite amplitude PSNR and SSIM, phase error, and the complex field's error in the recoverable band.

    The truth is band-limited to what the LEDs can show, and one complex gain is fitted inside that band.
    """
    assert data.truth is not None
    pixel_um = data.optics.pixel_um * data.image_shape[0] / data.truth.field.shape[0]
    truth = metrics.band_limit(data.truth.field, data.optics, data.na, pixel_um)
    field = metrics.composite(reconstruction, data.truth.depth_um, planes=PLANES)
    in_band = metrics.band_limit(field, data.optics, data.na, pixel_um)
    gain = metrics.align(truth, in_band)
    error = float(np.sum(np.abs(truth - gain * in_band) ** 2) / np.sum(np.abs(truth) ** 2))
    amplitude = metrics.quality(np.abs(truth), np.abs(gain * field), data_range="truth")
    return {
        "psnr": amplitude["psnr"],
        "ssim": amplitude["ssim"],
        "phase_rmse_rad": metrics.phase_rmse_rad(truth, field),
        "in_band_db": -10 * math.log10(max(error, 1e-30)),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
