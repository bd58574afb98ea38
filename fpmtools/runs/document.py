"""What ``run.json`` says: what was solved and how it went, and in the end what was found out about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fpmtools.runs import tasks
from fpmtools.runs.folder import CALIBRATION_FILE, LOG_FILE, RESULT_FILE, RUN_FILE
from fpmtools.runs.journal import JOURNAL_FILE, Found
from fpmtools.runs.spec import RunSpec
from fpmtools.storage import finite

if TYPE_CHECKING:
    from fpmtools.calibration import Calibration
    from fpmtools.dataset import Dataset
    from fpmtools.engine import Outcome
    from fpmtools.problem import Problem
    from fpmtools.reconstruction import Grid
    from fpmtools.solver import Solver


def describe(spec: RunSpec, outcome: Outcome, problem: Problem, solver: Solver[Any]) -> dict[str, Any]:
    """What was run, on what, how long it took and how much it stores; JSON-ready.

    ``dense_bytes`` is the size of the same planes as complex64 arrays at the output size, ``dense_ratio`` how many
    times ``stored_bytes`` that is. ``history`` holds [step, seconds, loss].
    """
    from fpmtools.runs import environment

    forward, reconstruction = problem.forward, outcome.reconstruction
    stored = reconstruction.stored_bytes
    dense = 8 * len(problem.z_um) * reconstruction.grid.shape[0] * reconstruction.grid.shape[1]
    return {
        **of_solver(spec, solver),
        "seed": problem.seed,
        "z_um": list(problem.z_um),
        "data": of_data(problem.dataset, problem.calibration, spec.data.digest) | {"leds_used": len(forward.na)},
        "grid": {
            **of_grid(reconstruction.grid),
            "solved_shape": list(forward.object_shape),
            "solved_image_shape": list(forward.image_shape),
            "subpixel": forward.subpixel,
            "dtype": str(forward.dtype).removeprefix("torch."),
        },
        "intensity_scale": problem.intensity_scale,
        "times": {
            "setup_s": outcome.setup_seconds,
            "solve_s": outcome.seconds,
            "first_step_s": outcome.first_step_seconds,
            "step_s": outcome.step_seconds,
        },
        "steps": outcome.steps,
        "total_steps": outcome.total_steps,
        "loss": outcome.history[-1][2] if outcome.history else None,
        "history": [list(row) for row in outcome.history],
        "stored_bytes": stored,
        "dense_bytes": dense,
        "dense_ratio": dense / stored,
        "versions": environment.versions(),
        "hardware": environment.hardware(problem.device),
    }


def of_solver(spec: RunSpec, solver: Solver[Any]) -> dict[str, Any]:
    """Which solver, and with which options."""
    return {
        "solver": spec.solver,
        "solver_class": f"{type(solver).__module__}:{type(solver).__qualname__}",
        "preset": spec.options.get("preset", spec.preset),
        "options": dataclasses.asdict(solver.options),
    }


def of_data(dataset: Dataset, calibration: Calibration, digest: str | None) -> dict[str, Any]:
    """What was measured, and what the instrument was taken to be."""
    return {
        "name": dataset.name,
        "digest": digest,
        "leds": dataset.n_images,
        "leds_used": int(calibration.used.sum()),
        "image_shape": list(dataset.image_shape),
        "defocus_um": dataset.defocus_um,
        "optics": dataset.optics.to_dict(),
        "calibrated_pupil": not calibration.pupil.ideal,
        "calibration": finite(calibration.found),
        "truth": dataset.truth.digest if dataset.truth is not None else None,
        "provenance": dataset.provenance,
    }


def of_grid(grid: Grid) -> dict[str, Any]:
    """Size and place of what was found."""
    return {
        "output_shape": list(grid.shape),
        "pixel_um": list(grid.pixel_um),
        "extent_um": list(grid.extent_um),
    }


def with_evidence(document: Mapping[str, Any], found: Mapping[str, Found]) -> dict[str, Any]:
    """What a solved run's document says once it is measured: numbers, curves, files, and ``missing`` with reasons."""
    measured = dict(document)
    numbers = {name: f.value for task, f in found.items() if (name := tasks.metric_name(task)) and not f.reason}
    reasons = {tasks.metric_name(task) or task: f.reason for task, f in found.items() if f.reason}
    if tasks.RESULT in reasons:
        reasons = {"metrics and pictures": f"its result cannot be opened: {reasons[tasks.RESULT]}"}
    elif tasks.FIELD in reasons:
        reasons = {"metrics and pictures": f"its field cannot be rendered: {reasons[tasks.FIELD]}"}
    measured["metrics"] = numbers
    for name in ("fit", "ring_correlation"):
        measured.pop(name, None)
    if (fit := found.get(tasks.FIT)) and fit.value:
        measured["fit"] = fit.value
    rings = (found.get(task) for task in reversed(tasks.CURVES))
    measured |= next(({"ring_correlation": f.value} for f in rings if f and not f.reason), {})
    points, seconds = measured.get("quality_over_time"), measured["times"]["solve_s"]
    final = {name: numbers.get(name) for name in ("psnr", "ssim")}
    if points and points[-1]["seconds"] < 0.99 * seconds and None not in final.values():
        measured["quality_over_time"] = [*points, {"seconds": seconds, **final}]
    if untracked := measured.get("untracked"):
        reasons["quality over time"] = untracked
    measured["missing"] = reasons
    drawn = [str(name) for task in tasks.DRAWN if task in found for name in found[task].value or ()]
    fitted = [CALIBRATION_FILE] if document.get("calibration_file") else []
    measured["files"] = sorted({RESULT_FILE, RUN_FILE, LOG_FILE, *fitted, *([JOURNAL_FILE] if found else []), *drawn})
    return measured


def missed_targets(document: Mapping[str, Any]) -> str:
    """Targets that were set and not reached, in words; empty where there are none."""
    target = document.get("target")
    if not target or document.get("seconds_to_target") is not None:
        return ""
    return f"{', '.join(f'{name}={value:g}' for name, value in target.items())} not reached"
