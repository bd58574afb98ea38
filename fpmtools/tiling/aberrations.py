"""How the pupil changes over a slide: a few tiles are calibrated, and smooth surfaces go through what they say.

Where nobody has said how deep the sample lies, a pupil's defocus is depth, and a better one than the search for focus
has found, which knew nothing of the pupil.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import surfaces
from fpmtools.calibrate import joint, part
from fpmtools.calibrate.focus import as_depth
from fpmtools.calibrate.instrument import MODES, Instrument
from fpmtools.calibrate.verdicts import CONTROL, pays, solved, typical, verdict
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.metrics.prediction import held_out_leds
from fpmtools.optics import Box
from fpmtools.surfaces import Surface
from fpmtools.tiling import focus
from fpmtools.tiling.focus import searched
from fpmtools.tiling.plan import Plan

Floats = NDArray[np.float64]
GROUP = "pupil"
SMALL = 0.02  # rad, that a mode must change by over the field
FEWEST = 5  # places, of which one can be left out and a plane still goes through the others


@dataclass(frozen=True, eq=False)
class Place:
    """A part of the field, its depth, and the pupil that its own images say it has, [mode] rad.

    The data set's calibration has the pupil that all places have in common; ``common_um`` is the depth there that goes
    with it.
    """

    dataset: Dataset
    z_um: float
    zernike_rad: Floats
    common_um: float

    def errors(self, zernike_rad: Floats, z_um: float, seed: int) -> Floats:
        """Of the images of left-out LEDs, after a short solve with this pupil at this depth."""
        problem = part.problem(self.dataset, z_um, part.margin(self.dataset, z_um))
        seen = self.dataset.calibration
        seen = replace(seen, pupil=replace(seen.pupil, zernike_rad=zernike_rad))
        held = held_out_leds(self.dataset, seed=seed)
        return solved(Instrument.of(seen, self.dataset.optics.na), problem, held, steps=CONTROL)

    def without_defocus(self) -> Place:
        """The same, as deep as its defocus says, beyond the one that all places have in common."""
        common = _padded(self.dataset.calibration.pupil.zernike_rad)
        own, deeper = as_depth(self.zernike_rad - common, self.dataset.optics)
        return replace(self, z_um=float(self.z_um + deeper), zernike_rad=common + own)


@dataclass(frozen=True, eq=False)
class Found:
    """Zernike coefficients over the field, [mode, term], rad, and depths, [1, term], µm; None: as they were before.

    ``judged``: how that was decided, and what was found where, JSON-ready.
    """

    pupil: Surface | None
    depth: Surface | None
    judged: dict[str, Any]


def find(
    dataset: Dataset,
    calibrated: Callable[[Dataset], Calibration],
    plan: Plan,
    depths: Sequence[float],
    searched_um: Mapping[str, float],
    seed: int,
    on_step: Callable[[int, int], object],
) -> Found:
    """The pupil over the field, and the depth with it where it is not given.

    Parameters
    ----------
    calibrated
        Gives the instrument as a part of the field sees it, with the pupil that all of the field has in common.
    depths
        z of each of the plan's tiles, µm.
    searched_um
        Where tiles were searched for their focus, what was found, by name. A pupil is fitted at that depth and at the
        tile's in ``depths``, for a fit can end in a pupil that is not the best. Without any, what defocus a place has
        stays in its pupil.
    seed
        Chooses the LEDs that are left out at each place.

    See :func:`settled` for what is kept.
    """
    chosen = searched(plan)
    if len(chosen) < FEWEST:
        return Found(None, None, {})
    names, places = [plan.tiles[index].name for index in chosen], []
    for k, (index, name) in enumerate(zip(chosen, names, strict=True)):
        on_step(k, len(chosen))
        region, starts = dataset.crop(*plan.tiles[index].box), {depths[index], searched_um.get(name, depths[index])}
        fits = [_fitted(region, calibrated, z_um, seed) for z_um in sorted(starts)]
        place = _best([fit.without_defocus() for fit in fits] if searched_um else fits, seed)
        places.append(replace(place, common_um=depths[index]))
    found = settled(places, dataset.box, seed, bool(searched_um))
    there = {
        "places": {name: one.zernike_rad.tolist() for name, one in zip(names, places, strict=True)},
        "places_um": {name: one.z_um for name, one in zip(names, places, strict=True)},
    }
    return replace(found, judged=found.judged | there)


def settled(places: Sequence[Place], frame: Box, seed: int, deep: bool = False) -> Found:
    """Surfaces through the pupils of some places in ``frame``, and how they were judged; ``deep``: through depths, too.

    None where the images do not ask for it: at each place the surfaces through all *other* places must predict images
    of LEDs that the object has not seen better than the pupil that all places have in common does.
    """
    boxes = [_within(place.dataset.box, frame) for place in places]
    values, z_um = np.stack([place.zernike_rad for place in places]), np.array([place.z_um for place in places])
    whole, optics = (0.0, 0.0, float(frame[2]), float(frame[3])), places[0].dataset.optics

    def through(which: Sequence[int]) -> tuple[Surface, Surface]:
        there = [boxes[i] for i in which]
        return (
            surfaces.fit(there, values[which], whole, SMALL),
            focus.fit(there, z_um[which].tolist(), (frame[2], frame[3]), optics),
        )

    one, other = [], []
    for k, place in enumerate(places):
        pupil, depth = through([i for i in range(len(places)) if i != k])
        own_um = float(depth.at([boxes[k]])[0, 0]) if deep else place.z_um
        one.append(place.errors(place.dataset.calibration.pupil.zernike_rad, place.common_um, seed))
        other.append(place.errors(pupil.at([boxes[k]])[0], own_um, seed))
    common, over = np.concatenate(one), np.concatenate(other)
    judged = verdict(pays(over, common), common, over)
    if not judged["kept"]:
        return Found(None, None, judged)
    pupil, depth = through(range(len(places)))
    return Found(pupil, depth if deep else None, judged)


def _fitted(region: Dataset, calibrated: Callable[[Dataset], Calibration], z_um: float, seed: int) -> Place:
    """A place and its own pupil."""
    region = replace(region, calibration=calibrated(region))
    looked_at = part.region(region.select(np.flatnonzero(region.calibration.used)))
    own = joint.fit(looked_at, looked_at.calibration, z_um=z_um, groups=(GROUP,), seed=seed)
    return Place(looked_at, z_um, _padded(own.pupil.zernike_rad), z_um)


def _best(fits: Sequence[Place], seed: int) -> Place:
    """The one that predicts images of left-out LEDs best."""
    return min(fits, key=lambda fit: typical(fit.errors(fit.zernike_rad, fit.z_um, seed))) if len(fits) > 1 else fits[0]


def _padded(zernike_rad: Floats) -> Floats:
    return np.pad(zernike_rad, (0, max(MODES[GROUP] - len(zernike_rad), 0)))


def _within(box: Box, frame: Box) -> Box:
    """A box of the whole frame, from the corner of a part of it."""
    return box[0] - frame[0], box[1] - frame[1], box[2], box[3]
