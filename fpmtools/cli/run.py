"""``fpmtools run``: one data set, one solver, a folder with everything that came out."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _inputs
from fpmtools.cli._output import echo, number, print_event, print_json, tell_step
from fpmtools.cli._progress import Progress
from fpmtools.columns import size
from fpmtools.errors import EXIT_INTERRUPTED, FpmError, OptionError, SolverError
from fpmtools.processes import private_stdout

if TYPE_CHECKING:
    from fpmtools.comparison.tracking import Tracker
    from fpmtools.dataset import Dataset
    from fpmtools.engine import Outcome
    from fpmtools.problem import Problem
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
@click.option("--record-only", is_flag=True, hidden=True)  # for compare, which says what is measured and drawn:
@click.option("--step", "steps", multiple=True, hidden=True)
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
    record_only: bool,
    steps: tuple[str, ...],
    quiet: bool,
    progress: str,
    as_json: bool,
    **choices: Any,
) -> int:
    """Reconstruct one data set with one solver."""
    if resume and out is None:
        raise OptionError("--resume needs --out: the folder of the run to continue")
    _inputs.set_threads(threads)
    from fpmtools import calibrate
    from fpmtools.comparison import tracking
    from fpmtools.comparison.memory import PeakMemory
    from fpmtools.problem import choose_device, prepare, suggested_threads
    from fpmtools.report import gathering, run_folder

    reading = _inputs.take_reading(choices)
    choose_device(choices["device"])
    wanted = tracking.parse_targets(targets)
    shown = Progress(name, style="none" if quiet else progress)
    # What a plugin prints must not mix with the results.
    with private_stdout(), _told(progress):
        solver = _make_solver(name, options, preset, resume)
        folder = out or _inputs.new_folder(name, data)
        checkpoint = folder / CHECKPOINT
        finished = _finished(folder) if resume and not (force or checkpoint.is_file()) else None
        run_folder.claim_folder(folder, force or finished is not None or (resume and checkpoint.is_file()))
        dataset = _inputs.load(data, reading)
        tracking.check_targets(wanted, dataset)
        memory, tracker = PeakMemory(), None
        if dataset.truth is not None and (track or wanted):
            tracker = tracking.Tracker(dataset, wanted, shown.show, memory)
        how = calibrate.NOMINAL if choices.pop("trust_leds") else calibrate.AUTO
        problem = prepare(dataset, solver, calibration=calibrate.resolve(dataset, how), z_um=z_um, **choices)
        if finished is not None:
            _check_same(finished, problem, solver, wanted, folder)
            document = finished
        else:
            if threads is None and "OMP_NUM_THREADS" not in os.environ:
                _inputs.set_threads(suggested_threads(problem))
            for warning in [*dataset.check(upsample=choices["upsample"]), *calibrate.warnings(problem.calibration)]:
                echo(f"warning: {warning}", err=True)
            outcome = _solve(problem, solver, shown, tracker, budget_s, checkpoint, resume)
            peak_mb = memory.mb()

            def measure() -> dict[str, Any]:
                found = {} if record_only else _measure(outcome.reconstruction, dataset)
                return {"metrics": found, **(tracker.record(outcome.seconds, found) if tracker else {})}

            document = run_folder.write_run(
                folder,
                outcome,
                problem,
                solver,
                name,
                preset=dict(options).get("preset", preset),
                measure=measure,
                pictures=not record_only,
                peak_memory_mb=peak_mb,
                command=["fpmtools", *click.get_current_context().obj],
            )
            gathering.gather(folder, dataset, steps, tell_step)
    if as_json:
        print_json({**document, "folder": str(folder)})
    elif not record_only:
        _summarise(document, folder)
        if finished is not None:
            echo("finished already; nothing is left to do")
    return EXIT_INTERRUPTED if document["status"] == "interrupted" else 0


def _solve(
    problem: Problem,
    solver: Solver[Any],
    shown: Progress,
    tracker: Tracker | None,
    budget_s: float | None,
    checkpoint: Path,
    resume: bool,
) -> Outcome:
    from fpmtools import engine
    from fpmtools.comparison import tracking

    def on_progress(step: int, total: int, loss: float, seconds: float) -> None:
        left_s = seconds / step * max(total - step, 0) if step else math.inf
        if budget_s is not None:
            left_s = min(left_s, max(budget_s - seconds, 0.0))
        psnr = -10 * math.log10(2 * loss) if loss > 0 else None
        event = {"step": step, "total": total, "loss": loss, "psnr": psnr, "seconds": seconds, "remaining_s": left_s}
        shown(event)

    try:
        return engine.solve(
            problem,
            solver,
            budget_s=budget_s,
            on_progress=on_progress,
            on_snapshot=tracker,
            snapshot_growth=tracker.growth if tracker else tracking.GROWTH,
            checkpoint=checkpoint,
            resume=resume,
        )
    finally:
        shown.finish()


def _finished(folder: Path) -> dict[str, Any] | None:
    """What ``run.json`` says of a run in ``folder`` that came to its end; None where there is none."""
    import json

    from fpmtools.reconstruction import RESULT_FILE
    from fpmtools.report.run_folder import RUN_FILE

    try:
        document = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        ended = document["status"] in ("done", "reached") and (folder / RESULT_FILE).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return document if ended else None


def _check_same(
    finished: dict[str, Any], problem: Problem, solver: Solver[Any], targets: dict[str, float], folder: Path
) -> None:
    """Raise :class:`OptionError` when a finished run is not the one that is asked for."""
    from fpmtools.report import run_folder
    from fpmtools.storage import finite

    asked: dict[str, Any] = finite(run_folder.describe_problem(problem, solver))
    differing = [key for key, value in asked.items() if key != "data" and finished.get(key) != value]
    if finished.get("data", {}).get("digest") != asked["data"]["digest"]:
        differing.append("data")
    if finished.get("target", targets) != targets:
        differing.append("target")
    if differing:
        raise OptionError(
            f"the run in {folder} is finished, and its {', '.join(differing)} differ from what is asked for; choose "
            "another folder, or give --force to replace it"
        )


def _make_solver(name: str, options: tuple[tuple[str, str], ...], preset: str | None, resume: bool) -> Solver[Any]:
    from fpmtools import registry
    from fpmtools.options import make_options

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
    echo(
        f"{document['solver']} on {document['data']['name']}: {words.get(status, status)} after {document['steps']} of "
        f"{document['total_steps']} steps, {times['solve_s']:.1f} s (set-up {times['setup_s']:.1f} s), "
        f"{document['peak_memory_mb']:.0f} MB"
    )
    shape = " × ".join(str(n) for n in document["grid"]["output_shape"])
    echo(
        f"{shape} pixels at {len(document['z_um'])} z; stored in {size(document['stored_bytes'])}, "
        f"{document['dense_ratio']:.3g} times less than dense planes"
    )
    if "psnr" in found:
        echo(
            f"against the truth: PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}, RMSE {found['rmse']:.4g}, "
            f"relative L2 {found['relative_l2']:.4g}, phase RMSE {found['phase_rmse_rad']:.3g} rad"
        )
    if "target" in document and document["seconds_to_target"] is None:
        echo(f"not reached: {', '.join(f'{name} {least:g}' for name, least in document['target'].items())}")
    residual = found["residual"]
    parts = (f"{lights} {number(residual[lights])}" for lights in ("all", "bright", "dark"))
    echo(f"residual against the measurements: {', '.join(parts)}")
    echo(f"{folder}: {', '.join(document['files'])}")
