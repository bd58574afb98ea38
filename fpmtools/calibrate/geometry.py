"""What is wrong with where the LEDs stand and how large the pupil is: brightness and spectra weighed together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibrate.brightness import BoardFit, fit_board, misfit_with, orders, rank_correlation
from fpmtools.calibrate.spectra import ORIENTATIONS, Discs, Spectra, find_discs, z_score
from fpmtools.dataset import Dataset

SURE = 3.5  # standard deviations over the images that another orientation or order must be better by
STRONG = 3.0  # of the agreement with any geometry: spectra that agree less say nothing
CONTRADICTED = 2.5  # LEDs on their wrong side that another order must settle to be believed by brightness alone
LED_VARIANCE = 0.15  # of √brightness: what a LED near the edge may differ by for other reasons
RADIUS_ERROR, SCALE_ERROR = 0.05, 0.03  # of log radius and log scale: what noise and strong samples shift
WORSE = 9.0  # χ² that one wrong number must explain to be named
LEAST_FACTOR = 0.08  # of its logarithm: less is within what a set-up is known to
MOVED = 0.1  # of the objective's NA: a shift beyond makes pictures visibly worse
SHUFFLED = -0.65  # rank correlation of brightness and |NA|: in the right order it is about −0.9
UNEXPLAINED = 3.0  # LEDs on their wrong side, and a tenth of the bright ones

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Geometry:
    """What brightness and spectra say together.

    Parameters
    ----------
    board, discs, spectra
        What each says alone; ``discs`` is None where there are too few bright-field images.
    order, image_of_led
        What happened to the order of the files, in words, empty for nothing; and the image of each LED, [led].
    orientation
        A key of :data:`fpmtools.calibrate.spectra.ORIENTATIONS`.
    cause, factor
        Which number is wrong: "pixel" (pixel / wavelength), "na", "height" (of the board; or the pitch), "radius" (NA
        or height, where spectra do not tell which), or "" for none; what is given times ``factor`` is right.
    sure
        χ² that this explains.
    shift_na, shift_spread_na
        The LEDs light from na + ``shift_na``, (x, y), on the given axes.
    correlation
        Rank correlation of brightness with |NA|.
    unexplained
        Whether no order, shift or size of those tried explains which images are bright.
    """

    board: BoardFit
    discs: Discs | None
    spectra: Spectra
    order: str
    image_of_led: NDArray[np.intp]
    orientation: str
    cause: str
    factor: float
    sure: float
    shift_na: tuple[float, float]
    shift_spread_na: float
    correlation: float
    unexplained: bool

    @property
    def strong(self) -> bool:
        """Whether the spectra say something."""
        return self.discs is not None and self.discs.strength >= STRONG

    def moved(self, objective_na: float) -> bool:
        """Whether the board is clearly elsewhere."""
        distance = math.hypot(*self.shift_na)
        return distance > MOVED * objective_na and distance > 4 * self.shift_spread_na

    def corrected(self, dataset: Dataset) -> Dataset:
        """The data set with what was found put right, as far as it is clear; a pixel's size by NA and LEDs instead."""
        radius = self.factor if self.cause in ("pixel", "na", "radius") else 1.0
        scale = {"pixel": self.factor, "height": 1 / self.factor}.get(self.cause, 1.0)
        shift = np.array(self.shift_na if self.moved(dataset.optics.na) else (0.0, 0.0))
        na = (dataset.calibration.na + shift) @ ORIENTATIONS[self.orientation].T * scale
        height = dataset.calibration.height_mm
        right = replace(dataset, images=dataset.images.select(self.image_of_led)).with_calibration(
            na=na, height_mm=None if height is None else height / scale
        )
        return right.with_optics(na=dataset.optics.na * radius)


def examine(dataset: Dataset, dark_level: float = 0.0, *, thorough: bool = True) -> Geometry:
    """The geometry of a data set whose images have ``dark_level``; coarser and faster where not ``thorough``."""
    board = fit_board(dataset, dark_level=dark_level)
    spectra = Spectra.of(dataset, board.bright, most=30 if thorough else 12)
    discs = find_discs(dataset, spectra, board.shift_na, refine=thorough)
    forward = np.arange(dataset.n_images)
    found = Geometry(
        board,
        discs,
        spectra,
        "",
        forward,
        discs.orientation if discs is not None and discs.margin > SURE else "as given",
        "",
        1.0,
        0.0,
        (0.0, 0.0),
        math.inf,
        rank_correlation(dataset.calibration.image_na, dataset.images.means),
        False,
    )
    if dataset.calibration.patterns is None:
        order, index = _order(dataset, found, dark_level)
        if order:
            return replace(found, order=order, image_of_led=index, orientation="as given")
    if _unexplained(found):
        return replace(found, orientation="as given", unexplained=True)
    cause, factor, sure = _wrong_number(dataset, found, dark_level)
    shift, spread = _shift(found)
    return replace(found, cause=cause, factor=factor, sure=sure, shift_na=shift, shift_spread_na=spread)


def _unexplained(found: Geometry) -> bool:
    if not found.board.informative:
        return False
    limit = max(UNEXPLAINED, 0.1 * found.board.bright.sum())
    return found.board.misfit > limit and (not found.strong or found.correlation > SHUFFLED)


def _order(dataset: Dataset, found: Geometry, dark_level: float) -> tuple[str, NDArray[np.intp]]:
    """The order of the files that explains clearly more than the one given with everything else free; "" for none."""
    best, name, index = 0.0, "", np.arange(dataset.n_images)
    given = _gains(dataset, found, index, [found.board.shift_na], free=True)
    for words, images in orders(dataset.calibration.image_na):
        shift, settled = (0.0, 0.0), 0.0
        if found.board.informative:
            # The same radius for both, so that no freedom is on one side only.
            here = misfit_with(dataset, images, 1.0, dark_level)
            shift = here.shift_na
            settled = min(found.board.misfit, found.board.misfit_alone) - here.misfit
        gains = _gains(dataset, found, images, [shift, (0.0, 0.0)])
        z = z_score(gains - given) if len(given) else 0.0
        better = float(gains.sum() - given.sum()) > 0.2 * abs(float(given.sum())) if len(given) else False
        if (
            z < -1
            or settled < -1
            or not ((z > SURE and better) or (settled > CONTRADICTED and (better or not len(given))))
        ):
            continue
        if (score := z + 2 * settled) > best:
            best, name, index = score, words, images
    return name, index


def _gains(
    dataset: Dataset,
    found: Geometry,
    images: NDArray[np.intp],
    shifts: list[tuple[float, float]],
    *,
    free: bool = False,
) -> Floats:
    """What the best geometry explains of each spectrum, [image of the spectra], where LED i has image ``images[i]``."""
    spectra, discs = found.spectra, found.discs
    if discs is None:
        return np.empty(0)
    led = np.argsort(images)[spectra.images]
    optics = dataset.optics
    unit, na = optics.pixel_um / optics.wavelength_um, dataset.calibration.image_na[led]
    sizes = [(1.0, 1.0), (discs.radius, discs.scale)]
    turns = list(ORIENTATIONS.values())
    if free:
        shifts, turns = [*shifts, discs.shift_na], [ORIENTATIONS[discs.orientation]]
    best, gains = -math.inf, np.zeros(len(led))
    for radius, scale in sizes:
        for turn in turns:
            for shift in shifts:
                moved = (na + np.array(shift)) @ turn.T * (unit * scale)
                with_power, own = spectra.products(moved, optics.na * unit * radius)
                height = max(with_power.sum(), 0) / max(own.sum(), 1e-300)
                now = height * (with_power - height * own / 2)
                if now.sum() > best:
                    best, gains = float(now.sum()), now
    return np.asarray(gains)


def _wrong_number(dataset: Dataset, found: Geometry, dark_level: float) -> tuple[str, float, float]:
    """Which one wrong number explains radius, scale and brightness, its factor, and by how much better (χ²)."""
    discs, board = found.discs, found.board
    if discs is None or not found.strong:
        if not board.informative or board.radius_spread > 0.2:
            return "", 1.0, 0.0
        gain = (board.misfit_alone - board.misfit) / LED_VARIANCE
        if gain > WORSE and abs(math.log(board.radius)) > max(2 * board.radius_spread, 2 * LEAST_FACTOR):
            return "radius", board.radius, gain
        return "", 1.0, 0.0
    measured = np.log([discs.radius, discs.scale])
    spread = np.hypot([discs.radius_spread, discs.scale_spread], [RADIUS_ERROR, SCALE_ERROR])
    if not np.isfinite(spread).all():
        spread = np.array([2 * RADIUS_ERROR, 2 * RADIUS_ERROR])
    forward = np.arange(dataset.n_images)

    def chi2(radius: float, scale: float) -> float:
        off = float(np.square((measured - [radius, scale]) / spread).sum())
        if board.informative and dataset.calibration.patterns is None:
            off += misfit_with(dataset, forward, math.exp(radius - scale), dark_level).misfit / LED_VARIANCE
        return off

    r, s = measured
    weight = 1 / spread**2
    both = float((measured * weight).sum() / weight.sum())
    tried = {"pixel": (both, both, both), "na": (r, r, 0.0), "height": (-s, 0.0, s)}
    nominal = chi2(0.0, 0.0)
    worse = {name: chi2(*place) for name, (_, *place) in tried.items()}
    name = min(worse, key=lambda n: worse[n])
    factor, gain = tried[name][0], nominal - worse[name]
    if gain > WORSE and abs(factor) > LEAST_FACTOR:
        return name, math.exp(factor), gain
    return "", 1.0, 0.0


def _shift(found: Geometry) -> tuple[tuple[float, float], float]:
    """The board's shift and its spread, from the spectra where they say something, else from brightness."""
    if found.discs is not None and found.strong and max(found.discs.shift_spread_na) < math.inf:
        return found.discs.shift_na, max(found.discs.shift_spread_na)
    if found.board.informative:
        return found.board.shift_na, max(found.board.shift_spread_na)
    return (0.0, 0.0), math.inf
