"""What can be shown: fields (results and the truth) at any z, raw images of any LED; each with its layers."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import OptionError, unknown
from fpmtools.optics import Shape, to_spectrum
from fpmtools.reconstruction import Reconstruction
from fpmtools.report.contrast import Scale, gray_scale, phase_scale
from fpmtools.unwrapping import continued, is_unique, unwrapped
from fpmtools.viewer.layers import CYCLIC, Reals
from fpmtools.viewer.regions import Box, InParts, Kept, Parts, Pyramid, Regions, level_shape, levels

AMPLITUDE, PHASE, UNWRAPPED, COLOUR, RAW, SPECTRUM = "amplitude", "phase", "unwrapped", "colour", "raw", "spectrum"
TRUE_COLOUR = "truecolour"  # as one sees it, of a result in several colours; COLOUR is the phase's hue
WHOLE = 1 << 20  # pixels that are transformed or unwrapped at once
SORTED = 256  # pixels of a side up to which a phase is unwrapped that there are several ways for, which takes its time
DECADES = 7.0  # of power that a spectrum shows below its brightest pixel

Domain = Literal["space", "frequency"]


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """``values`` with 0 where a solver that went wrong has left no number."""
    return np.asarray(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))


def check_z(z_range: tuple[float, float] | None, at: float, name: str) -> None:
    """Raise :class:`OptionError` where there is a range and ``at`` is not in it."""
    if z_range is not None:
        low, high = z_range
        slack = 1e-6 * max(1.0, abs(low), abs(high))
        if not low - slack <= at <= high + slack:
            raise OptionError(f"z = {at:g} µm is outside the range {low:g} … {high:g} µm of {name}")


@dataclass(frozen=True)
class Lights:
    """Where the light of each image comes from, ``na`` [image, (x, y)], and the numbers that a circle needs."""

    na: NDArray[np.float64]
    used: NDArray[np.bool_]
    objective_na: float | None
    wavelength_um: float | None


@dataclass(eq=False)
class Source(ABC):
    """One thing to look at, of ``shape`` (y, x) pixels over ``extent_um`` (y, x).

    ``at`` in all that follows is z in µm for fields, and the number of an image for raw images.
    """

    name: str
    shape: Shape
    extent_um: tuple[float, float]
    kept: Kept
    corner_um: tuple[float, float] = (0.0, 0.0)  # (y, x) of the middle of its first pixel in the camera's field
    lights: Lights | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    raw: Source | None = None  # the images that it was made of
    kind: ClassVar[str]
    layers: ClassVar[tuple[str, ...]]

    @property
    def pixel_um(self) -> tuple[float, float]:
        """Pixel (y, x), µm."""
        return self.extent_um[0] / self.shape[0], self.extent_um[1] / self.shape[1]

    @property
    def spectrum_shape(self) -> Shape:
        """Size (y, x) of the spectrum: square, as the page's pixels are, so that its steps are too."""
        side = max(min(n, math.isqrt(WHOLE)) for n in self.shape)
        return side, side

    def layer_shape(self, layer: str) -> Shape:
        """Size (y, x) of a layer at level 0; raises OptionError where there is no such layer."""
        if layer not in self.layers:
            raise unknown(f"layer of {self.kind}", layer, self.layers)
        return self.spectrum_shape if layer == SPECTRUM else self.shape

    def layer_levels(self, layer: str) -> int:
        """How many levels a layer has."""
        return levels(self.layer_shape(layer))

    def values(self, layer: str, at: float, box: Box, level: int) -> NDArray[Any]:
        """A part of a layer [y, x]: real values, complex ones of ``colour``, [y, x, (r, g, b)] of ``truecolour``."""
        if not math.isfinite(at):
            raise OptionError(f"{at} is no {'z' if self.kind == 'field' else 'image'}")
        self.check(at)
        shape = level_shape(self.layer_shape(layer), level)
        if not 0 <= level < self.layer_levels(layer):
            raise OptionError(f"{layer} has levels 0 … {self.layer_levels(layer) - 1}, not {level}")
        if min(box.y, box.x) < 0 or box.y + box.height > shape[0] or box.x + box.width > shape[1] or min(box[2:]) < 1:
            raise OptionError(f"level {level} of {layer} is {shape[0]} × {shape[1]} pixels; {tuple(box)} is not in it")
        return self._spectra.region(at, box, level) if layer == SPECTRUM else self.seen(layer, at, box, level)

    def overview(self, layer: str, at: float) -> NDArray[Any]:
        """The whole layer at its coarsest level."""
        level = self.layer_levels(layer) - 1
        return self.values(layer, at, Box(0, 0, *level_shape(self.layer_shape(layer), level)), level)

    def scale(self, layer: str, at: float) -> Scale:
        """Colour map and range that suit a layer: no stray pixel decides them."""
        values = finite(self.overview(layer, at))
        if layer == PHASE:
            found = phase_scale([np.exp(1j * values)])
            return Scale(CYCLIC, -math.pi, math.pi) if found.cmap != "viridis" else found
        if layer == SPECTRUM:
            top = float(values.max())
            return Scale("magma", max(top - DECADES, float(np.percentile(values, 2))), top)
        found = gray_scale([np.abs(values) if layer == COLOUR else values])
        if layer == COLOUR:
            return Scale("hue", 0.0, found.high)
        return Scale("viridis" if layer == UNWRAPPED else "gray", found.low, found.high)

    @abstractmethod
    def check(self, at: float) -> None:
        """Raise :class:`OptionError` where there is no such z or image."""

    @abstractmethod
    def seen(self, layer: str, at: float, box: Box, level: int) -> NDArray[Any]:
        """:meth:`values` of a layer that is no spectrum."""

    @abstractmethod
    def untouched(self, at: float, box: Box) -> NDArray[Any]:
        """A part at full size as it is, [y, x]."""

    def __post_init__(self) -> None:
        self._spectra = Pyramid(self._spectrum, self.kept)

    def _spectrum(self, at: float) -> Reals:
        """log10 of the power over its largest, DC at n // 2, of all pixels or those in the middle.

        A window keeps the borders from drawing a cross; beyond the shorter sides there is nothing.
        """
        (h, w), side = self.shape, self.spectrum_shape[0]
        height, width = min(h, side), min(w, side)
        part = self.untouched(at, Box((h - height) // 2, (w - width) // 2, height, width))
        window = (np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]).astype(np.float32)
        whole = np.pad(finite(part) * window, ((0, side - height), (0, side - width)))
        power = np.square(np.abs(to_spectrum(whole))).astype(np.float64)
        largest = float(power.max()) or 1.0
        return np.asarray(np.log10(np.maximum(power / largest, 1e-15)), dtype=np.float32)


@dataclass(eq=False)
class FieldSource(Source):
    """A complex field over a range of z."""

    regions: Regions | None = None
    z_range: tuple[float, float] | None = None  # None: it has no z
    planes: Sequence[float] = ()  # where it was solved; none where it is continuous
    kind = "field"
    layers = (AMPLITUDE, PHASE, UNWRAPPED, COLOUR, SPECTRUM)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._unwrapped = Pyramid(self._unwrap, self.kept)

    @classmethod
    def of(cls, result: Reconstruction, name: str, kept: Kept, **more: Any) -> FieldSource:
        """A result; one that gives regions is asked for them, others are rendered whole."""
        grid = result.grid
        regions = Parts(result) if isinstance(result, InParts) else Pyramid(result.field, kept)
        planes = result.planes_um
        return cls(name, grid.shape, grid.extent_um, kept, regions=regions, z_range=grid.z_range, planes=planes, **more)

    @classmethod
    def of_truth(cls, truth: Truth, name: str, extent_um: tuple[float, float], kept: Kept, **more: Any) -> FieldSource:
        """A truth, in focus everywhere: it is the same at every z."""
        values = np.asarray(truth.field, np.complex64)
        return cls(name, truth.field.shape, extent_um, kept, regions=Pyramid(lambda _: values, kept), **more)

    def check(self, at: float) -> None:
        """z must be in range; a truth takes any."""
        check_z(self.z_range, at, self.name)

    def untouched(self, at: float, box: Box, level: int = 0) -> NDArray[np.complex64]:
        """The field as it is; of a truth always the same."""
        assert self.regions is not None
        return self.regions.region(at if self.z_range is not None else 0.0, box, level)

    def seen(self, layer: str, at: float, box: Box, level: int) -> NDArray[Any]:
        """Phases are relative to that of the field's mean."""
        at = at if self.z_range is not None else 0.0
        if layer == UNWRAPPED:
            return self._continued(at, box, level)
        part = self.untouched(at, box, level)
        if layer == AMPLITUDE:
            return np.abs(part)
        part = part * self._piston(at)
        return part if layer == COLOUR else np.angle(part)

    def _piston(self, at: float) -> np.complex64:
        """The factor that makes the field's mean real and positive, by its coarsest level."""

        def found() -> NDArray[np.complex64]:
            level = levels(self.shape) - 1
            whole = finite(self.untouched(at, Box(0, 0, *level_shape(self.shape, level)), level))
            turned = np.exp(-1j * np.angle(whole.sum(dtype=np.complex128, keepdims=True)))
            return np.asarray(turned, dtype=np.complex64)

        return np.complex64(self.kept.get((id(self), "piston", at), found)[0, 0])

    def _unwrap(self, at: float) -> Reals:
        """At the finest level of few enough pixels at which there is one way to, or at a small one."""
        level = levels(self.shape, math.isqrt(WHOLE)) - 1
        while True:
            part = self.seen(PHASE, at, Box(0, 0, *level_shape(self.shape, level)), level)
            if max(part.shape) <= SORTED or is_unique(part):
                return unwrapped(finite(part))
            level += 1

    def _continued(self, at: float, box: Box, level: int) -> Reals:
        """The unwrapped phase; finer than the level that was unwrapped, the turns are those of the pixel there."""
        whole = self._unwrapped.whole(at)
        base = next(n for n in itertools.count() if level_shape(self.shape, n) == whole.shape)
        if level >= base:
            return self._unwrapped.region(at, box, level - base)
        factor = 1 << (base - level)
        rows, columns = (np.arange(n) + first for first, n in ((box.y, box.height), (box.x, box.width)))
        return continued(self.seen(PHASE, at, box, level), whole[np.ix_(rows // factor, columns // factor)])


@dataclass(eq=False)
class ImageSource(Source):
    """The raw images of a data set."""

    read: Callable[[int], NDArray[Any]] | None = None
    count: int = 0
    kind = "images"
    layers = (RAW, SPECTRUM)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._images = Pyramid(self._image, self.kept)

    @classmethod
    def of(cls, data: Dataset, name: str, kept: Kept, **more: Any) -> ImageSource:
        """All images of ``data``, read one by one."""
        images = data.images
        return cls(name, data.image_shape, data.extent_um, kept, read=images.__getitem__, count=len(images), **more)

    def check(self, at: float) -> None:
        """An image that there is."""
        if not (0 <= at < self.count and at == int(at)):
            raise OptionError(f"image {at:g} is not in 0 … {self.count - 1}")

    def untouched(self, at: float, box: Box) -> NDArray[Any]:
        """As it was recorded."""
        return self._images.region(at, box, 0)

    def seen(self, layer: str, at: float, box: Box, level: int) -> NDArray[Any]:
        """As it was recorded."""
        return self._images.region(at, box, level)

    def _image(self, at: float) -> Reals:
        assert self.read is not None
        return np.asarray(self.read(int(at)), dtype=np.float32)
