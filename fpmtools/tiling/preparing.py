"""What a tiled run must know before its first tile: the instrument, where the tiles are, and at which depth each is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fpmtools import threads
from fpmtools.calibrate import AUTO, NONE, improve, resolve
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.problem import choose_device
from fpmtools.runs import log
from fpmtools.runs.folder import RunFolder
from fpmtools.runs.running import make_solver
from fpmtools.runs.spec import RunSpec
from fpmtools.sampling import margin_for, repeats, suggested_upsample
from fpmtools.surfaces import Surface
from fpmtools.tiling import aberrations, focus
from fpmtools.tiling.plan import LARGEST, LEAST_OVERLAP, Plan, choose
from fpmtools.tiling.queue import Slide

OnEvent = Callable[[dict[str, Any]], object]


def prepared(place: RunFolder, dataset: Dataset, device: str | None, tell: OnEvent) -> Slide:
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
    calibration = _over_the_field(place, dataset, calibration, known.get("pupil") or {})
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


def _over_the_field(
    place: RunFolder, dataset: Dataset, calibration: Calibration, found: Mapping[str, Any]
) -> Calibration:
    """The instrument with the aberrations that the plan says it has, in the file that all tiles read, too."""
    if "coefficients" not in found or calibration.aberrations is not None:
        return calibration
    y, x, height, width = found["place"]
    over = Surface(np.array(found["coefficients"]), (y, x, height, width))
    here = replace(calibration, aberrations=over).seen_from(dataset.box, dataset.box, dataset.optics.pixel_um)
    here.save(place.calibration, dataset.optics, dataset.box)
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

    def seen_by(region: Dataset) -> Calibration:
        return Calibration.load(place.calibration, optics, dataset.n_images, region.box)

    def on_step(step: int, total: int) -> None:
        tell({"event": "calibrating", "step": step, "total": total})

    def on(over: Surface) -> list[tuple[float, ...]]:
        return [(float(z),) for (z,) in over.at([tile.box for tile in plan.tiles])]

    several, places = spec.calibrate != NONE and len(plan.tiles) > 1, dict[str, float]()
    if several and not given:
        found, places = focus.find(dataset, seen_by, plan, planes[0], on_step)
        depths, surface = on(found), {**found.to_dict(), "places": places}
    pupil: dict[str, Any] = {}
    if several and calibration.aberrations is None and _looks_for_pupil(spec):
        over = aberrations.find(dataset, seen_by, plan, [z[0] for z in depths], places, spec.seed, on_step)
        pupil = over.judged | (over.pupil.to_dict() if over.pupil is not None else {})
        if over.depth is not None:
            depths, surface = on(over.depth), {**over.depth.to_dict(), "places": over.judged["places_um"]}
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
        "pupil": pupil or None,
    }


def _looks_for_pupil(spec: RunSpec) -> bool:
    deep = spec.z_um is not None and len(spec.z_um) > 1
    return not deep and (spec.calibrate == AUTO or aberrations.GROUP in spec.calibrate.split(","))


def _margin(plan: Plan, dataset: Dataset, calibration: Calibration, planes: Sequence[float]) -> int:
    """Camera pixels beyond the border of each tile: twenty resolved lengths, and what defocus moves light by."""
    if len(plan.tiles) == 1 and repeats(dataset):
        return calibration.margin
    return min(max(calibration.margin, margin_for(dataset.optics, dataset.optics.na, planes)), min(plan.size) // 2)


def height_of(calibration: Calibration) -> float | None:
    """From the LEDs to the sample, µm; None where it is not known."""
    return None if calibration.height_mm is None else 1e3 * float(np.mean(calibration.height_mm))
