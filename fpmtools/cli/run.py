"""``fpmtools run``: one data set, one solver, a folder with everything that came out."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _inputs
from fpmtools.cli._output import Progress, number, print_event, print_json, size
from fpmtools.errors import EXIT_INTERRUPTED, FpmError, OptionError, SolverError

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
    targets: tuple[str, ...],
    track: bool,
    out: Path | None,
    force: bool,
    resume: bool,
    quiet: bool,
    progress: str,
    as_json: bool,
    **choices: Any,
) -> int:
    """Reconstruct one data set with one solver."""
    if resume and out is None:
        raise OptionError("--resume needs --out: the folder of the run to continue")
    _inputs.set_threads(threads)
    from fpmtools import engine
    from fpmtools.comparison import tracking
    from fpmtools.comparison.memory import PeakMemory
    from fpmtools.reconstruction import RESULT_FILE
    from fpmtools.report import run_folder

    reading = _inputs.take_reading(choices)
    engine.choose_device(choices["device"])
    wanted = tracking.parse_targets(targets)
    shown = Progress(name, style="none" if quiet else progress, budget_s=budget_s)
    # What a plugin prints must not mix with the results.
    with contextlib.redirect_stdout(sys.stderr), _told(progress):
        solver = _make_solver(name, options, preset, resume)
        folder = out or _inputs.new_folder(name, data)
        checkpoint = folder / CHECKPOINT
        run_folder.claim_folder(folder, force or (resume and checkpoint.is_file()))
        dataset = _inputs.load(data, reading)
        tracking.check_targets(wanted, dataset)
        memory, tracker = PeakMemory(), None
        if dataset.truth is not None and (track or wanted):
            tracker = tracking.Tracker(dataset, wanted, lambda point: shown.show({"event": "quality", **point}), memory)
        problem = engine.prepare(dataset, solver, z_um=z_um, **choices)
        if threads is None and "OMP_NUM_THREADS" not in os.environ:
            _inputs.set_threads(engine.suggested_threads(problem))
        for warning in dataset.optics.check(dataset.na, dataset.image_shape, upsample=choices["upsample"]):
            click.echo(f"warning: {warning}", err=True)
        try:
            outcome = engine.solve(
                problem,
                solver,
                budget_s=budget_s,
                on_progress=shown,
                on_snapshot=tracker,
                snapshot_growth=tracker.growth if tracker else tracking.GROWTH,
                checkpoint=checkpoint,
                resume=resume,
            )
        finally:
            shown.finish()
        peak_mb = memory.mb()
        outcome.reconstruction.save(folder / RESULT_FILE)  # before anything that could still go wrong
        metrics = _measure(outcome.reconstruction, dataset)
        document = run_folder.write_run(
            folder,
            outcome,
            problem,
            solver,
            name,
            preset=dict(options).get("preset", preset),
            metrics=metrics,
            peak_memory_mb=peak_mb,
            tracked=tracker.record(outcome.seconds, metrics) if tracker else None,
            command=["fpmtools", *click.get_current_context().obj],
        )
    if as_json:
        print_json({**document, "folder": str(folder)})
    else:
        _summarise(document, folder)
    return EXIT_INTERRUPTED if outcome.status == "interrupted" else 0


def _make_solver(name: str, options: tuple[tuple[str, str], ...], preset: str | None, resume: bool) -> Solver[Any]:
    from fpmtools import registry
    from fpmtools.solver import make_options

    cls = registry.solver_class(name)
    solver = cls(make_options(cls, dict(options), preset))
    if resume and not solver.resumable():
        raise OptionError(f"solver {name!r} cannot resume; start it afresh without --resume")
    return solver


@contextlib.contextmanager
def _told(progress: str) -> Iterator[None]:
    """Who reads JSON lines is told of an error in one of them as well."""
    try:
        yield
    except FpmError as error:
        if progress == "json":
            status = error.status if isinstance(error, SolverError) else "failed"
            print_event({"event": "error", "status": status, "message": " ".join(str(error).split())})
        raise


def _measure(reconstruction: Reconstruction, dataset: Dataset) -> dict[str, Any]:
    from fpmtools import metrics

    found = metrics.score(reconstruction, dataset) if dataset.truth is not None else {}
    residual = metrics.residual(reconstruction, dataset)
    return {**found, "residual": {lights: residual[lights] for lights in ("all", "bright", "dark")}}


def _summarise(document: dict[str, Any], folder: Path) -> None:
    times, found, status = document["times"], document["metrics"], document["status"]
    words = {"stopped": "stopped by the budget", "reached": "target reached"}
    click.echo(
        f"{document['solver']} on {document['data']['name']}: {words.get(status, status)} after {document['steps']} of "
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
    if "target" in document and document["seconds_to_target"] is None:
        click.echo(f"not reached: {', '.join(f'{name} {least:g}' for name, least in document['target'].items())}")
    residual = found["residual"]
    parts = (f"{lights} {number(residual[lights])}" for lights in ("all", "bright", "dark"))
    click.echo(f"residual against the measurements: {', '.join(parts)}")
    click.echo(f"{folder}: {', '.join(document['files'])}")
