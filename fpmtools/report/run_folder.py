"""The folder of a run: the reconstruction, its pictures, and ``run.json``, which says how they came about."""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fpmtools import storage
from fpmtools.dataset import Dataset
from fpmtools.engine import Outcome
from fpmtools.errors import OutputError
from fpmtools.problem import Problem
from fpmtools.reconstruction import RESULT_FILE, Reconstruction
from fpmtools.report import environment, figures, tiff, video
from fpmtools.report.contrast import z_label
from fpmtools.solver import Solver

RUN_FILE = "run.json"
STACK_FILE = "stack.gif"
FILES = (RESULT_FILE, RUN_FILE, "amplitude.tiff", "phase.tiff", "amplitude.png", "phase.png", STACK_FILE, "loss.png")


def claim_folder(path: str | Path, force: bool = False) -> Path:
    """Make sure, before any heavy work, that results can be written into ``path``; create it if need be.

    With ``force`` the folder may hold files; only those that fpmtools writes are replaced, when the new ones are there.
    Raises :class:`OutputError` when the folder is not empty and ``force`` is not given, or cannot be written.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file; the output must be a folder")
        path.mkdir(parents=True, exist_ok=True)
        if not force and (count := sum(1 for _ in path.iterdir())):
            raise OutputError(
                f"output folder {path} is not empty ({count} file{'s' * (count > 1)}); choose another one, or give "
                "--force to replace the results in it"
            )
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(f"cannot write in {path}: {error.strerror or error}") from error
    return path


def write_run(
    folder: str | Path,
    outcome: Outcome,
    problem: Problem,
    solver: Solver[Any],
    name: str,
    *,
    preset: str | None = None,
    measure: Callable[[], Mapping[str, Any]] = dict,
    pictures: bool = True,
    peak_memory_mb: float | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Write everything that a run gave and return what ``run.json`` says.

    The reconstruction and ``run.json`` are written first, so that nothing that goes wrong with a number or a picture
    can lose them. Files of an earlier run that this one has not replaced are removed at the end, and no others.

    Parameters
    ----------
    name, preset
        The solver's name and the preset that its options came from.
    measure
        Called when the reconstruction is safe; what it returns, JSON-ready, is added to ``run.json``.
    pictures
        Whether to draw pictures.
    peak_memory_mb
        Peak memory of the run, 10⁶ bytes.
    command
        The command line, word by word.

    Raises
    ------
    OutputError
        The disk is full or the folder cannot be written; files that are there are complete.
    """
    folder = Path(folder)
    document = describe(outcome, problem, solver, name)
    document |= {"preset": preset, "peak_memory_mb": peak_memory_mb}
    document |= {"command": list(command), "files": [RESULT_FILE, RUN_FILE]}
    outcome.reconstruction.save(folder / RESULT_FILE)
    storage.write_json(folder / RUN_FILE, document)
    document |= measure()
    if pictures:
        written = write_pictures(folder, outcome.reconstruction, problem.dataset, document)
        document["files"] = sorted([*document["files"], *(path.name for path in written)])
    storage.write_json(folder / RUN_FILE, document)
    for stale in set(FILES) - set(document["files"]):
        (folder / stale).unlink(missing_ok=True)
    return document


def describe(outcome: Outcome, problem: Problem, solver: Solver[Any], name: str) -> dict[str, Any]:
    """What was run, on what, how long it took and how much it stores; JSON-ready.

    ``dense_bytes`` is the size of the same planes as complex64 arrays at the output size, ``dense_ratio`` how many
    times ``stored_bytes`` that is. ``history`` holds [step, seconds, loss].
    """
    forward, reconstruction = problem.forward, outcome.reconstruction
    stored = reconstruction.stored_bytes
    dense = 8 * len(problem.z_um) * reconstruction.grid.shape[0] * reconstruction.grid.shape[1]
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "status": outcome.status,
        "solver": name,
        **describe_problem(problem, solver),
        "grid": {
            "output_shape": list(reconstruction.grid.shape),
            "pixel_um": list(reconstruction.grid.pixel_um),
            "extent_um": list(reconstruction.grid.extent_um),
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


def describe_problem(problem: Problem, solver: Solver[Any]) -> dict[str, Any]:
    """The part of ``run.json`` that says what was solved, and not how it went; JSON-ready."""
    dataset = problem.dataset
    return {
        "solver_class": f"{type(solver).__module__}:{type(solver).__qualname__}",
        "options": dataclasses.asdict(solver.options),
        "seed": problem.seed,
        "z_um": list(problem.z_um),
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "leds": dataset.n_images,
            "leds_used": len(problem.forward.na),
            "calibration": storage.finite(problem.calibration.found),
            "image_shape": list(dataset.image_shape),
            "defocus_um": dataset.defocus_um,
            "optics": dataset.optics.to_dict(),
            "calibrated_pupil": not dataset.calibration.pupil.ideal,
            "truth": dataset.truth.digest if dataset.truth is not None else None,
            "provenance": dataset.provenance,
        },
    }


def write_pictures(
    folder: Path, reconstruction: Reconstruction, dataset: Dataset, document: Mapping[str, Any]
) -> list[Path]:
    """Draw the pictures of the run that ``document`` (``run.json``) describes, and return their files."""
    grid, z_um = reconstruction.grid, document["z_um"]
    stacks = tiff.write_amplitude_phase(
        folder, (reconstruction.field(z) for z in z_um), grid.shape, z_um, grid.pixel_um
    )
    shown = shown_z_um(dataset, z_um)
    field = reconstruction.field(shown)
    name = f"{dataset.name} · {document['solver']}"
    title = f"{name} · {z_label(shown)}"
    history = [(int(step), float(seconds), float(loss)) for step, seconds, loss in document["history"]]
    written = [
        *stacks,
        figures.save(figures.amplitude(field, grid.extent_um, title=title), folder / "amplitude.png"),
        figures.save(figures.phase(field, grid.extent_um, title=title), folder / "phase.png"),
        figures.save(figures.loss_curve(history, title=name), folder / "loss.png"),
    ]
    if len(z_um) > 1:
        amplitude, phase = map(tiff.Stack, stacks)
        written.append(video.write_gif(folder / STACK_FILE, amplitude, phase, z_um, grid.extent_um))
    return written


def shown_z_um(dataset: Dataset, z_um: Sequence[float]) -> float:
    """The z of the still pictures: the known defocus where it was reconstructed, else the middle plane."""
    known = dataset.defocus_um
    if known is not None and z_um[0] <= known <= z_um[-1]:
        return known
    return float(z_um[len(z_um) // 2])
