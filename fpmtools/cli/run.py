"""``fpmtools run``: one data set, one solver, a folder with everything that came out."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _inputs
from fpmtools.cli._output import Progress, number, print_json, size
from fpmtools.errors import EXIT_INTERRUPTED, OptionError

if TYPE_CHECKING:
    from fpmtools.dataset import Dataset
    from fpmtools.reconstruction import Reconstruction
    from fpmtools.solver import Solver

CHECKPOINT = "checkpoint.safetensors"


@click.command(short_help="Reconstruct a data set with one solver.")
@_inputs.data_options
@click.option(
    "--solver", "name", metavar="NAME", default="inr", show_default=True, help="Solver ('fpmtools solvers' lists them)."
)
@click.option(
    "-o",
    "--option",
    "options",
    type=_inputs.key_value,
    metavar="KEY=VALUE",
    multiple=True,
    help="Solver option ('fpmtools solvers NAME').",
)
@click.option("--preset", metavar="NAME", help="Preset of the solver, such as paper.")
@_inputs.solving_options
@_inputs.result_options
@click.option("--resume", is_flag=True, help="Continue the run in --out that was stopped; same options and data.")
def run(
    data: str,
    name: str,
    options: tuple[tuple[str, str], ...],
    preset: str | None,
    z_um: tuple[float, ...] | None,
    threads: int | None,
    budget_s: float | None,
    out: Path | None,
    force: bool,
    resume: bool,
    quiet: bool,
    as_json: bool,
    **choices: Any,
) -> int:
    """Reconstruct one data set with one solver."""
    if resume and out is None:
        raise OptionError("--resume needs --out: the folder of the run to continue")
    _inputs.set_threads(threads)
    from fpmtools import engine
    from fpmtools.reconstruction import RESULT_FILE
    from fpmtools.report import run_folder

    reading = _inputs.take_reading(choices)
    engine.choose_device(choices["device"])
    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not mix with the results
        solver = _make_solver(name, options, preset, resume)
        folder = out or _inputs.new_folder(name, data)
        checkpoint = folder / CHECKPOINT
        run_folder.claim_folder(folder, force or (resume and checkpoint.is_file()))
        dataset = _inputs.load(data, reading)
        problem = engine.prepare(dataset, solver, z_um=z_um, **choices)
        if threads is None and "OMP_NUM_THREADS" not in os.environ:
            _inputs.set_threads(engine.suggested_threads(problem))
        for warning in dataset.optics.check(dataset.na, dataset.image_shape, upsample=choices["upsample"]):
            click.echo(f"warning: {warning}", err=True)
        progress = Progress(name, quiet=quiet)
        try:
            outcome = engine.solve(
                problem, solver, budget_s=budget_s, on_progress=progress, checkpoint=checkpoint, resume=resume
            )
        finally:
            progress.finish()
        peak_mb = peak_memory_mb()
        outcome.reconstruction.save(folder / RESULT_FILE)  # before anything that could still go wrong
        document = run_folder.write_run(
            folder,
            outcome,
            problem,
            solver,
            name,
            preset=dict(options).get("preset", preset),
            metrics=_measure(outcome.reconstruction, dataset),
            peak_memory_mb=peak_mb,
            command=["fpmtools", *click.get_current_context().obj],
        )
    if as_json:
        print_json({**document, "folder": str(folder)})
    else:
        _summarise(document, folder)
    return EXIT_INTERRUPTED if outcome.status == "interrupted" else 0


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10⁶ bytes)."""
    # On Linux ru_maxrss also counts the parent's memory from before this program started; VmHWM does not.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="ignore") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def _make_solver(name: str, options: tuple[tuple[str, str], ...], preset: str | None, resume: bool) -> Solver[Any]:
    from fpmtools import registry
    from fpmtools.solver import make_options

    cls = registry.solver_class(name)
    solver = cls(make_options(cls, dict(options), preset))
    if resume and not solver.resumable():
        raise OptionError(f"solver {name!r} cannot resume; start it afresh without --resume")
    return solver


def _measure(reconstruction: Reconstruction, dataset: Dataset) -> dict[str, Any]:
    from fpmtools import metrics

    found = metrics.score(reconstruction, dataset) if dataset.truth is not None else {}
    residual = metrics.residual(reconstruction, dataset)
    return {**found, "residual": {lights: residual[lights] for lights in ("all", "bright", "dark")}}


def _summarise(document: dict[str, Any], folder: Path) -> None:
    times, found = document["times"], document["metrics"]
    words = {"done": "done", "stopped": "stopped by the budget", "interrupted": "interrupted"}[document["status"]]
    click.echo(
        f"{document['solver']} on {document['data']['name']}: {words} after {document['steps']} of "
        f"{document['total_steps']} steps, {times['solve_s']:.1f} s (set-up {times['setup_s']:.1f} s), "
        f"{document['peak_memory_mb']:.0f} MB"
    )
    shape = " × ".join(str(n) for n in document["grid"]["output_shape"])
    click.echo(
        f"{shape} pixels at {len(document['z_um'])} z; stored in {size(document['stored_bytes'])}, "
        f"{document['dense_ratio']:.3g} times less than dense planes"
    )
    if "psnr" in found:
        click.echo(
            f"against the truth: PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}, RMSE {found['rmse']:.4g}, "
            f"relative L2 {found['relative_l2']:.4g}, phase RMSE {found['phase_rmse_rad']:.3g} rad"
        )
    residual = found["residual"]
    parts = (f"{lights} {number(residual[lights])}" for lights in ("all", "bright", "dark"))
    click.echo(f"residual against the measurements: {', '.join(parts)}")
    click.echo(f"{folder}: {', '.join(document['files'])}")
