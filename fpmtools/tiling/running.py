"""A tiled run: calibrated once, solved tile by tile by any executor, joined, measured; it can be resumed at any moment.

Whatever the order in which tiles are solved, and by whom, the mosaic has the same bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from fpmtools import threads
from fpmtools.calibrate import warnings as said_of
from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError, SolverError, Terminated
from fpmtools.interrupts import Caught, signals
from fpmtools.runs import environment, tasks
from fpmtools.runs.document import of_data, of_grid, of_solver, with_evidence
from fpmtools.runs.folder import FINISHED, INTERRUPTED, PARTIAL, RESULT_FILE, RUN_FILE, RUNNING, RunFolder, sha256
from fpmtools.runs.memory import PeakMemory
from fpmtools.runs.running import load, make_solver
from fpmtools.runs.spec import read_json
from fpmtools.sampling import intensity_scale
from fpmtools.tiling import joining
from fpmtools.tiling.preparing import height_of, prepared
from fpmtools.tiling.preview import Preview
from fpmtools.tiling.queue import Queue, Slide
from fpmtools.tiling.tile import look, solve_tile
from fpmtools.tiling.workers import Executor, Here, Workers

if TYPE_CHECKING:
    from fpmtools.tiling.cluster import Cluster

OnEvent = Callable[[dict[str, Any]], object]

LOOK_S = 0.2


def carry_on(
    place: RunFolder,
    *,
    dataset: Dataset | None = None,
    on_event: OnEvent | None = None,
    executor: Executor | None = None,
    workers: int | None = 1,
    scheduler: str | None = None,
    preview: bool = False,
) -> dict[str, Any]:
    """Start or go on with a tiled run in its open folder; what its ``run.json`` says in the end.

    Parameters
    ----------
    executor
        See :mod:`fpmtools.tiling.workers`.
    workers
        Where there is no executor: 1 solves all tiles in this process, more in as many others; None: as many as there
        are processors, but one for a GPU.
    scheduler
        Have the workers of this scheduler of dask solve them, see :mod:`fpmtools.tiling.cluster`.
    preview
        Write ``preview.png`` as tiles come in.

    Raises
    ------
    FpmError
        As :func:`fpmtools.runs.running.resume`. A tile that fails twice is a hole, and no error, unless all are.
    """
    tell: OnEvent = on_event or (lambda event: None)
    if dataset is not None:
        raise OptionError("a tiled run reads its tiles from files: give where the data are, not a data set")
    memory = PeakMemory()
    place.document["status"] = RUNNING
    with contextlib.ExitStack() as stack:
        # What is wrong with a cluster is said before anything takes long.
        cluster = None if scheduler is None else stack.enter_context(_cluster(place, scheduler, workers, tell))
        found = load(place.spec.data)
        device = None if cluster is None else cluster.admit(place, found)
        slide = prepared(place, found, device, tell)
        before = place.solved()
        left = _left(slide, tell)
        if not left and before[0] in FINISHED and place.document.get("finished"):
            place.document["status"] = before[0]
            return place.document
        shown = Preview(place.path, slide.plan) if preview else None
        given = executor or cluster or stack.enter_context(_executor(slide, len(left), workers, tell))
        interrupted = work(slide, left, given, tell, shown)
    slide.note()
    if interrupted:
        place.update(status=INTERRUPTED)
        return place.document
    if all("sha256" not in about for about in slide.ended.values()):
        reason = slide.ended[0]["reason"]
        place.update(status="failed", reason=reason)
        raise SolverError(f"no tile could be solved: {reason}")
    return _finished(slide, memory, tell)


def _cluster(
    place: RunFolder, scheduler: str, workers: int | None, tell: OnEvent
) -> contextlib.AbstractContextManager[Cluster]:
    try:
        from fpmtools.tiling import cluster
    except ModuleNotFoundError as error:
        raise OptionError(f"a scheduler needs the package {error.name}: pip install 'fpmtools[dask]'") from error
    return cluster.connected(scheduler, workers or environment.usable_cores() // (place.spec.threads or 1) or 1, tell)


def _left(slide: Slide, tell: OnEvent) -> list[int]:
    """Tiles that are yet to be solved; what is done is looked at, and what is damaged is done again."""
    known = slide.place.document["tiles"].get("state", {})
    left = []
    for index, tile in enumerate(slide.plan.tiles):
        about = look(slide.spec(index), slide.folder(index)) if slide.folder(index).is_dir() else None
        if about is not None:
            slide.ended[index] = about
            continue
        if known.get(tile.name, {}).get("sha256"):
            tell({"event": "warning", "text": f"tile {tile.name} is damaged or gone; it is solved again"})
        left.append(index)
    return left


@contextlib.contextmanager
def _executor(slide: Slide, left: int, workers: int | None, tell: OnEvent) -> Iterator[Executor]:
    count = workers or (1 if slide.grids["device"] != "cpu" else environment.usable_cores() // slide.grids["threads"])
    if min(count, left) <= 1:
        yield Here()
        return
    with Workers(min(count, left), lambda text: tell({"event": "line", "text": text})) as found:
        yield found


def work(slide: Slide, left: list[int], executor: Executor, tell: OnEvent, preview: Preview | None) -> bool:
    """Have these tiles solved; whether Ctrl-C ended it. A signal that asks to leave raises :class:`Terminated`."""
    queue = Queue(slide, list(reversed(left)), tell, preview, len(slide.plan.tiles) - len(left))
    pending = dict[Future[Any], int]()
    stop: Callable[[], object] | None = getattr(executor, "stop", None)
    with signals(terminable=True) if stop else contextlib.nullcontext(Caught()) as caught:
        told = False
        while queue.waiting or pending:
            while queue.waiting and len(pending) < getattr(executor, "at_once", 1) and not _asked(caught):
                index = queue.waiting.pop()
                future = executor.submit(solve_tile, slide.spec(index).to_dict(), str(slide.folder(index)))
                pending[future] = index
                if future.done():
                    break
            if _asked(caught) and not told:
                told = True
                if stop:
                    stop()
            if not pending:
                break
            for future in wait(pending, LOOK_S, FIRST_COMPLETED).done:
                about = queue.outcome(pending.pop(future), future, _asked(caught))
                if about is not None and about["status"] == INTERRUPTED:
                    return True
    if caught.terminated is not None:
        slide.note()
        raise Terminated("ended by a signal; finished tiles and checkpoints are kept", caught.terminated)
    return caught.interrupted


def _asked(caught: Caught) -> bool:
    return caught.interrupted or caught.terminated is not None


def _finished(slide: Slide, memory: PeakMemory, tell: OnEvent) -> dict[str, Any]:
    """Join the tiles, make the mosaic safe, measure and draw it."""
    from fpmtools.runs.measuring import measure

    place = slide.place
    tell({"event": tasks.MEASURING, "task": "joining tiles"})
    with threads.limited(place.document["resolved"]["threads"]):
        scale = intensity_scale(slide.dataset, slide.calibration)
        mosaic = joining.join_tiles(
            slide.plan, [slide.ended[i] for i in range(len(slide.plan.tiles))], place.path, slide.depths,
            factor=slide.grids["upsample"], optics=slide.dataset.optics, scale=scale,
            height_um=height_of(slide.calibration),
        )  # fmt: skip
        mosaic.calibration = slide.calibration
        file = mosaic.save(place.path / RESULT_FILE)
        place.journal.path.unlink(missing_ok=True)
        solved = PARTIAL if mosaic.holes else "done"
        for name, reason in mosaic.holes.items():
            tell({"event": "warning", "text": f"tile {name} is missing: {reason}"})
        about = _describe(slide, mosaic) | {"peak_memory_mb": max([memory.mb(), *_numbers(slide, "peak_memory_mb")])}
        place.update(**about, solved=solved, result_sha256=sha256(file))
        measure(place, slide.dataset, wanted(place), lambda name: tell({"event": tasks.MEASURING, "task": name}))
    return _closed(slide)


def wanted(place: RunFolder) -> list[str]:
    """What is measured of the mosaic itself: what compares images with predictions is measured tile by tile."""
    planned = tasks.planned(place.spec.outputs, truth=place.document["data"]["truth"] is not None)
    per_tile = {tasks.FIT, *map(tasks.metric_task, tasks.WITHOUT_TRUTH)}
    return [task for task in planned if task not in per_tile]


def _closed(slide: Slide) -> dict[str, Any]:
    """Say that everything is written."""
    place = slide.place
    found = place.journal.read().ended
    document = with_evidence(place.document, {name: found[name] for name in wanted(place) if name in found})
    for name in tasks.WITHOUT_TRUTH:
        if values := [v for about in slide.ended.values() if (v := about.get("metrics", {}).get(name)) is not None]:
            document["metrics"][name] = float(np.mean(values))
    document.pop("replaces", None)
    place.document = {**document, "status": document["solved"], "finished": True}
    place.update()
    return place.document


def _numbers(slide: Slide, name: str) -> Iterator[float]:
    return (float(about[name]) for about in slide.ended.values() if about.get(name) is not None)


def _hardware(slide: Slide) -> dict[str, Any]:
    """What the first tile that could be solved was solved with."""
    first = next(index for index, about in sorted(slide.ended.items()) if "sha256" in about)
    found: dict[str, Any] = read_json(slide.folder(first) / RUN_FILE)["hardware"]
    return found


def _describe(slide: Slide, mosaic: Any) -> dict[str, Any]:
    """As :func:`fpmtools.runs.document.describe`, of all tiles together; times are those of all workers."""
    spec, dataset, grid = slide.place.spec, slide.dataset, mosaic.grid
    dense = 8 * len(slide.depths[0]) * grid.shape[0] * grid.shape[1]
    return {
        **of_solver(spec, make_solver(spec)),
        "seed": spec.seed,
        "z_um": list(mosaic.planes or sorted({*grid.z_range})),
        "data": of_data(dataset, slide.calibration, slide.place.document["resolved"]["digest"]),
        "grid": of_grid(grid),
        "intensity_scale": mosaic.metadata["intensity_scale"],
        "times": {"setup_s": 0.0, "solve_s": sum(_numbers(slide, "seconds"))},
        "steps": int(sum(_numbers(slide, "steps"))),
        "total_steps": int(sum(_numbers(slide, "total_steps"))),
        "loss": None,
        "history": [],
        "stored_bytes": mosaic.stored_bytes,
        "dense_bytes": dense,
        "dense_ratio": dense / mosaic.stored_bytes,
        "versions": environment.versions(),
        "hardware": _hardware(slide),
        "warnings": [*dataset.check(), *said_of(slide.calibration)],
        "calibration_file": True,
    }
