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
from fpmtools.calibrate.verdicts import CONTROL, pays, solved, verdict
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


@dataclass(frozen=True, eq=False)
class Place:
    """A part of the field, its depth, and the pupil that its own images say it has, [mode] rad.

    The data set's calibration has the pupil that all places have in common.
    """

    dataset: Dataset
    z_um: float
    zernike_rad: Floats

    def errors(self, zernike_rad: Floats, seed: int) -> Floats:
        """Of the images of left-out LEDs, after a short solve with this pupil."""
        problem = part.problem(self.dataset, self.z_um, part.margin(self.dataset, self.z_um))
        seen = self.dataset.calibration
        seen = replace(seen, pupil=replace(seen.pupil, zernike_rad=zernike_rad))
        held = held_out_leds(self.dataset, seed=seed)
        return solved(Instrument.of(seen, self.dataset.optics.na), problem, held, steps=CONTROL)


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

    See :func:`settled` for what is kept.
    """
    chosen = searched(plan)
    if len(chosen) < FEWEST:
        return None, {}
    places = []
    for k, index in enumerate(chosen):
        on_step(k, len(chosen))
        places.append(_fitted(dataset.crop(*plan.tiles[index].box), calibrated, depths[index], seed))
    found, judged = settled(places, dataset.box, seed)
    names = [plan.tiles[index].name for index in chosen]
    return found, judged | {"places": {n: one.zernike_rad.tolist() for n, one in zip(names, places, strict=True)}}


def settled(places: Sequence[Place], frame: Box, seed: int) -> tuple[Surface | None, dict[str, Any]]:
    """Surfaces through the pupils of some places in ``frame``, and how they were judged.

    None where the images do not ask for it: at each place the surfaces through all *other* places must predict images
    of LEDs that the object has not seen better than the pupil that all places have in common does.
    """
    boxes = [_within(place.dataset.box, frame) for place in places]
    values = np.stack([place.zernike_rad for place in places])
    whole = (0.0, 0.0, float(frame[2]), float(frame[3]))
    one, other = [], []
    for k, place in enumerate(places):
        others = [i for i in range(len(places)) if i != k]
        predicted = surfaces.fit([boxes[i] for i in others], values[others], whole, SMALL)
        one.append(place.errors(place.dataset.calibration.pupil.zernike_rad, seed))
        other.append(place.errors(predicted.at([boxes[k]])[0], seed))
    common, over = np.concatenate(one), np.concatenate(other)
    judged = verdict(pays(over, common), common, over)
    return surfaces.fit(boxes, values, whole, SMALL) if judged["kept"] else None, judged


def _fitted(region: Dataset, calibrated: Callable[[Dataset], Calibration], z_um: float, seed: int) -> Place:
    """A place and its own pupil."""
    region = replace(region, calibration=calibrated(region))
    looked_at = part.region(region.select(np.flatnonzero(region.calibration.used)))
    own = joint.fit(looked_at, looked_at.calibration, z_um=z_um, groups=(GROUP,), seed=seed)
    return Place(looked_at, z_um, _padded(own.pupil.zernike_rad))


def _padded(zernike_rad: Floats) -> Floats:
    return np.pad(zernike_rad, (0, max(MODES[GROUP] - len(zernike_rad), 0)))


def _within(box: Box, frame: Box) -> Box:
    """A box of the whole frame, from the corner of a part of it."""
    return box[0] - frame[0], box[1] - frame[1], box[2], box[3]
