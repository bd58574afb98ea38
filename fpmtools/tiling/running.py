"""A tiled run: calibrated once, solved tile by tile by any executor, joined, measured; it can be resumed at any moment.

Whatever the order in which tiles are solved, and by whom, the mosaic has the same bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fpmtools import threads
from fpmtools.calibrate import improve, resolve
from fpmtools.calibrate import warnings as said_of
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, OptionError, SolverError, Terminated
from fpmtools.interrupts import Caught, signals
from fpmtools.problem import choose_device
from fpmtools.runs import environment, log, tasks
from fpmtools.runs.document import of_data, of_grid, of_solver, with_evidence
from fpmtools.runs.folder import FINISHED, INTERRUPTED, PARTIAL, RESULT_FILE, RUN_FILE, RUNNING, RunFolder, sha256
from fpmtools.runs.memory import PeakMemory
from fpmtools.runs.running import load, make_solver
from fpmtools.runs.spec import RunSpec, read_json
from fpmtools.sampling import intensity_scale, margin_for, repeats, suggested_upsample
from fpmtools.tiling import focus, joining
from fpmtools.tiling.plan import LARGEST, LEAST_OVERLAP, Plan, choose
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
        slide = _prepared(place, found, device, tell)
        before = place.solved()
        left = _left(slide, tell)
        if not left and before[0] in FINISHED and place.document.get("finished"):
            place.document["status"] = before[0]
            return place.document
        shown = Preview(place.path, slide.plan) if preview else None
        given = executor or cluster or stack.enter_context(_executor(slide, len(left), workers, tell))
        interrupted = _work(slide, left, given, tell, shown)
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


def _prepared(place: RunFolder, dataset: Dataset, device: str | None, tell: OnEvent) -> Slide:
    """What must be known before the first tile: data, calibration, plan, depths; what is in ``run.json`` stays so."""
    spec, digest = place.spec, dataset.digest
    if spec.data.digest not in (None, digest):
        raise DataError(f"{spec.data.source}: these data are not those of the run ({place.path}): they have changed")
    make_solver(spec)
    _check(spec, dataset)
    known = place.document.get("tiles") or {}
    tell({"event": log.LOG, "text": log.of_data(dataset)})
    with threads.limited(1):
        calibration = _calibrated(place, dataset, tell)
        if not known:
            known = _planned(place, dataset, calibration, tell)
    plan = Plan(
        dataset.image_shape, tuple(known["size"]), known["overlap"], tuple(known["rows"]), tuple(known["columns"])
    )
    resolved = {"threads": spec.threads or 1, "device": device or str(choose_device(spec.device)), "digest": digest}
    place.update(tiles=known, resolved=resolved)
    size, each = " × ".join(map(str, plan.size)), f"device {resolved['device']}, threads {resolved['threads']}"
    tiles = f"{len(plan.tiles)} tiles of {size} camera pixels, {plan.overlap} or more shared; {each} for each"
    for line in (*log.of_calibration(calibration), tiles):
        tell({"event": log.LOG, "text": line})
    grids = {name: known[name] for name in ("upsample", "margin")}
    grids |= {name: resolved[name] for name in ("threads", "device")}
    depths = [tuple(float(z) for z in planes) for planes in known["z_um"]]
    return Slide(place, dataset, plan, calibration, depths, grids)


def _check(spec: RunSpec, dataset: Dataset) -> None:
    """Raise :class:`OptionError` for tiles that cannot be, before anything takes long."""
    assert spec.tiles is not None
    size = spec.tiles.size or LARGEST
    plan = Plan.of(dataset.image_shape, size, spec.tiles.overlap or min(LEAST_OVERLAP, size - 1))
    if isinstance(spec.margin, int) and spec.margin >= min(plan.size):
        smallest = min(plan.size)
        raise OptionError(
            f"tiles of {smallest} pixels are smaller than their margin of {spec.margin}: make them larger"
        )
    if spec.upsample is not None and spec.upsample != int(spec.upsample):
        raise OptionError(f"tiles need a whole number of output pixels per camera pixel, not {spec.upsample:g}")


def _calibrated(place: RunFolder, dataset: Dataset, tell: OnEvent) -> Calibration:
    """The instrument, from the middle of the field and for all of it; kept in a file that all tiles read."""
    if place.calibration.is_file():
        with contextlib.suppress(FpmError):  # damaged: it is found again
            return Calibration.load(place.calibration, dataset.optics, dataset.n_images, dataset.box)
    spec = place.spec
    assert spec.tiles is not None
    side = spec.tiles.size or LARGEST
    (h, w), size = dataset.image_shape, [min(n, side) for n in dataset.image_shape]
    middle = dataset.crop((h - size[0]) // 2, (w - size[1]) // 2, size[0], size[1])
    found = improve(
        middle,
        resolve(middle, spec.calibration),
        spec.calibrate,
        z_um=spec.z_um,
        seed=spec.seed,
        on_step=lambda step, steps: tell({"event": "calibrating", "step": step, "total": steps}),
    )
    found.save(place.calibration, dataset.optics, middle.box)
    return Calibration.load(place.calibration, dataset.optics, dataset.n_images, dataset.box)


def _planned(place: RunFolder, dataset: Dataset, calibration: Calibration, tell: OnEvent) -> dict[str, Any]:
    """Where the tiles are and on which grids and depths they are solved, JSON-ready."""
    spec, optics = place.spec, dataset.optics
    assert spec.tiles is not None
    seen = dataset if calibration.depth_um is None else replace(dataset, calibration=calibration)
    planes = seen.planes_um if spec.z_um is None else spec.z_um
    na, height_um = calibration.selected().na, height_of(calibration)
    plan = choose(dataset.image_shape, optics, na, planes, spec.tiles.size, spec.tiles.overlap, height_um)
    if len(plan.tiles) == 1:
        tell({"event": "warning", "text": "one tile is as large as the field: it is solved in one piece"})
    elif height_um is None:
        text = "no LED distance is known (directions only): all tiles are seen under the same angles"
        tell({"event": "warning", "text": text})
    margin = spec.margin if isinstance(spec.margin, int) else _margin(plan, dataset, calibration, planes)
    depths, surface = [tuple(planes)] * len(plan.tiles), None
    given = spec.z_um is not None or dataset.defocus_um is not None or dataset.truth is not None
    if not given and spec.calibrate != "none" and len(plan.tiles) > 1:

        def seen_by(region: Dataset) -> Calibration:
            return Calibration.load(place.calibration, optics, dataset.n_images, region.box)

        def on_step(step: int, total: int) -> None:
            tell({"event": "calibrating", "step": step, "total": total})

        found, places = focus.find(dataset, seen_by, plan, planes[0], on_step)
        depths = [(float(z),) for z in found.at([tile.box for tile in plan.tiles])]
        surface = {**found.to_dict(), "places": places}
    upsample = spec.upsample or suggested_upsample(optics, na)
    return {
        "count": len(plan.tiles),
        "size": list(plan.size),
        "overlap": plan.overlap,
        "rows": list(plan.rows),
        "columns": list(plan.columns),
        "margin": margin,
        "upsample": int(upsample),
        "z_um": [list(z) for z in depths],
        "focus": surface,
    }


def _margin(plan: Plan, dataset: Dataset, calibration: Calibration, planes: Sequence[float]) -> int:
    """Camera pixels beyond the border of each tile: thirteen resolved lengths, and what defocus moves light by."""
    if len(plan.tiles) == 1 and repeats(dataset):
        return calibration.margin
    return min(max(calibration.margin, margin_for(dataset.optics, dataset.optics.na, planes)), min(plan.size) // 2)


def height_of(calibration: Calibration) -> float | None:
    """From the LEDs to the sample, µm; None where it is not known."""
    return None if calibration.height_mm is None else 1e3 * float(np.mean(calibration.height_mm))


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


def _work(slide: Slide, left: list[int], executor: Executor, tell: OnEvent, preview: Preview | None) -> bool:
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
            factor=slide.grids["upsample"], pixel_um=slide.dataset.optics.pixel_um, scale=scale,
            wavelength_um=slide.dataset.optics.wavelength_um, height_um=height_of(slide.calibration),
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
