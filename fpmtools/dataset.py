"""Measurements: one low-resolution image per LED, where each LED stood, and the microscope that took them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.board import BoardCheck, check_board
from fpmtools.errors import DataError, printable
from fpmtools.optics import Optics, Shape, frequency_axes, interpolate_spectrum


@dataclass(frozen=True)
class Truth:
    """What was simulated, so that a reconstruction can be scored.

    ``field`` [y, x] complex64 is the sample's transmission in focus, over the same field of view as the images and at
    any sampling. ``depth_um`` [y, x] float32 is the defocus z of each of its pixels: a reconstruction is right when
    its ``field(z)`` equals ``field`` wherever ``depth_um == z``.
    """

    field: NDArray[np.complex64]
    depth_um: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.field.ndim != 2 or self.field.shape != self.depth_um.shape:
            raise DataError(
                f"truth: field {self.field.shape} and depth_um {self.depth_um.shape} must be one [y, x] shape"
            )

    @property
    def digest(self) -> str:
        """SHA-256 over field and depth: two reconstructions with the same are scored alike."""
        sha = hashlib.sha256(np.ascontiguousarray(self.field, dtype=np.complex64).tobytes())
        sha.update(np.ascontiguousarray(self.depth_um, dtype=np.float32).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Low-resolution intensities and everything that is known about how they were taken.

    Parameters
    ----------
    intensities
        [led, y, x], real, linear in light, non-negative up to noise; any array that slices like NumPy's (a memory map
        too), in the order in which the LEDs were recorded.
    na
        [led, (x, y)] float64, illumination direction sines: LED i's image is the object spectrum cropped around
        **+na[i] / λ**.
    optics
        The microscope.
    pupil
        Optional calibrated complex pupil [y, x] on the images' centred frequency grid.
    defocus_um
        Where the sample is known to be, if it is: the z to reconstruct at.
    truth
        Known sample, for simulations.
    provenance
        Where the data came from; JSON-ready.

    Raises
    ------
    DataError
        From :meth:`validate`, which every reader calls.
    """

    intensities: NDArray[Any]
    na: NDArray[np.float64]
    optics: Optics
    name: str = "data"
    pupil: NDArray[np.complex64] | None = None
    defocus_um: float | None = None
    truth: Truth | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n_leds(self) -> int:
        """Number of images."""
        return int(self.intensities.shape[0])

    @property
    def image_shape(self) -> Shape:
        """Shape (y, x) of one low-resolution image."""
        h, w = self.intensities.shape[1:]
        return int(h), int(w)

    @property
    def order(self) -> NDArray[np.intp]:
        """LED indices by ascending |NA|: the order in which classical solvers visit them."""
        return np.argsort(np.linalg.norm(self.na, axis=1), kind="stable")

    @property
    def bright_field(self) -> NDArray[np.bool_]:
        """[led] bool, True where the LED's direct light enters the objective."""
        return np.asarray(np.linalg.norm(self.na, axis=1) <= self.optics.na)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """[led] mean intensity of each image."""
        return np.array([float(np.mean(image, dtype=np.float64)) for image in self.intensities])

    @cached_property
    def board(self) -> BoardCheck:
        """What the images say of where the LEDs stand, see :func:`fpmtools.board.check_board`."""
        return check_board(self.na, self.means, self.optics.na)

    @property
    def planes_um(self) -> tuple[float, ...]:
        """The z to reconstruct at unless told otherwise, µm.

        The known defocus; for a simulated sample that has depth, planes through all of it, at most half a recovered
        depth of field apart; 0 where nothing is known.
        """
        if self.defocus_um is not None:
            return (float(self.defocus_um),)
        if self.truth is None:
            return (0.0,)
        low, high = float(self.truth.depth_um.min()), float(self.truth.depth_um.max())
        gaps = math.ceil((high - low) / (0.5 * self.optics.recovered_depth_of_field_um(self.na)) - 1e-9)
        return tuple(low + (high - low) * i / gaps for i in range(gaps + 1)) if gaps else (low,)

    @property
    def digest(self) -> str:
        """SHA-256 over intensities, LED positions, optics and any calibrated pupil: names these measurements."""
        sha = hashlib.sha256(repr(sorted(self.optics.to_dict().items())).encode())
        sha.update(np.ascontiguousarray(self.na).tobytes())
        for image in self.intensities:
            sha.update(np.ascontiguousarray(image, dtype=np.float32).tobytes())
        if self.pupil is not None:
            sha.update(np.ascontiguousarray(self.pupil, dtype=np.complex64).tobytes())
        return sha.hexdigest()

    def validate(self) -> Dataset:
        """Check that the measurements can be used and return them; raise :class:`DataError` with one line if not."""
        data = self.intensities
        if data.ndim != 3 or 0 in data.shape:
            raise DataError(f"{self.name}: images must be [led, y, x] and not empty, got shape {tuple(data.shape)}")
        if self.na.shape != (len(data), 2):
            raise DataError(f"{self.name}: {len(data)} images but {len(self.na)} LED positions; there must be one each")
        if not np.isfinite(self.na).all():
            raise DataError(f"{self.name}: LED {int(np.flatnonzero(~np.isfinite(self.na).all(1))[0])} has no finite NA")
        steepest = np.linalg.norm(self.na, axis=1)
        if steepest.max() >= self.optics.medium_index:
            raise DataError(
                f"{self.name}: LED {int(steepest.argmax())} has |NA| {steepest.max():.3g}, at or beyond "
                f"{self.optics.medium_index:g}; are the LED positions in direction sines?"
            )
        brightest, below = 0.0, np.zeros(len(data))
        for i, image in enumerate(data):
            if np.iscomplexobj(image):
                raise DataError(f"{self.name}: image {i} is complex; intensities are real")
            if not np.isfinite(image).all():
                raise DataError(f"{self.name}: image {i} has values that are not finite")
            brightest = max(brightest, float(image.max()))
            below[i] = -np.minimum(image, 0).mean(dtype=np.float64) if image.min() < 0 else 0.0
        if brightest <= 0 and not below.any():
            raise DataError(f"{self.name}: all images are zero")
        if below.any():
            _refuse_negative(self.name, self.means, below, math.prod(self.image_shape))
        if min(self.image_shape) < 8:
            raise DataError(f"{self.name}: images of {self.image_shape} pixels are too small (8 × 8 at least)")
        if self.optics.pixel_um * self.optics.cutoff > 0.5 * (1 + 1e-9):
            raise DataError(f"{self.name}: {self.optics.check(self.na, self.image_shape)[0]}")
        if self.pupil is not None and self.pupil.shape != self.image_shape:
            raise DataError(f"{self.name}: pupil {self.pupil.shape} must have the images' shape {self.image_shape}")
        return self

    def check(self, *, upsample: float | None = None, trust_leds: bool = False) -> list[str]:
        """Say in plain words what will not work well, see :meth:`Optics.check`; empty when all is well.

        ``trust_leds``: the LED positions are taken as they are, whatever :attr:`board` says.
        """
        found, board = self.optics.check(self.na, self.image_shape, upsample=upsample), self.board
        if count := int(board.contradicted.sum()):
            fate = "the positions are taken as they are"
            if board.shift.any() and not trust_leds:
                x, y = board.shift
                left = int((board.left_out & ~board.dead).sum())
                rest = f", {left} of them left out" if left else ""
                fate = f"all are moved by NA ({x:+.4f}, {y:+.4f}){rest} (--trust-leds: not)"
            found.append(
                f"{count} of {self.n_leds} LEDs near the edge of the pupil are dark where their positions say bright, "
                f"or the reverse: {fate}; check LED positions, NA and wavelength"
            )
        if board.dead.any():
            dead = ", ".join(map(str, np.flatnonzero(board.dead)[:5]))
            fate = "kept" if trust_leds else "left out"
            found.append(f"the image of LED {dead} is black although its light passes the objective: {fate}")
        return found + [printable(str(warning)) for warning in self.provenance.get("warnings", ())]

    def crop(self, y: int, x: int, height: int, width: int) -> Dataset:
        """The region of interest of ``height`` × ``width`` camera pixels whose first pixel is (y, x)."""
        h, w = self.image_shape
        if min(y, x) < 0 or min(height, width) < 8 or y + height > h or x + width > w:
            raise DataError(
                f"{self.name}: region y={y} x={x} {height}×{width} does not fit in images of {h}×{w} (8 × 8 at least)"
            )
        pupil = self.pupil
        if pupil is not None:
            fy_roi, fx_roi = frequency_axes((height, width), self.optics.pixel_um)
            axes = frequency_axes((h, w), self.optics.pixel_um)
            pupil = interpolate_spectrum(pupil, axes, fy_roi[:, None], fx_roi[None, :]).astype(np.complex64)
        truth = self.truth
        if truth is not None:
            (th, tw), fy, fx = truth.field.shape, truth.field.shape[0] / h, truth.field.shape[1] / w
            if fy % 1 or fx % 1:
                raise DataError(
                    f"{self.name}: truth of {th}×{tw} is no multiple of the {h}×{w} images; crop is not exact"
                )
            box = np.s_[int(y * fy) : int((y + height) * fy), int(x * fx) : int((x + width) * fx)]
            truth = Truth(truth.field[box], truth.depth_um[box])
        return replace(
            self,
            intensities=self.intensities[:, y : y + height, x : x + width],
            pupil=pupil,
            truth=truth,
            provenance={**self.provenance, "roi_yxhw": [y, x, height, width]},
        )

    def select(self, leds: Sequence[int] | NDArray[np.integer[Any]]) -> Dataset:
        """Only the LEDs with these indices, in the order given."""
        index = np.asarray(leds, dtype=np.intp)
        if index.size == 0 or index.min() < 0 or index.max() >= self.n_leds:
            raise DataError(
                f"{self.name}: LED indices must lie in 0 … {self.n_leds - 1}, and there must be at least one"
            )
        return replace(self, intensities=self.intensities[index], na=self.na[index])

    def with_optics(self, **changes: float) -> Dataset:
        """A copy with some numbers of the optics replaced, for example ``with_optics(wavelength_um=0.523)``."""
        return replace(self, optics=replace(self.optics, **changes))


def _refuse_negative(name: str, means: NDArray[np.float64], below: NDArray[np.float64], pixels: int) -> None:
    """Refuse images [led] of ``pixels`` whose mean, or whose negative part (of mean size ``below``), is no noise.

    What is left of a dark image once the camera's offset is subtracted has zero mean, to within four standard
    deviations (σ is 2.5 times the negative part), and less negative light than a quarter of a bright image's light.
    """
    light = float((means + 2 * below).max())  # the mean of |image| of the brightest
    excess = -means - np.maximum(0.02 * light, 10 * below / math.sqrt(pixels))
    lowest, worst = int(excess.argmax()), int(below.argmax())
    if excess[lowest] > 0:
        raise DataError(
            f"{name}: the mean of image {lowest} is negative, by {-means[lowest] / light:.0%} of the brightest image; "
            "was too large a dark level subtracted, or are these differences of images?"
        )
    if below[worst] > 0.25 * light:
        raise DataError(
            f"{name}: image {worst} is negative by {below[worst] / light:.0%} of the brightest image on average; "
            "intensities are not: are these fields, phases or differences of images?"
        )
