"""Where a slide is in focus: a few tiles are searched, and a smooth surface goes through what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fpmtools import surfaces
from fpmtools.calibrate import focus, part
from fpmtools.calibrate.instrument import Instrument
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.optics import Box, Optics
from fpmtools.surfaces import Surface
from fpmtools.tiling.plan import Plan

PLACES = 3  # tiles that are searched along each axis
SMALL = 0.1  # depths of field, that a surface must differ from a constant by
FINE = 0.125  # depths of field, between the depths that are looked at last


def find(
    dataset: Dataset,
    calibrated: Callable[[Dataset], Calibration],
    plan: Plan,
    z_um: float,
    on_step: Callable[[int, int], object],
) -> tuple[Surface, dict[str, float]]:
    """The surface through the depths of a few tiles, and these depths by the tiles' names.

    ``calibrated`` gives the instrument as a part of the field sees it; ``z_um`` is where the middle was found.
    """
    chosen = searched(plan)
    found = {}
    for k, index in enumerate(chosen):
        on_step(k, len(chosen))
        region = dataset.crop(*plan.tiles[index].box)
        found[plan.tiles[index].name] = depth(region, calibrated(region), z_um)
    boxes = [plan.tiles[index].box for index in chosen]
    return fit(boxes, list(found.values()), plan.frame, dataset.optics), found


def searched(plan: Plan) -> list[int]:
    """Numbers of the tiles that are searched: three by three of them, spread over the field."""
    rows, columns = (
        sorted({round(k) for k in np.linspace(0, n - 1, min(PLACES, n))}) for n in (len(plan.rows), len(plan.columns))
    )
    return [row * len(plan.columns) + column for row in rows for column in columns]


def depth(dataset: Dataset, calibration: Calibration, z_um: float) -> float:
    """Where the sample is in this part of the field, µm, looked for from ``z_um`` on."""
    chosen = part.region(dataset.select(np.flatnonzero(calibration.used)))
    seen = calibration.selected().seen_from(chosen.box, dataset.box, dataset.optics.pixel_um)
    chosen = replace(chosen, calibration=seen)
    bright = [int(i) for i in np.flatnonzero(seen.bright_field(dataset.optics))]
    problem, instrument = part.problem(chosen, z_um, part.margin(chosen, z_um)), Instrument.of(seen, dataset.optics.na)
    near = focus.search(problem, instrument, bright)
    step_um = FINE * dataset.optics.depth_of_field_um
    return focus.search(replace(problem, z_um=(near,)), instrument, bright, step_um, between=True)


def fit(boxes: Sequence[Box], z_um: Sequence[float], frame: tuple[int, int], optics: Optics) -> Surface:
    """The surface of lowest order that says of places that it was not given what is found there."""
    place = (0.0, 0.0, float(frame[0]), float(frame[1]))
    return surfaces.fit(boxes, np.array(z_um)[:, None], place, SMALL * optics.depth_of_field_um)
