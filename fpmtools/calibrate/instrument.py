"""The numbers of an instrument that a joint fit moves: LED board, pupil, brightness and place of each LED."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.calibration import Calibration
from fpmtools.stray import StrayLight

MODES = {"pupil": 21, "apodization": 15}  # Zernike polynomials: phase to the fifth order, modulus to the fourth
FIXED = {
    "pupil": 3,
    "apodization": 1,
    "board": 0,
    "vignetting": 0,
}  # by convention: piston and tilt of the one, piston of the other
SHIFT_X, SHIFT_Y, ROTATION, NEARER = range(4)  # of the board
# Groups that all images share, in their order, and how many of their numbers are free.
FREE = {name: count - FIXED[name] for name, count in MODES.items()} | {"board": 4, "vignetting": 3}
DEFOCUS = 3  # of the phase's modes, from 0 on
SPREADS = {  # expected
    "board": (0.05, 0.05, 0.1, 0.1), "pupil": 1.0, "apodization": 0.2, "vignetting": 0.5, "gain": 0.1, "jitter": 0.05,
}  # fmt: skip
OPEN, STOP_EDGE = 1.5, 0.05  # radius of a stop that vignets nothing, and width of its edge, of the objective's NA


@dataclass
class Instrument:
    """What is added to a calibration, all zero at first; float64.

    Parameters
    ----------
    nominal
        The calibration that it starts from.
    objective_na
        Of the optics.
    board
        [4]: the board's shift along x and y in units of its distance (tangents), rotation in rad, and the log of what
        it is nearer by. Jitter comes on top.
    pupil, apodization
        [mode], Zernike coefficients in Noll's order, of the pupil's phase in rad and of its log modulus.
    gain, jitter
        [led] of the log gain, and [led, (x, y)] of the direction sines.
    vignetting
        [3]: x and y of the pupil's second aperture in units of the objective's NA, and what its radius lacks to
        :data:`OPEN`; all zero: there is none.
    background
        [image], in the images' units; as it is, not an addition.
    exposure
        Log of what the dark field's LEDs, those beyond the objective's NA, are brighter by than all others.
    deep
        The sample has depth: the pupil's defocus is where that part of it is that is looked at, and not the pupil's.
    stray
        As it is, not an addition.
    """

    nominal: Calibration
    objective_na: float
    background: NDArray[np.float64]
    board: torch.Tensor
    pupil: torch.Tensor
    apodization: torch.Tensor
    vignetting: torch.Tensor
    gain: torch.Tensor
    jitter: torch.Tensor
    exposure: float = 0.0
    deep: bool = False
    stray: StrayLight | None = None

    @classmethod
    def of(cls, nominal: Calibration, objective_na: float, *, deep: bool = False) -> Instrument:
        """Nothing added yet."""
        leds, zeros = len(nominal.na), torch.zeros
        board = zeros(4, dtype=torch.float64)
        pupil, apodization = (zeros(count, dtype=torch.float64) for count in MODES.values())
        gain, jitter = zeros(leds, dtype=torch.float64), zeros(leds, 2, dtype=torch.float64)
        return cls(
            nominal, objective_na, nominal.background.copy(), board, pupil, apodization, zeros(3, dtype=torch.float64),
            gain, jitter, deep=deep, stray=nominal.stray,
        )  # fmt: skip

    def na(self) -> torch.Tensor:
        """Direction sines [led, (x, y)]."""
        nominal = torch.from_numpy(self.nominal.na)
        tangent = nominal / (1 - nominal.square().sum(1, keepdim=True)).sqrt()
        c, s = torch.cos(self.board[ROTATION]), torch.sin(self.board[ROTATION])
        turned = torch.stack([c * tangent[:, 0] - s * tangent[:, 1], s * tangent[:, 0] + c * tangent[:, 1]], dim=1)
        moved = torch.exp(self.board[NEARER]) * turned + self.board[: SHIFT_Y + 1]
        return moved / (1 + moved.square().sum(1, keepdim=True)).sqrt() + self.jitter

    def gains(self) -> torch.Tensor:
        """Intensities [led] relative to the nominal calibration's 1."""
        dark = np.linalg.norm(self.nominal.na, axis=1) > self.objective_na
        return torch.from_numpy(self.nominal.gain) * torch.exp(self.gain + self.exposure * torch.from_numpy(dark))

    def by_board(self) -> torch.Tensor:
        """What :meth:`na` changes with the board's numbers, [led, (x, y), 4]."""
        step, columns = 1e-5, []
        for unit in torch.eye(4, dtype=torch.float64) * step:
            more, less = replace(self, board=self.board + unit), replace(self, board=self.board - unit)
            columns.append((more.na() - less.na()) / (2 * step))
        return torch.stack(columns, dim=2)

    def calibration(self, softness: float = 0.0) -> Calibration:
        """The instrument that they describe; ``softness`` of the pupil's edge, at least its own."""
        given = self.nominal.pupil
        zernike, apodization = _sum(given.zernike_rad, self.pupil), _sum(given.apodization, self.apodization)
        softness = max(softness, given.softness)
        pupil = replace(
            given, zernike_rad=zernike, apodization=apodization, softness=softness, stop=self.stop() or given.stop
        )
        over = self.nominal.aberrations
        return replace(
            self.nominal, na=self.na().numpy(), gain=self.gains().numpy(), pupil=pupil, background=self.background,
            stray=self.stray, aberrations=None if over is None else over.plus(self.pupil.numpy()),
        )  # fmt: skip

    def stop(self) -> tuple[float, float, float, float] | None:
        """See :class:`fpmtools.pupil.Pupil`; None where nothing is vignetted."""
        if not self.vignetting.any():
            return None
        x, y, closed = self.vignetting.tolist()
        return x, y, max(OPEN - closed, STOP_EDGE), STOP_EDGE

    def spread(self, name: str) -> torch.Tensor:
        """Standard deviation that is expected of each number, in the shape of its group."""
        unit = self.objective_na if name == "jitter" else 1.0
        return torch.as_tensor(SPREADS[name], dtype=torch.float64).expand_as(getattr(self, name)) * unit

    def moved(self, changes: dict[str, torch.Tensor]) -> Instrument:
        """With these groups in place of its own."""
        new = copy.copy(self)
        for name, values in changes.items():
            setattr(new, name, values)
        return new

    def towards(self, other: Instrument, share: float, names: Iterable[str]) -> Instrument:
        """On the line from this one to ``other``, and beyond it for ``share`` above 1."""
        return self.moved({name: torch.lerp(getattr(self, name), getattr(other, name), share) for name in names})

    def without(self, name: str) -> Instrument:
        """With that group as it is nominally."""
        if name == "background":
            return replace(self, background=self.nominal.background.copy())
        if name == "exposure":
            return replace(self, exposure=0.0)
        nothing = torch.zeros_like(getattr(self, name))
        if name == "pupil" and self.deep:
            nothing[DEFOCUS] = self.pupil[DEFOCUS]
        return self.moved({name: nothing})

    def without_defocus(self) -> Instrument:
        """With the other modes of the pupil's phase only."""
        pupil = self.pupil.clone()
        pupil[DEFOCUS] = 0
        return self.moved({"pupil": pupil})


def _sum(given: NDArray[np.float64], more: torch.Tensor) -> NDArray[np.float64]:
    """Of two lists of coefficients that need not be as long as each other."""
    total = np.zeros(max(len(given), len(more)))
    total[: len(given)] = given
    total[: len(more)] += more.numpy()
    return total
