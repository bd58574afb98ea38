"""Runs a :class:`RunSpec` in a folder, from its start or from wherever an earlier process left it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpmtools import threads
from fpmtools.errors import DataError, FpmError, SolverError, Terminated, expect
from fpmtools.progress import bar, of_run
from fpmtools.runs import log, tasks
from fpmtools.runs.document import describe, with_evidence
from fpmtools.runs.folder import INTERRUPTED, RESULT_FILE, RUNNING, RunFolder, sha256
from fpmtools.runs.spec import DataSpec, RunSpec

if TYPE_CHECKING:
    from fpmtools.calibration import Calibration
    from fpmtools.dataset import Dataset
    from fpmtools.problem import Problem
    from fpmtools.runs.memory import PeakMemory
    from fpmtools.solver import Solver

OnEvent = Callable[[dict[str, Any]], object]

# How a field in tiles is solved. Named and not imported, for it is made of runs, and comes after them.
TILED = "fpmtools.tiling.running:carry_on"
COLOURED = "fpmtools.colour.running:carry_on"  # several colours


def run(
    spec: RunSpec,
    folder: str | Path,
    *,
    dataset: Dataset | None = None,
    force: bool = False,
    on_event: OnEvent | None = None,
    progress: bool = True,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Run ``spec`` in a new ``folder``, and return what its ``run.json`` says in the end.

    Parameters
    ----------
    dataset
        The data, where they are in memory already; to resume the run they must be where ``spec.data`` says.
    force
        Replace the run that is in ``folder``.
    on_event
        Called with dicts that have an ``event``: "log" (text: a line of ``run.log``), "calibrating" (step, total),
        "progress" (see :func:`fpmtools.engine.solve`), "looking" and "quality" (seconds, psnr, ssim) around each look
        at the quality, "measuring" (task), "warning" (text).
    progress
        Whether there is a bar, in a terminal and in a notebook, where ``on_event`` is not given.
    command
        The command line, word by word, for the record.

    Raises
    ------
    OutputError
        The folder is in use or cannot be written, or the disk is full. Unless the folder was refused,
        :func:`resume` goes on from what is in it, as after any other end.
    Terminated
        SIGTERM or SIGHUP.

    Examples
    --------
    >>> spec = fpmtools.RunSpec("sim:thin@16x24", "ap", {"sweeps": 2}, calibrate="none")
    >>> about = fpmtools.run(spec, "out/thin")
    >>> about["status"], "amplitude.tiff" in about["files"]
    ('done', True)
    """
    expect(spec, RunSpec, "run: spec", "a RunSpec", "such as fpmtools.RunSpec('sim:thin', 'ap')")
    expect(folder, (str, Path), "run: folder", "a path")
    expect(command, Sequence, "run: command", "words")
    if dataset is not None:
        from fpmtools.dataset import expect_dataset

        expect_dataset(dataset, "run: dataset")
    with (
        RunFolder.create(folder, spec, force=force, command=command) as place,
        bar(spec.solver, progress and on_event is None) as show,
    ):
        return start(place, dataset=dataset, on_event=on_event or of_run(show))


def resume(
    folder: str | Path,
    *,
    dataset: Dataset | None = None,
    budget_s: float | None = None,
    on_event: OnEvent | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Go on with the run in ``folder``, to the bytes that it would have had without a stop.

    A run that has come to its end is left as it is, if its result is sound; else it is solved again.

    Parameters
    ----------
    budget_s
        Seconds of solving all in all, in place of what the run was given first.
    dataset, on_event, progress
        As for :func:`run`, which also tells what is returned and raised.

    Examples
    --------
    >>> spec = fpmtools.RunSpec("sim:thin@16x24", "ap", {"sweeps": 2}, calibrate="none")
    >>> fpmtools.run(spec, "out/again")["status"], fpmtools.resume("out/again")["status"]
    ('done', 'done')
    """
    expect(folder, (str, Path), "resume: folder", "a path")
    with RunFolder.reopen(folder) as place:
        if budget_s is not None:
            place.give_budget(budget_s)
        with bar(place.spec.solver, progress and on_event is None) as show:
            return carry_on(place, dataset=dataset, on_event=on_event or of_run(show))


def start(
    place: RunFolder, *, dataset: Dataset | None = None, on_event: OnEvent | None = None, **tiled: Any
) -> dict[str, Any]:
    """:func:`run` in a folder that has just been made; it goes again where the run could not even begin."""
    try:
        return carry_on(place, dataset=dataset, on_event=on_event, **tiled)
    except FpmError:
        if "resolved" not in place.document:
            place.abandon()
        raise


def carry_on(
    place: RunFolder,
    *,
    dataset: Dataset | None = None,
    on_event: OnEvent | None = None,
    preview: bool = False,
    **tiled: Any,
) -> dict[str, Any]:
    """:func:`resume` in a folder that is open: solve, unless there is a sound result; then measure and draw.

    ``preview``: write ``preview.png`` meanwhile. ``tiled``: how a run in tiles is done, see
    :func:`fpmtools.tiling.running.carry_on`.
    """
    with log.kept(place, on_event) as tell:
        if place.spec.channels or place.spec.tiles is not None:
            module, _, name = (COLOURED if place.spec.channels else TILED).partition(":")
            in_parts: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
            return in_parts(place, dataset=dataset, on_event=tell, preview=preview, **tiled)
        return _carry_on(place, dataset, tell, preview)


def _carry_on(place: RunFolder, dataset: Dataset | None, tell: OnEvent, preview: bool) -> dict[str, Any]:
    ended, trouble = place.solved()
    if trouble:
        tell({"event": "warning", "text": f"{trouble}; it is solved again"})
    if ended == INTERRUPTED or (ended == "stopped" and _has_more_time(place)):
        ended = ""
    if ended and place.document["status"] == ended and not _to_measure(place):
        return place.document
    threads.announce(place.spec.threads)
    place.document["status"] = RUNNING
    found = load(place.spec.data) if dataset is None else dataset
    if not ended:
        _solve(place, found, tell, preview)
    with threads.limited(place.spec.threads):
        _measure(place, found, tell)
    return finish(place)


def finish(place: RunFolder) -> dict[str, Any]:
    """Say that everything is written, and remove what an older run had left that this one has not replaced."""
    found = place.journal.read().ended
    document = with_evidence(place.document, {name: found[name] for name in _planned(place) if name in found})
    older = document.pop("replaces", [])
    for name in set(older) - set(document["files"]):
        (place.path / name).unlink(missing_ok=True)
    place.document = {**document, "status": document["solved"]}
    place.update()
    return place.document


def load(data: DataSpec) -> Dataset:
    """The data; :class:`DataError` when they are not those that the description says they are."""
    from fpmtools import formats

    reading = {part.name: getattr(data, part.name) for part in fields(data) if part.name not in ("source", "digest")}
    return formats.load(data.source, **reading)


def make_solver(spec: RunSpec) -> Solver[Any]:
    """The solver with its options."""
    from fpmtools import registry
    from fpmtools.options import make_options

    cls = registry.solver_class(spec.solver)
    return cls(make_options(cls, spec.options, spec.preset))


def prepared(spec: RunSpec, dataset: Dataset, solver: Solver[Any], calibration: Calibration) -> Problem:
    """What the solver is given."""
    from fpmtools.problem import prepare

    return prepare(
        dataset,
        solver,
        z_um=spec.z_um,
        device=spec.device,
        dtype=spec.dtype,
        seed=spec.seed,
        upsample=spec.upsample,
        critical_grid=spec.critical_grid,
        subpixel=spec.subpixel,
        margin=spec.margin,
        calibration=calibration,
        loss=spec.loss,
        curved=spec.curved,
    )


def _calibrated(place: RunFolder, dataset: Dataset, tell: OnEvent) -> Calibration:
    """The instrument as the run takes it to be; what a joint fit finds is kept, for it takes long."""
    from fpmtools.calibrate import improve, resolve
    from fpmtools.calibration import JOINT, Calibration

    if place.calibration.is_file():
        with contextlib.suppress(FpmError):  # damaged: it is found again
            return Calibration.load(place.calibration, dataset.optics, dataset.n_images, dataset.box)
    spec = place.spec
    start = resolve(dataset, spec.calibration)
    found = improve(
        dataset,
        start,
        spec.calibrate,
        z_um=spec.z_um,
        seed=spec.seed,
        on_step=lambda step, steps: tell({"event": "calibrating", "step": step, "total": steps}),
    )
    if JOINT in found.found and JOINT not in start.found:
        found.save(place.calibration, dataset.optics, dataset.box)
    return found


def _solve(place: RunFolder, dataset: Dataset, tell: OnEvent, preview: bool) -> None:
    """Solve, from the last checkpoint if there is one, and make the result safe."""
    from fpmtools import engine
    from fpmtools.calibrate import inspection
    from fpmtools.calibrate import warnings as said_of
    from fpmtools.runs.memory import PeakMemory
    from fpmtools.runs.tracking import check_targets

    spec, memory = place.spec, PeakMemory()
    solver = make_solver(spec)
    digest = dataset.digest
    if spec.data.digest not in (None, digest):
        raise DataError(f"{spec.data.source}: these data are not those of the run ({place.path}): they have changed")
    check_targets(spec.limits.targets, dataset)
    tell({"event": log.LOG, "text": log.of_data(dataset)})
    with threads.limited(1):
        calibration = _calibrated(place, dataset, tell)
    for line in log.of_calibration(calibration):
        tell({"event": log.LOG, "text": line})
    with threads.limited(spec.threads):
        problem = prepared(spec, dataset, solver, calibration)
    with threads.limited(spec.threads or engine.threads_for(problem)) as count:
        place.document.pop("solved", None)
        place.update(resolved={"threads": count, "device": str(problem.device), "digest": digest})
        tell({"event": log.LOG, "text": f"device {problem.device}, threads {count}"})
        said = [*dataset.check(upsample=spec.upsample), *said_of(problem.calibration)]
        for text in [*(said or inspection.brief(dataset)), *_left_out(problem, solver, spec.solver)]:
            tell({"event": "warning", "text": text})
        try:
            _until_safe(place, problem, solver, memory, tell, preview)
        except SolverError as error:
            place.update(status=error.status, reason=" ".join(str(error).split()))
            raise


def _left_out(problem: Problem, solver: Solver[Any], name: str) -> list[str]:
    """How many pixels do not count, in words; nothing where all do."""
    if not problem.masked:
        return []
    fate = "left out" if "masks" in solver.handles else f"{name} cannot leave out"
    return [f"{fate}: {problem.dataset.images.bad}"]


def _until_safe(
    place: RunFolder, problem: Problem, solver: Solver[Any], memory: PeakMemory, tell: OnEvent, preview: bool
) -> None:
    from fpmtools import engine
    from fpmtools.runs.preview import Preview
    from fpmtools.runs.tracking import GROWTH, Tracker

    spec = place.spec
    kept: dict[str, Any] = {}
    tracker = None
    if problem.dataset.truth is not None and (spec.outputs.track or spec.limits.targets):
        tracker = Tracker(problem.dataset, spec.limits.targets, tell, memory, kept)
    if place.checkpoint.is_file() and not solver.resumable():
        tell({"event": "warning", "text": f"solver {spec.solver!r} cannot be resumed; it starts afresh"})
    if spec.outputs.warm_up:
        engine.warm_up(problem, type(solver)(solver.options))

    def warn(text: str) -> None:
        tell({"event": "warning", "text": text})

    planes = problem.z_um
    outcome = engine.solve(
        problem,
        solver,
        budget_s=spec.limits.budget_s,
        on_progress=lambda progress: tell({"event": "progress", **progress}),
        on_snapshot=tracker,
        snapshot_growth=tracker.growth if tracker else GROWTH,
        checkpoint=place.checkpoint,
        resume=True,
        keep=kept,
        exact=spec.exact,
        on_warning=warn,
        on_preview=Preview(place.path, planes[len(planes) // 2], warn) if preview else None,
    )
    about = describe(spec, outcome, problem, solver) | (tracker.record() if tracker else {})
    about |= {"peak_memory_mb": memory.mb(), "calibration_file": place.calibration.is_file()}
    place.journal.path.unlink(missing_ok=True)  # what was found out about an earlier result
    file = outcome.reconstruction.save(place.path / RESULT_FILE)
    place.update(**about, solved=outcome.status, result_sha256=sha256(file))
    if outcome.status in ("done", "reached"):
        place.checkpoint.unlink(missing_ok=True)
    if outcome.signal is not None:
        raise Terminated("ended by a signal; what had been reached is kept", outcome.signal)


def _has_more_time(place: RunFolder) -> bool:
    """Whether a run that its budget had ended was given a larger one."""
    budget_s = place.spec.limits.budget_s
    return place.checkpoint.is_file() and (budget_s is None or budget_s > place.document["times"]["solve_s"])


def _planned(place: RunFolder) -> list[str]:
    return tasks.planned(place.spec.outputs, truth=place.document["data"]["truth"] is not None)


def _to_measure(place: RunFolder) -> list[str]:
    return tasks.todo(place.path, place.journal, _planned(place))


def _measure(place: RunFolder, dataset: Dataset, tell: OnEvent) -> None:
    if _to_measure(place):
        from fpmtools.runs.measuring import measure

        measure(place, dataset, _planned(place), lambda name: tell({"event": tasks.MEASURING, "task": name}))
