"""Measurements: low-resolution images, what is known of the instrument that took them, and of the sample."""

from __future__ import annotations

import hashlib
import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools import passes
from fpmtools.calibration import Calibration
from fpmtools.display import Shown, depths, number, span
from fpmtools.errors import DataError, OptionError, expect, printable
from fpmtools.images import Images, Source
from fpmtools.optics import Box, Optics, Shape
from fpmtools.pupil import Pupil


@dataclass(frozen=True, repr=False)
class Truth:
    """What was simulated, so that a reconstruction can be scored.

    ``field`` [y, x] complex64 is the sample's transmission in focus, over the same field of view as the images and at
    any sampling. ``depth_um`` [y, x] float32 is the defocus z of each of its pixels: a reconstruction is right when
    its ``field(z)`` equals ``field`` wherever ``depth_um == z``.
    """

    field: NDArray[np.complex64]
    depth_um: NDArray[np.float32]

    def __repr__(self) -> str:
        (h, w), low, high = self.field.shape, float(self.depth_um.min()), float(self.depth_um.max())
        return f"Truth: {h} × {w} pixels, depth {span(low, high)}"

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


@dataclass(frozen=True, repr=False)
class Dataset(Shown):
    """Low-resolution images and everything that is known about how they were taken.

    Parameters
    ----------
    images
        See :class:`fpmtools.images.Images`.
    optics
        The microscope.
    calibration
        The nominal one: where the LEDs stand by the file, a pupil that was measured with it, the known defocus.
    truth
        Known sample, for simulations.
    provenance
        Where the data came from; JSON-ready.

    Raises
    ------
    DataError
        From :meth:`validate`, which every reader calls.
    """

    images: Images
    optics: Optics
    calibration: Calibration
    name: str = "data"
    truth: Truth | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    drawn_by = "fpmtools.report.notebook:dataset"

    def heading(self) -> str:
        """With its name."""
        return f"Dataset {self.name!r}"

    def facts(self) -> dict[str, str]:
        """Sizes, microscope, LEDs, depth."""
        optics, (h, w), extent = self.optics, self.image_shape, self.extent_um
        planes, steepest = self.planes_um, float(np.linalg.norm(self.na, axis=1).max())
        out = int((~self.calibration.used).sum())
        known = "" if self.defocus_um is None else " (known)"
        found = {
            "images": f"{self.n_images} of {h} × {w} pixels, {number(extent[0])} × {number(extent[1])} µm"
            + (f"; {out} left out" if out else ""),
            "optics": f"{number(optics.magnification)}×, NA {number(optics.na)}, {number(optics.wavelength_um)} µm, "
            f"pixel {number(optics.pixel_um)} µm",
            "LEDs": f"{len(self.na)} to NA {number(steepest, 3)}, {int(self.bright_field.sum())} images bright field; "
            f"synthetic NA {number(optics.synthetic_na(self.na), 3)}",
            "z": f"{depths(planes)}{known}",
        }
        return found | ({} if self.truth is None else {"truth": str(self.truth).removeprefix("Truth: ")})

    @classmethod
    def from_arrays(
        cls,
        images: Images | Source | ArrayLike,
        na: ArrayLike,
        optics: Optics | Mapping[str, float],
        *,
        name: str = "data",
        pupil: Pupil | ArrayLike | None = None,
        defocus_um: float | None = None,
        patterns: ArrayLike | None = None,
        truth: Truth | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> Dataset:
        """A data set from arrays in memory.

        It is checked when it is solved; :meth:`validate` checks it at once.

        Parameters
        ----------
        images
            Intensities [image, y, x], linear in light; anything that slices like a NumPy array.
        na
            Direction sines of the LEDs, [led, (x, y)]: image i is the object spectrum cropped around +na[i]/λ.
        optics
            The microscope, or its numbers by name.
        pupil
            A calibrated one, as a complex map [y, x] on the images' centred frequency grid too.
        defocus_um
            Where the sample is known to be, µm.
        patterns
            Weights [image, led], see :class:`Calibration`; without them image i is lit by LED i.
        truth
            Known sample, for simulations.

        Raises
        ------
        DataError
            Shapes that do not fit each other.
        OpticsError, OptionError
            A microscope whose numbers cannot work, or that is none.

        Examples
        --------
        >>> images = np.random.default_rng(0).uniform(1, 2, (2, 16, 24))
        >>> optics = {"wavelength_um": 0.5, "na": 0.2, "magnification": 10, "camera_pixel_um": 8}
        >>> fpmtools.Dataset.from_arrays(images, [(0, 0), (0.1, 0)], optics, name="mine", defocus_um=3)
        Dataset 'mine'
          images  2 of 16 × 24 pixels, 12.8 × 19.2 µm
          optics  10×, NA 0.2, 0.5 µm, pixel 0.8 µm
          LEDs    2 to NA 0.1, 2 images bright field; synthetic NA 0.3
          z       3 µm (known)
        """
        optics = Optics.of(optics)
        read = Images.of(images, name)
        try:
            directions = np.asarray(na, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"{name}: LED positions must be numbers [led, (x, y)]") from None
        if directions.ndim != 2 or directions.shape[1] != 2:
            raise DataError(f"{name}: LED positions must be [led, (x, y)], got shape {directions.shape}")
        if patterns is None and len(directions) != len(read):
            raise DataError(
                f"{name}: {len(read)} images but {len(directions)} LED positions; there must be one each, or patterns"
            )
        bad = np.flatnonzero(~np.isfinite(directions).all(axis=1))
        if len(bad):
            raise DataError(f"{name}: LED {bad[0]} has no finite NA")
        if pupil is not None and not isinstance(pupil, Pupil):
            given = np.asarray(pupil)
            if given.shape != read.image_shape:
                raise DataError(f"{name}: pupil {given.shape} must have the images' shape {read.image_shape}")
            h, w = read.image_shape
            pupil = Pupil.from_map(given, optics, (h * optics.pixel_um, w * optics.pixel_um))
        calibration = Calibration.nominal(directions, pupil=pupil, defocus_um=defocus_um, patterns=patterns)
        if calibration.images != len(read):
            raise DataError(f"{name}: {len(read)} images but patterns of {calibration.images}; there must be one each")
        return cls(read, optics, calibration, name, truth, dict(provenance or {}))

    @property
    def intensities(self) -> NDArray[Any]:
        """All images, read into one array [image, y, x]."""
        return self.images.read()

    @property
    def na(self) -> NDArray[np.float64]:
        """Nominal direction sines, [led, (x, y)]."""
        return self.calibration.na

    @property
    def defocus_um(self) -> float | None:
        """Where the sample is known to be, µm."""
        return self.calibration.defocus_um

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def image_shape(self) -> Shape:
        """Shape (y, x) of one low-resolution image."""
        return self.images.image_shape

    @property
    def extent_um(self) -> tuple[float, float]:
        """Field of view (y, x), µm."""
        h, w = self.image_shape
        return h * self.optics.pixel_um, w * self.optics.pixel_um

    @property
    def corner(self) -> tuple[int, int]:
        """Camera pixel (y, x) of the whole field at which the region begins that was taken of it."""
        return self.box[:2]

    @property
    def box(self) -> Box:
        """The part of the whole frame that the images show, (y, x, height, width) in camera pixels."""
        y, x, *_ = self.provenance.get("roi_yxhw", (0, 0))
        return int(y), int(x), *self.image_shape

    @property
    def bright_field(self) -> NDArray[np.bool_]:
        """[image] bool, True where direct light enters the objective, by the nominal positions."""
        return self.calibration.bright_field(self.optics)

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
        """SHA-256 over images, optics and nominal calibration: names these measurements. Kept for large files."""
        about = repr(sorted(self.optics.to_dict().items())).encode() + self.calibration.digest.encode()
        return passes.kept(
            self.images,
            f"digest {hashlib.sha256(about).hexdigest()}",
            lambda: self._digest(about),
            lambda found: {"digest": np.frombuffer(bytes.fromhex(found), np.uint8)},
            lambda arrays: arrays["digest"].tobytes().hex(),
        )

    def _digest(self, about: bytes) -> str:
        sha = hashlib.sha256(about)
        for image in self.images:
            sha.update(np.ascontiguousarray(image, dtype=np.float32).tobytes())
        return sha.hexdigest()

    def validate(self) -> Dataset:
        """Check that the measurements can be used and return them; raise :class:`DataError` with one line if not."""
        if self.calibration.images != self.n_images:
            raise DataError(f"{self.name}: {self.n_images} images, and a calibration of {self.calibration.images}")
        steepest = np.linalg.norm(self.na, axis=1)
        if steepest.max() >= self.optics.medium_index:
            raise DataError(
                f"{self.name}: LED {int(steepest.argmax())} has |NA| {steepest.max():.3g}, at or beyond "
                f"{self.optics.medium_index:g}; are the LED positions in direction sines?"
            )
        values = self.images.values
        if values.wrong:
            raise DataError(f"{self.name}: {values.wrong}")
        if values.brightest <= 0 and not values.below.any():
            raise DataError(f"{self.name}: all images are zero")
        if values.below.any():
            _refuse_negative(self.name, values.means, values.below, math.prod(self.image_shape))
        if min(self.image_shape) < 8:
            raise DataError(f"{self.name}: images of {self.image_shape} pixels are too small (8 × 8 at least)")
        if self.optics.pixel_um * self.optics.cutoff > 0.5 * (1 + 1e-9):
            raise DataError(f"{self.name}: {self.optics.check(self.na, self.image_shape)[0]}")
        return self

    def check(self, *, upsample: float | None = None) -> list[str]:
        """Say in plain words what will not work well, see :meth:`Optics.check`; empty when all is well."""
        found = self.optics.check(self.na, self.image_shape, upsample=upsample)
        return found + [printable(str(warning)) for warning in self.provenance.get("warnings", ())]

    def crop(self, y: int, x: int, height: int, width: int) -> Dataset:
        """The region of interest of ``height`` × ``width`` camera pixels whose first pixel is (y, x).

        LEDs at a known height light it from other angles than the whole field, see :meth:`Calibration.seen_from`.
        """
        for value in (y, x, height, width):
            expect(value, numbers.Integral, "crop: y, x, height and width", "whole numbers")
        h, w = self.image_shape
        if min(y, x) < 0 or min(height, width) < 8 or y + height > h or x + width > w:
            raise DataError(
                f"{self.name}: region y={y} x={x} {height}×{width} does not fit in images of {h}×{w} (8 × 8 at least)"
            )
        truth = self.truth
        if truth is not None:
            (th, tw), fy, fx = truth.field.shape, truth.field.shape[0] / h, truth.field.shape[1] / w
            if fy % 1 or fx % 1:
                raise DataError(
                    f"{self.name}: truth of {th}×{tw} is no multiple of the {h}×{w} images; crop is not exact"
                )
            box = np.s_[int(y * fy) : int((y + height) * fy), int(x * fx) : int((x + width) * fx)]
            truth = Truth(truth.field[box], truth.depth_um[box])
        part = self.corner[0] + int(y), self.corner[1] + int(x), int(height), int(width)
        provenance = {**self.provenance, "roi_yxhw": list(part)}
        calibration = self.calibration.seen_from(part, self.box, self.optics.pixel_um)
        images = self.images.crop(y, x, height, width)
        return replace(self, images=images, calibration=calibration, truth=truth, provenance=provenance)

    def select(self, images: ArrayLike) -> Dataset:
        """Only the images with these indices, and what is known of them, in the order given."""
        try:
            index = np.asarray(images, dtype=np.intp)
        except (TypeError, ValueError):
            raise OptionError("select: image indices must be whole numbers") from None
        if index.size == 0 or index.min() < 0 or index.max() >= self.n_images:
            raise DataError(
                f"{self.name}: image indices must lie in 0 … {self.n_images - 1}, and there must be at least one"
            )
        return replace(self, images=self.images.select(index), calibration=self.calibration.select(index))

    def with_optics(self, **changes: float) -> Dataset:
        """A copy with some numbers of the optics replaced, for example ``with_optics(wavelength_um=0.523)``."""
        return replace(self, optics=replace(self.optics, **changes))

    def with_calibration(self, **changes: Any) -> Dataset:
        """A copy with parts of the nominal calibration replaced, for example ``with_calibration(defocus_um=3.0)``."""
        return replace(self, calibration=replace(self.calibration, **changes))

    def with_images(self, images: Images | ArrayLike) -> Dataset:
        """A copy with other images of the same instrument."""
        return replace(self, images=Images.of(images, self.name))


def as_planes(z_um: Sequence[float] | float) -> tuple[float, ...]:
    """One z or several, µm; :class:`OptionError` unless they are finite numbers in ascending order."""
    try:
        planes = tuple(np.atleast_1d(np.asarray(z_um, dtype=np.float64)).tolist())
    except (TypeError, ValueError):
        planes = ()
    if not planes or not all(map(math.isfinite, planes)) or any(a >= b for a, b in itertools.pairwise(planes)):
        raise OptionError("z must be one or more finite values in ascending order")
    return planes


def expect_dataset(value: object, what: str) -> None:
    """Raise :class:`OptionError` in one line where ``value`` is no :class:`Dataset`."""
    reads = isinstance(value, str | Path)
    expect(value, Dataset, what, "a Dataset", f"fpmtools.load({str(value)!r}) reads one" if reads else "")


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
