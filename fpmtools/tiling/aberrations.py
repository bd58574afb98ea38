"""How the pupil changes over a slide: a few tiles are calibrated, and smooth surfaces go through what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import surfaces
from fpmtools.calibrate import joint, part
from fpmtools.calibrate.instrument import MODES, Instrument
from fpmtools.calibrate.verdicts import pays, solved, verdict
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.metrics.prediction import held_out_leds
from fpmtools.optics import Box
from fpmtools.surfaces import Surface
from fpmtools.tiling.focus import searched
from fpmtools.tiling.plan import Plan

Floats = NDArray[np.float64]
GROUP = "pupil"
SMALL = 0.02  # rad, that a mode must change by over the field
FEWEST = 5  # places, of which one can be left out and a plane still goes through the others


@dataclass(frozen=True)
class _Place:
    """A part of the field: what is looked at of it, with the pupil that all have in common, and its own."""

    dataset: Dataset
    z_um: float
    own: Calibration

    def errors(self, zernike_rad: Floats, seed: int) -> Floats:
        """Of the images of left-out LEDs, after a short solve with this pupil."""
        problem = part.problem(self.dataset, self.z_um, part.margin(self.dataset, self.z_um))
        seen = self.dataset.calibration
        seen = replace(seen, pupil=replace(seen.pupil, zernike_rad=zernike_rad))
        held = held_out_leds(self.dataset, seed=seed)
        return solved(Instrument.of(seen, self.dataset.optics.na), problem, held)


def find(
    dataset: Dataset,
    calibrated: Callable[[Dataset], Calibration],
    plan: Plan,
    depths: Sequence[float],
    seed: int,
    on_step: Callable[[int, int], object],
) -> tuple[Surface | None, dict[str, Any]]:
    """The pupil's Zernike coefficients over the field, [mode, term], rad; and what was found where, JSON-ready.

    Parameters
    ----------
    calibrated
        Gives the instrument as a part of the field sees it, with the pupil that all of the field has in common.
    depths
        z of each of the plan's tiles, µm. What defocus a place has besides stays in its pupil.
    seed
        Chooses the LEDs that are left out at each place.

    None where the images do not ask for it: at each place the surfaces through all *other* places must predict images
    of LEDs that the object has not seen better than the pupil that all places have in common does.
    """
    chosen = searched(plan)
    if len(chosen) < FEWEST:
        return None, {}
    places = []
    for k, index in enumerate(chosen):
        on_step(k, len(chosen))
        places.append(_fitted(dataset.crop(*plan.tiles[index].box), calibrated, depths[index], seed))
    boxes = [_within(place.dataset.box, dataset.box) for place in places]
    values = np.stack([_padded(place.own.pupil.zernike_rad) for place in places])
    frame = (0.0, 0.0, float(plan.frame[0]), float(plan.frame[1]))
    one, other = [], []
    for k, place in enumerate(places):
        others = np.arange(len(places)) != k
        predicted = surfaces.fit([boxes[i] for i in np.flatnonzero(others)], values[others], frame, SMALL)
        one.append(place.errors(place.dataset.calibration.pupil.zernike_rad, seed))
        other.append(place.errors(predicted.at([boxes[k]])[0], seed))
    common, over = np.concatenate(one), np.concatenate(other)
    judged = verdict(pays(over, common), common, over)
    judged["places"] = {plan.tiles[i].name: row.tolist() for i, row in zip(chosen, values, strict=True)}
    return surfaces.fit(boxes, values, frame, SMALL) if judged["kept"] else None, judged


def _fitted(region: Dataset, calibrated: Callable[[Dataset], Calibration], z_um: float, seed: int) -> _Place:
    """A place and its own pupil."""
    region = replace(region, calibration=calibrated(region))
    looked_at = part.region(region.select(np.flatnonzero(region.calibration.used)))
    own = joint.fit(looked_at, looked_at.calibration, z_um=z_um, groups=(GROUP,), seed=seed)
    return _Place(looked_at, z_um, own)


def _padded(zernike_rad: Floats) -> Floats:
    return np.pad(zernike_rad, (0, max(MODES[GROUP] - len(zernike_rad), 0)))


def _within(box: Box, frame: Box) -> Box:
    """A box of the whole frame, from the corner of a part of it."""
    return box[0] - frame[0], box[1] - frame[1], box[2], box[3]
