"""The one loop that runs any solver: set-up, clock, progress, budget, Ctrl-C, checkpoints, NaN watch."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fpmtools import calibrate, registry, storage
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, DivergedError, FpmError, OptionError, OutOfMemoryError, SolverError
from fpmtools.losses import Loss
from fpmtools.options import make_options
from fpmtools.problem import Problem, prepare
from fpmtools.reconstruction import Reconstruction
from fpmtools.solver import Progress, Solver

Status = Literal["done", "reached", "stopped", "interrupted"]
OnProgress = Callable[[int, int, float, float], None]
OnSnapshot = Callable[[float, Reconstruction], bool | None]

REPORT_EVERY_S = 0.25
CHECKPOINT_EVERY_S = 60.0
FIRST_SNAPSHOT_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    ``status``: "done", "reached" (a snapshot was good enough), "stopped" (the budget was used up) or "interrupted"
    (Ctrl-C); the reconstruction is what had been reached. ``seconds`` is the time of the steps, ``setup_seconds`` that
    of :meth:`Solver.start`; both with the device synchronised. ``first_step_seconds`` is the part of ``seconds`` that
    the first step took, in which a solver may compile and a device warm up; ``step_seconds`` the mean of the steps
    after it, None when there was only one. ``history`` holds (step, seconds, loss), at most a few per second.
    """

    reconstruction: Reconstruction
    status: Status
    seconds: float
    setup_seconds: float
    steps: int
    total_steps: int
    history: list[tuple[int, float, float]] = field(default_factory=list)
    first_step_seconds: float = 0.0
    step_seconds: float | None = None


def solve(
    problem: Problem,
    solver: Solver[Any],
    *,
    budget_s: float | None = None,
    on_progress: OnProgress | None = None,
    on_snapshot: OnSnapshot | None = None,
    snapshot_growth: float = 1.5,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> Outcome:
    """Run a solver to its end, its budget, or Ctrl-C, whichever comes first.

    Parameters
    ----------
    budget_s
        Stop after the first step that ends later than this many seconds.
    on_progress
        Called as ``on_progress(step, total, loss, seconds)``, at most four times a second and at the end.
    on_snapshot
        Called as ``on_snapshot(seconds, reconstruction)`` with what has been reached, ever less often (each time after
        ``snapshot_growth`` times the time so far), while the clock stands still. Returning True ends the run as
        "reached".
    checkpoint
        File to keep the state in, rewritten every minute and when stopped early, removed when done.
    resume
        Continue from ``checkpoint`` if that file exists.

    Raises
    ------
    SolverError
        The loss is no longer finite, the device is out of memory, or the solver itself failed.
    """
    if budget_s is not None and not budget_s > 0:
        raise OptionError(f"the budget must be a positive number of seconds, got {budget_s:g}")
    path = Path(checkpoint) if checkpoint is not None and solver.resumable() else None
    begun = time.perf_counter()
    with _interruptible() as interrupted, _guarded(solver, interrupted):
        state, earlier = _start(problem, solver, path if resume else None)
        _synchronise(problem.device)
        setup = time.perf_counter() - begun
        run = _Run(problem, solver, state, _Clock(earlier), budget_s, on_progress, on_snapshot, snapshot_growth, path)
        status = run.loop(interrupted)
        seconds = run.clock.seconds()
        if path is not None:
            if status in ("done", "reached"):
                path.unlink(missing_ok=True)
            else:
                run.save_checkpoint()
        reconstruction = run.result()
    steady = (seconds - earlier - run.first_step_s) / (run.taken - 1) if run.taken > 1 else None
    step, total = run.progress.step, run.progress.total
    return Outcome(reconstruction, status, seconds, setup, step, total, run.history, run.first_step_s, steady)


class _Clock:
    """Seconds of solving so far, without the time in which it stands still."""

    def __init__(self, earlier: float) -> None:
        self._begun = time.perf_counter() - earlier

    def seconds(self) -> float:
        return time.perf_counter() - self._begun

    @contextmanager
    def paused(self) -> Iterator[None]:
        now = time.perf_counter()
        try:
            yield
        finally:
            self._begun += time.perf_counter() - now


@dataclass
class _Run:
    """The loop, and all that it watches."""

    problem: Problem
    solver: Solver[Any]
    state: Any
    clock: _Clock
    budget_s: float | None
    on_progress: OnProgress | None
    on_snapshot: OnSnapshot | None
    snapshot_growth: float
    checkpoint: Path | None
    progress: Progress = field(default_factory=lambda: Progress(0, 0, 0.0))
    history: list[tuple[int, float, float]] = field(default_factory=list)
    taken: int = 0
    first_step_s: float = 0.0

    def loop(self, interrupted: threading.Event) -> Status:
        begun = reported = saved = self.clock.seconds()
        next_snapshot = max(FIRST_SNAPSHOT_S, self.snapshot_growth * reported)
        while True:
            self.progress = self.solver.step(self.state)
            self.taken += 1
            if self.taken == 1:
                _synchronise(self.problem.device)
                self.first_step_s = self.clock.seconds() - begun
            now = self.clock.seconds()
            status = self._status(interrupted)
            if status or now - reported >= REPORT_EVERY_S:
                self._report()
                reported = now
            if self.on_snapshot is not None and (status or now >= next_snapshot):
                reached = self._snapshot(self.on_snapshot)
                status = "reached" if reached and status != "interrupted" else status
                next_snapshot = self.snapshot_growth * now
            if status:
                _synchronise(self.problem.device)
                return status
            if self.checkpoint is not None and now - saved >= CHECKPOINT_EVERY_S:
                self.save_checkpoint()
                saved = now

    def _status(self, interrupted: threading.Event) -> Status | None:
        if self.progress.done:
            return "done"
        if interrupted.is_set():
            return "interrupted"
        if self.budget_s is not None:
            # Only a run that has a budget waits for the device here; others keep it busy.
            _synchronise(self.problem.device)
            if self.clock.seconds() >= self.budget_s:
                return "stopped"
        return None

    def _report(self) -> None:
        loss, step, total = float(self.progress.loss), self.progress.step, self.progress.total
        if not math.isfinite(loss):
            raise DivergedError(f"diverged: the loss is {loss} after step {step} of {total}")
        seconds = self.clock.seconds()
        self.history.append((step, seconds, loss))
        if self.on_progress is not None:
            self.on_progress(step, total, loss, seconds)

    def _snapshot(self, on_snapshot: OnSnapshot) -> bool:
        _synchronise(self.problem.device)
        seconds = self.clock.seconds()
        with self.clock.paused():
            return bool(on_snapshot(seconds, self.result()))

    def result(self) -> Reconstruction:
        with torch.no_grad():
            reconstruction: object = self.solver.result(self.state)
        if not isinstance(reconstruction, Reconstruction):
            name, what = type(self.solver).__name__, type(reconstruction).__name__
            raise SolverError(f"{name} failed: its result is a {what}, not a Reconstruction")
        _need_finite(reconstruction)
        reconstruction.metadata.setdefault("intensity_scale", self.problem.intensity_scale)
        reconstruction.calibration = self.problem.calibration
        return reconstruction

    def save_checkpoint(self) -> None:
        assert self.checkpoint is not None
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self.solver.dump(self.state).items()}
        header = {"run": _fingerprint(self.problem, self.solver), "seconds": self.clock.seconds()}
        storage.write_tensors(self.checkpoint, arrays, "checkpoint", header)


def _start(problem: Problem, solver: Solver[Any], resume_from: Path | None) -> tuple[Any, float]:
    if resume_from is None or not resume_from.is_file():
        return solver.start(problem), 0.0
    tensors, header = storage.read_tensors(resume_from, "checkpoint")
    if header["run"] != _fingerprint(problem, solver):
        raise DataError(
            f"{resume_from}: this checkpoint is from other data, options, z or seed; start afresh without --resume"
        )
    device = problem.device
    moved = {name: torch.from_numpy(array).to(device) for name, array in tensors.items()}
    return solver.restore(problem, moved), float(header["seconds"])


def _fingerprint(problem: Problem, solver: Solver[Any]) -> dict[str, Any]:
    forward = problem.forward
    run = {
        "solver": f"{type(solver).__module__}:{type(solver).__qualname__}",
        "options": repr(solver.options),
        "z_um": list(problem.z_um),
        "grids": [list(forward.image_shape), list(forward.object_shape), list(problem.output_shape)],
        "subpixel": forward.subpixel,
        "calibration": problem.calibration.digest,
        "loss": problem.loss_name,
        "dtype": str(forward.dtype),
        "seed": problem.seed,
        "data": problem.dataset.digest,
    }
    return storage.finite(run)  # type: ignore[no-any-return]


def _need_finite(reconstruction: Reconstruction) -> None:
    arrays = [array for array in reconstruction.dump()[0].values() if array.dtype.kind in "fc"]
    if not all(np.isfinite(part).all() for array in arrays for part in storage.slices(array)):
        raise DivergedError("diverged: the result holds values that are not finite")


@contextmanager
def _guarded(solver: Solver[Any], interrupted: threading.Event) -> Iterator[None]:
    """Turn whatever goes wrong inside a solver into one clear line; it may exit, or interrupt itself."""
    name = type(solver).__name__
    try:
        yield
    except FpmError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(
            f"{name} ran out of memory; use a smaller --roi, fewer planes, or smaller batches"
        ) from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and interrupted.is_set():
            raise
        if "not enough memory" in str(error) or "out of memory" in str(error).lower():
            raise OutOfMemoryError(
                f"{name} ran out of memory; use a smaller --roi, fewer planes, or smaller batches"
            ) from error
        text = " ".join(str(error).split()) or "no message"
        raise SolverError(f"{name} failed: {type(error).__name__}: {text}") from error


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets an event instead of unwinding the step that is under way; a second one unwinds after all."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def remember(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, previous)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reconstruct(
    dataset: Dataset,
    solver: str | Solver[Any] = "inr",
    *,
    options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    z_um: Sequence[float] | float | None = None,
    device: str = "auto",
    dtype: str = "complex64",
    seed: int = 0,
    upsample: float | None = None,
    critical_grid: bool | None = None,
    subpixel: bool | None = None,
    calibration: str | Path | Calibration = calibrate.AUTO,
    loss: str | Loss | None = None,
    budget_s: float | None = None,
    on_progress: OnProgress | None = None,
) -> Reconstruction:
    """Reconstruct a data set with a solver, by name or as an instance.

    ``options`` are the solver's (``fpmtools solvers NAME`` lists them), ``preset`` one of its presets; the other
    arguments are those of :func:`prepare` and :func:`solve`. Ctrl-C returns what had been reached.
    """
    if isinstance(solver, str):
        cls = registry.solver_class(solver)
        solver = cls(make_options(cls, options or {}, preset))
    elif options or preset:
        raise OptionError("options and preset go with a solver's name; an instance has its own")
    problem = prepare(
        dataset,
        solver,
        calibration=calibrate.resolve(dataset, calibration),
        loss=loss,
        z_um=z_um,
        device=device,
        dtype=dtype,
        seed=seed,
        upsample=upsample,
        critical_grid=critical_grid,
        subpixel=subpixel,
    )
    return solve(problem, solver, budget_s=budget_s, on_progress=on_progress).reconstruction
