"""The one loop that runs any solver: clock, progress, budget, checkpoints, NaN watch; Ctrl-C and other signals."""

from __future__ import annotations

import math
import numbers
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import fpmtools
from fpmtools import registry, storage
from fpmtools.calibrate import AUTO, NONE, improve, resolve
from fpmtools.calibration import Calibration
from fpmtools.compact import compact
from fpmtools.dataset import Dataset, expect_dataset
from fpmtools.errors import (
    DataError,
    DivergedError,
    FpmError,
    OptionError,
    OutputError,
    SolverError,
    Terminated,
    expect,
)
from fpmtools.interrupts import Caught, Guard, signals
from fpmtools.losses import Loss
from fpmtools.options import make_options
from fpmtools.problem import Problem, prepare, suggested_threads
from fpmtools.progress import bar
from fpmtools.reconstruction import Reconstruction
from fpmtools.solver import Progress, Solver
from fpmtools.threads import chosen_by_user, limited

Status = Literal["done", "reached", "stopped", "interrupted"]
OnProgress = Callable[[dict[str, Any]], object]
OnSnapshot = Callable[[float, Reconstruction], bool | None]

REPORT_EVERY_S = 0.25
CHECKPOINT_EVERY_S = 60.0
FIRST_SNAPSHOT_S = 0.1
PREVIEW_EVERY_S = 3.0
PREVIEW_SHARE = 0.05  # of the time
WARM_UP_STEPS = 2
RECENT_STEPS = 16  # whose mean squared error is reported: one may have seen a few images only


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    ``status``: "done", "reached" (a snapshot was good enough), "stopped" (the budget was used up) or "interrupted"
    (Ctrl-C, or ``signal``, of a solver that cannot be resumed); the reconstruction is what had been reached.
    ``seconds`` is the time of the steps, ``setup_seconds`` that of :meth:`Solver.start`; both with the device
    synchronised. ``first_step_seconds`` is the part of ``seconds`` that the first step took, in which a solver may
    compile and a device warm up; ``step_seconds`` the mean of the steps after it, None when there was only one.
    ``history`` holds (step, seconds, loss), at most a few per second, also those from before a resume.
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
    signal: int | None = None


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
    keep: MutableMapping[str, Any] | None = None,
    exact: bool = False,
    on_warning: Callable[[str], object] = warnings.warn,
    on_preview: Callable[[Reconstruction], object] | None = None,
) -> Outcome:
    """Run a solver to its end, its budget, or Ctrl-C, whichever comes first.

    Parameters
    ----------
    budget_s
        Stop after the first step that ends later than this many seconds.
    on_progress
        Called with a dict of ``step``, ``total``, ``at_most`` (the total is only an upper bound), ``what`` (the name of
        the number in) ``loss``, ``psnr`` (of the images, dB; None where the solver does not tell their error),
        ``seconds`` and ``remaining_s`` (None where not known), at most four times a second and at the end.
    on_snapshot
        Called as ``on_snapshot(seconds, reconstruction)`` with what has been reached, ever less often (each time after
        ``snapshot_growth`` times the time so far), while the clock stands still. Returning True ends the run as
        "reached".
    checkpoint
        File to keep the state in, rewritten every minute and when stopped early; whoever keeps the result removes it.
        With it SIGTERM and SIGHUP end the run after the step under way.
    resume
        Continue from ``checkpoint`` if that file exists and fits; if it does not fit, say so and start afresh.
    keep
        JSON-ready values that are kept in the checkpoint, and updated from it on resume.
    exact
        Leave every digit of a stack of planes, which is else stored as :func:`fpmtools.compact.compact` does.
        Snapshots are what would be stored.
    on_warning
        Told, in a line, of a checkpoint that cannot be written or read; the run goes on.

    on_preview
        Called every few seconds, and at the end, with what has been reached, not compacted, while the clock stands
        still; less often where that takes long, so that at most a twentieth of the time goes into it.

    What a callback raises is raised as it is.

    Raises
    ------
    SolverError
        The loss is no longer finite, the device is out of memory, or the solver itself failed.
    Terminated
        SIGTERM or SIGHUP; the state is in the checkpoint.
    """
    expect(budget_s, (numbers.Real, type(None)), "the budget", "a number of seconds")
    if budget_s is not None and not budget_s > 0:
        raise OptionError(f"the budget must be a positive number of seconds, got {budget_s:g}")
    path = Path(checkpoint) if checkpoint is not None and solver.resumable() else None
    with signals(terminable=checkpoint is not None) as caught:
        guard, kept = Guard(solver, caught), {} if keep is None else keep
        run = _Loop(problem, solver, guard, budget_s, on_progress, on_snapshot, snapshot_growth, path, on_warning, kept)
        run.exact, run.on_preview = exact, on_preview
        run.identity = _fingerprint(problem, solver) if path is not None else {}
        begun = time.perf_counter()
        earlier = run.start(resume)
        setup = time.perf_counter() - begun
        status = run.loop(caught)
        seconds = run.clock.seconds()
        saved = path is not None and status in ("stopped", "interrupted") and run.save_checkpoint()
        if caught.terminated and saved:
            name = signal.Signals(caught.terminated).name
            raise Terminated(f"ended by {name} after step {run.progress.step}; it can be resumed", caught.terminated)
        reconstruction = run.result()
    steady = (seconds - earlier - run.first_step_s) / (run.taken - 1) if run.taken > 1 else None
    step, total = run.progress.step, run.progress.total
    return Outcome(
        reconstruction, status, seconds, setup, step, total, run.history, run.first_step_s, steady, caught.terminated
    )


def warm_up(problem: Problem, solver: Solver[Any]) -> None:
    """A few steps of a run that is thrown away: what is loaded, planned or compiled at first use."""
    with signals(terminable=False) as caught, Guard(solver, caught):
        state = solver.start(problem)
        for _ in range(WARM_UP_STEPS):
            if solver.step(state).done or caught.interrupted:
                break
        _synchronise(problem.device)
    if caught.interrupted:
        raise KeyboardInterrupt


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
class _Loop:
    """The loop, and all that it watches."""

    problem: Problem
    solver: Solver[Any]
    guard: Guard
    budget_s: float | None
    on_progress: OnProgress | None
    on_snapshot: OnSnapshot | None
    snapshot_growth: float
    checkpoint: Path | None
    on_warning: Callable[[str], object]
    keep: MutableMapping[str, Any]
    exact: bool = False
    on_preview: Callable[[Reconstruction], object] | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    clock: _Clock = field(default_factory=lambda: _Clock(0.0))
    progress: Progress = field(default_factory=lambda: Progress(0, 0, 0.0))
    history: list[tuple[int, float, float]] = field(default_factory=list)
    errors: deque[torch.Tensor | float] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    taken: int = 0
    first_step_s: float = 0.0

    def start(self, resume: bool) -> float:
        """Begin, or go on from a checkpoint; the seconds that had been solved before."""
        earlier = self._restored() if resume and self.checkpoint is not None and self.checkpoint.is_file() else None
        if earlier is None:
            with self.guard:
                self.state = self.solver.start(self.problem)
        _synchronise(self.problem.device)
        self.clock = _Clock(earlier or 0.0)
        return earlier or 0.0

    def _restored(self) -> float | None:
        assert self.checkpoint is not None
        try:
            tensors, header = storage.read_tensors(self.checkpoint, "checkpoint")
            if header["run"] != self.identity:
                raise DataError(f"it is of another run or version ({_differing(header['run'], self.identity)})")
            moved = {name: torch.from_numpy(array).to(self.problem.device) for name, array in tensors.items()}
            with self.guard:
                self.state = self.solver.restore(self.problem, moved)
            self.history = [(int(step), float(s), float("nan" if x is None else x)) for step, s, x in header["history"]]
            self.keep.update(header["keep"])
            return float(header["seconds"])
        except (FpmError, KeyError, TypeError, ValueError) as error:
            self.on_warning(f"{self.checkpoint}: not used, the run starts afresh: {error}")
            return None

    def loop(self, caught: Caught) -> Status:
        begun = reported = saved = self.clock.seconds()
        next_snapshot = max(FIRST_SNAPSHOT_S, self.snapshot_growth * reported)
        next_preview = begun + PREVIEW_EVERY_S
        while True:
            with self.guard:
                self.progress = self.solver.step(self.state)
            self.taken += 1
            if self.progress.error is not None:
                self.errors.append(self.progress.error)
            if self.taken == 1:
                _synchronise(self.problem.device)
                self.first_step_s = self.clock.seconds() - begun
            now = self.clock.seconds()
            status = self._status(caught)
            if status or now - reported >= REPORT_EVERY_S:
                self._report()
                reported = now
            if self.on_snapshot is not None and (status or now >= next_snapshot) and not caught.terminated:
                reached = self._snapshot(self.on_snapshot)
                status = "reached" if reached and status != "interrupted" else status
                next_snapshot = self.snapshot_growth * now
            if self.on_preview is not None and (status or now >= next_preview) and not caught.terminated:
                next_preview = now + self._preview(self.on_preview)
            if status:
                _synchronise(self.problem.device)
                return status
            if self.checkpoint is not None and now - saved >= CHECKPOINT_EVERY_S:
                self.save_checkpoint()
                saved = now

    def _status(self, caught: Caught) -> Status | None:
        if self.progress.done:
            return "done"
        if caught.interrupted or caught.terminated:
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
        error = sum(map(float, self.errors)) / max(len(self.errors), 1)
        if self.on_progress is not None:
            self.on_progress(
                {
                    "step": step,
                    "total": total,
                    "at_most": self.progress.at_most,
                    "what": self.progress.what,
                    "loss": loss,
                    "psnr": -10 * math.log10(error) if error > 0 else None,
                    "seconds": seconds,
                    "remaining_s": self._remaining_s(seconds),
                }
            )

    def _remaining_s(self, seconds: float) -> float | None:
        step, total = self.progress.step, self.progress.total
        known = [] if self.progress.at_most or not step else [seconds / step * max(total - step, 0)]
        known += [] if self.budget_s is None else [max(self.budget_s - seconds, 0.0)]
        return 0.0 if self.progress.done else min(known, default=None)

    def _snapshot(self, on_snapshot: OnSnapshot) -> bool:
        _synchronise(self.problem.device)
        seconds = self.clock.seconds()
        with self.clock.paused():
            return bool(on_snapshot(seconds, self.result()))

    def _preview(self, on_preview: Callable[[Reconstruction], object]) -> float:
        """Seconds of solving until the next one."""
        begun = time.perf_counter()
        with self.clock.paused():
            on_preview(self.result(exact=True))
        return max(PREVIEW_EVERY_S, (time.perf_counter() - begun) / PREVIEW_SHARE)

    def result(self, exact: bool | None = None) -> Reconstruction:
        with self.guard, torch.no_grad():
            reconstruction: object = self.solver.result(self.state)
            if not isinstance(reconstruction, Reconstruction):
                name, what = type(self.solver).__name__, type(reconstruction).__name__
                raise SolverError(f"{name} failed: its result is a {what}, not a Reconstruction")
            _need_finite(reconstruction)
        reconstruction.metadata.setdefault("intensity_scale", self.problem.intensity_scale)
        reconstruction.metadata.setdefault("wavelength_um", self.problem.dataset.optics.wavelength_um)
        if reconstruction.calibration is None:  # else the solver has found out more
            reconstruction.calibration = self.problem.calibration
        if any(self.problem.grid.margin_um):  # which a solver need not know of
            reconstruction.grid = self.problem.grid
        return reconstruction if (self.exact if exact is None else exact) else compact(reconstruction, self.problem)

    def save_checkpoint(self) -> bool:
        """Whether it could be written; the clock stands still meanwhile."""
        assert self.checkpoint is not None
        _synchronise(self.problem.device)
        header = {
            "run": self.identity,
            "seconds": self.clock.seconds(),
            "history": self.history,
            "keep": dict(self.keep),
        }
        with self.clock.paused():
            with self.guard:
                arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self.solver.dump(self.state).items()}
            try:
                storage.write_tensors(self.checkpoint, arrays, "checkpoint", header)
            except OutputError as error:
                self.on_warning(f"no checkpoint: {error}")
                return False
        return True


def _fingerprint(problem: Problem, solver: Solver[Any]) -> dict[str, Any]:
    """All that must be the same for a run to go on to the bits that it would have come to without a stop."""
    forward = problem.forward
    run = {
        "solver": f"{type(solver).__module__}:{type(solver).__qualname__}",
        "options": repr(solver.options),
        "z_um": list(problem.z_um),
        "grids": [list(forward.image_shape), list(forward.object_shape), list(problem.output_shape)],
        "subpixel": forward.subpixel,
        "calibration": problem.calibration.digest,
        "loss": problem.loss_name,
        "masked": problem.masked,
        "dtype": str(forward.dtype),
        "seed": problem.seed,
        "data": problem.dataset.digest,
        "threads": torch.get_num_threads(),
        "versions": [fpmtools.__version__, torch.__version__],
    }
    return storage.finite(run)  # type: ignore[no-any-return]


def _differing(one: Any, other: Mapping[str, Any]) -> str:
    return ", ".join(key for key in other if not isinstance(one, dict) or one.get(key) != other[key])


def _need_finite(reconstruction: Reconstruction) -> None:
    arrays = [array for array in reconstruction.dump()[0].values() if array.dtype.kind in "fc"]
    if not all(np.isfinite(part).all() for array in arrays for part in storage.slices(array)):
        raise DivergedError("diverged: the result holds values that are not finite")


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def threads_for(problem: Problem) -> int | None:
    """The number of CPU threads that suits a problem; None where the environment says how many there are to be."""
    return None if chosen_by_user() else suggested_threads(problem)


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
    threads: int | None = None,
    upsample: float | None = None,
    critical_grid: bool | None = None,
    subpixel: bool | None = None,
    calibration: str | Path | Calibration = AUTO,
    calibrate: str = NONE,
    loss: str | Loss | None = None,
    margin: int | str | None = None,
    mask: bool = True,
    exact: bool = False,
    budget_s: float | None = None,
    progress: bool = True,
    on_progress: OnProgress | None = None,
) -> Reconstruction:
    """Reconstruct a data set with a solver, in memory.

    Ctrl-C returns what had been reached.

    Parameters
    ----------
    dataset
        From :func:`fpmtools.load`, :func:`fpmtools.simulate` or :meth:`Dataset.from_arrays`.
    solver
        A name (:func:`fpmtools.solvers` lists them), or an instance.
    options, preset
        The solver's, see :func:`fpmtools.options`; only with a name.
    z_um
        Planes to reconstruct at, µm, ascending; default: ``dataset.planes_um``.
    device
        "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
    dtype
        "complex64" or "complex128".
    seed
        Of all that is random; the same seed gives the same bytes on the same machine.
    threads
        CPU threads meanwhile; default: 1 for small problems, else as many as torch has.
    upsample, critical_grid, subpixel, loss, margin, mask
        As for :func:`fpmtools.problem.prepare`.
    calibration
        The instrument to start from: "auto" (what the images say of the board), "nominal" (what the data say), a file,
        or a :class:`Calibration`.
    calibrate
        What is fitted from there on, as in :func:`fpmtools.calibrate`: "none", "auto", or names.
    exact
        Keep what solvers of planes find as it is, float32, and not rounded to what the images can tell.
    budget_s
        Seconds of solving after which what has been reached is returned.
    progress
        Show a bar in a terminal (on stderr) or a notebook; nothing is shown anywhere else.
    on_progress
        Called with what :func:`fpmtools.engine.solve` tells.

    Returns
    -------
    Reconstruction
        ``field(z_um)`` is complex64 [y, x] at any z between the planes; ``calibration`` is the one that was used.

    Raises
    ------
    OptionError
        An unknown name, a value of the wrong kind or out of range.
    DataError
        Images that cannot be used.
    SolverError
        The solver diverged, ran out of memory, or failed.

    Examples
    --------
    >>> data = fpmtools.simulate("thin", image_shape=(32, 48))
    >>> result = fpmtools.reconstruct(data, "ap", options={"sweeps": 5})
    >>> result
    Reconstruction (low-rank)
      field   64 × 96 pixels of 0.173 µm, 11.04 × 16.56 µm
      z       0 µm
      pupil   ideal
      stored  2... kB
    >>> result.phase(unwrap=True).shape
    (64, 96)
    """
    expect_dataset(dataset, "reconstruct: dataset")
    expect(solver, (str, Solver), "reconstruct: solver", "the name of a solver, or a Solver")
    expect(options or {}, Mapping, "reconstruct: options", "names with values, such as {'sweeps': 10}")
    called = solver if isinstance(solver, str) else type(solver).__name__
    if isinstance(solver, str):
        cls = registry.solver_class(solver)
        solver = cls(make_options(cls, options or {}, preset))
    elif options or preset:
        raise OptionError("options and preset go with a solver's name; an instance has its own")
    with limited(threads), bar(f"{dataset.name} {called}", progress) as show:
        found = improve(
            dataset,
            resolve(dataset, calibration),
            calibrate,
            z_um=z_um,
            seed=seed,
            on_step=lambda step, steps: show({"step": step, "total": steps, "doing": "calibrating"}),
        )
        problem = prepare(
            dataset,
            solver,
            z_um=z_um,
            device=device,
            dtype=dtype,
            seed=seed,
            upsample=upsample,
            critical_grid=critical_grid,
            subpixel=subpixel,
            calibration=found,
            loss=loss,
            margin=margin,
            mask=mask,
        )

        def tell(event: dict[str, Any]) -> None:
            show(event)
            if on_progress is not None:
                on_progress(event)

        with limited(threads or threads_for(problem)):
            return solve(problem, solver, exact=exact, budget_s=budget_s, on_progress=tell).reconstruction
