"""What napari shows of a result and of measurements: layers with their size in µm, z, contrast and colours.

Each layer is (array, keywords of the layer, its type), as napari takes it. All have the axes [z, y, x], raw images
[LED, z, y, x]; what has no depth of its own is one plane as thick as the whole range, so that it is there at any z.
The first pixels of all of them lie on each other: so the solvers' grids are made.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.colour.result import ColourReconstruction
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import printable
from fpmtools.formats.channels import flat_phase
from fpmtools.formats.volume import even_spacing
from fpmtools.napari.stacks import Stack, Tiles, kept
from fpmtools.optics import Box as WholeBox
from fpmtools.optics import Shape, resample
from fpmtools.reconstruction import Grid, Reconstruction
from fpmtools.report.contrast import gray_scale, phase_scale
from fpmtools.viewer.regions import Box, InParts, Parts, full_size, level_shape, levels

Layer = tuple[Any, dict[str, Any], str]
Field = NDArray[np.complexfloating[Any, Any]]
Read = Callable[[int, int, WholeBox], NDArray[Any]]

COARSEST = 512  # pixels of a side of the smallest level of what is read part by part
STEPS = 100  # of the slider over z, at least
MICROMETRE = "µm"
SCREEN = 1 / 2.2  # the power of light that a screen is given


@dataclass(frozen=True)
class Depths:
    """Where the planes of a layer are: ``count`` of them from ``first_um`` on, ``step_um`` apart."""

    first_um: float = 0.0
    step_um: float = 1.0
    count: int = 1

    @classmethod
    def of(cls, result: Reconstruction) -> Depths:
        """Finely through all that a result covers; evenly spaced planes that it was solved at are among them."""
        low, high = result.grid.z_range
        if low == high:
            return cls(low)
        solved = result.planes_um
        gaps = len(solved) - 1 if even_spacing(solved) else 1
        steps = gaps * math.ceil(STEPS / gaps)
        return cls(low, (high - low) / steps, steps + 1)

    @classmethod
    def at(cls, z_um: Sequence[float]) -> Depths:
        """Of planes that are there; as if evenly spaced."""
        step = (z_um[-1] - z_um[0]) / (len(z_um) - 1) if len(z_um) > 1 else 1.0
        return cls(float(z_um[0]), float(step) or 1.0, len(z_um))

    def z_um(self, plane: int) -> float:
        """Of one of the planes."""
        return self.first_um + plane * self.step_um

    @property
    def slab(self) -> Depths:
        """One plane as thick as all of them together."""
        span = self.count * self.step_um
        return Depths(self.first_um + (span - self.step_um) / 2, span)


@dataclass(frozen=True)
class Place:
    """Pixels of ``pixel_um`` (y, x), the first at ``corner_um`` (y, x) of the camera's field."""

    pixel_um: tuple[float, float]
    corner_um: tuple[float, float] = (0.0, 0.0)

    def where(self, depths: Depths, leds: bool = False) -> dict[str, Any]:
        """The keywords that say where a layer is."""
        scale, corner = (depths.step_um, *self.pixel_um), (depths.first_um, *self.corner_um)
        found = {"scale": scale, "translate": corner, "units": (MICROMETRE,) * 3, "axis_labels": ("z", "y", "x")}
        outer = {"scale": 1.0, "translate": 0.0, "units": "pixel", "axis_labels": "LED"}
        return {name: (outer[name], *values) for name, values in found.items()} if leds else found


def of_fields(
    name: str,
    field: Callable[[int], Field],
    shape: Shape,
    depths: Depths,
    place: Place,
    shown: bool = True,
    looks: dict[str, dict[str, Any]] | None = None,
) -> list[Layer]:
    """Phase and, on top of it, amplitude; ``field(k)`` [y, x] is made when plane k is looked at.

    ``looks`` are contrast and colours of the two; default: what fits the planes at both ends and in the middle.
    """
    same = kept(field, 8 * math.prod(shape))  # amplitude and phase are of the same fields
    looks = looks or contrasts([same(k) for k in sorted({0, depths.count // 2, depths.count - 1})])
    values: dict[str, Callable[[Field], NDArray[Any]]] = {"phase": flat_phase, "amplitude": np.abs}

    def stack(of: Callable[[Field], NDArray[Any]]) -> Stack:
        return Stack(depths.count, shape, lambda k: of(same(k)))

    return [
        (
            stack(of),
            {"name": f"{printable(name)} {quantity}", "visible": shown, **place.where(depths), **looks[quantity]},
            "image",
        )
        for quantity, of in values.items()
    ]


def contrasts(fields: Sequence[Field]) -> dict[str, dict[str, Any]]:
    """Of amplitude and phase: limits and colours, cyclic where the phase wraps."""
    fields = [field * np.exp(-1j * np.angle(field.sum())) for field in fields]
    scales = {"amplitude": gray_scale(np.abs(field) for field in fields), "phase": phase_scale(fields)}
    return {
        quantity: {"colormap": scale.cmap, "contrast_limits": (scale.low, scale.high)}
        for quantity, scale in scales.items()
    }


def of_result(name: str, result: Reconstruction, corner_um: tuple[float, float] = (0.0, 0.0)) -> list[Layer]:
    """Amplitude and phase through all z that a result covers, rendered where one looks."""
    depths, place = Depths.of(result), Place(result.grid.pixel_um, corner_um)
    if isinstance(result, ColourReconstruction):
        return _of_colours(name, result, depths, place)
    if isinstance(result, InParts):
        return _of_parts(name, result, depths, place)
    return of_fields(name, lambda k: _at(result, depths.z_um(k)), result.grid.shape, depths, place)


def _at(result: Reconstruction, z_um: float) -> Field:
    return result.field(_within(result.grid, z_um))


def _within(grid: Grid, z_um: float) -> float:
    low, high = grid.z_range
    return min(max(z_um, low), high)  # the last step may end a rounding error beyond


def _of_parts(name: str, result: InParts, depths: Depths, place: Place) -> list[Layer]:
    """Of a result that is read part by part: layers of several levels, of each only what is looked at."""
    shape, parts = result.grid.shape, Parts(result)
    top = levels(shape, COARSEST) - 1

    def field(level: int, k: int, box: WholeBox) -> Field:
        return parts.region(_within(result.grid, depths.z_um(k)), Box(*box), level)

    read = _coarsest_kept(shape, field)

    def small(k: int) -> Field:
        return read(top, k, (0, 0, *level_shape(shape, top)))

    looks = contrasts([small(k) for k in sorted({0, depths.count // 2, depths.count - 1})])
    values: dict[str, Callable[[int, Field], NDArray[Any]]] = {
        "phase": lambda k, part: np.angle(part * np.exp(-1j * np.angle(small(k).sum()))),
        "amplitude": lambda k, part: np.abs(part),
    }

    def cut(of: Callable[[int, Field], NDArray[Any]], level: int, k: int, box: WholeBox) -> NDArray[Any]:
        return of(k, read(level, k, box))

    return [
        (
            _levels(shape, depths, functools.partial(cut, of)),
            {"name": f"{printable(name)} {quantity}", "multiscale": True, **place.where(depths), **looks[quantity]},
            "image",
        )
        for quantity, of in values.items()
    ]


def _of_colours(name: str, result: ColourReconstruction, depths: Depths, place: Place) -> list[Layer]:
    """Each colour's intensity in its light, which together are what one sees; phase and amplitude of one, hidden."""
    shape = result.grid.shape

    def intensity(colour: str, level: int, k: int, box: WholeBox) -> NDArray[np.float32]:
        whole = full_size(shape, Box(*box), level)
        return result.intensity(colour, _within(result.grid, depths.z_um(k)), whole, level)

    found = [
        (array, {**about, "visible": False}, kind)
        for array, about, kind in _of_parts(f"{name} {result.reference}", result, depths, place)
    ]
    for colour, shade in reversed(result.shown_in().items()):
        read = _coarsest_kept(shape, functools.partial(intensity, colour))
        look = {"colormap": f"#{shade}", "contrast_limits": (0.0, 1.0), "gamma": SCREEN, "blending": "additive"}
        about = {"name": f"{printable(name)} {printable(colour)}", "multiscale": True, **place.where(depths), **look}
        found.append((_levels(shape, depths, read), about, "image"))
    return found


def _levels(shape: Shape, depths: Depths, read: Read) -> list[Tiles]:
    """Arrays of each level, of which ``read(level, plane, box)`` makes parts."""
    return [
        Tiles(depths.count, level_shape(shape, level), functools.partial(read, level))
        for level in range(levels(shape, COARSEST))
    ]


def _coarsest_kept(shape: Shape, read: Read) -> Read:
    """``read(level, plane, box)``, of which the coarsest level is read whole and kept: napari asks for it again."""
    top = levels(shape, COARSEST) - 1
    whole = (0, 0, *level_shape(shape, top))
    small = kept(lambda k: read(top, k, whole), 8 * math.prod(whole[2:]))

    def part(level: int, k: int, box: WholeBox) -> NDArray[Any]:
        y, x, height, width = box
        return read(level, k, box) if level < top else small(k)[y : y + height, x : x + width]

    return part


def of_truth(
    truth: Callable[[], Truth],
    shape: Shape,
    depths: Depths,
    place: Place,
    looks: dict[str, dict[str, Any]] | None = None,
) -> list[Layer]:
    """The known sample at ``shape``, every pixel in focus; hidden at first."""
    return of_fields("truth", lambda k: resample(truth().field, shape), shape, depths.slab, place, False, looks)


def of_images(
    dataset: Callable[[], Dataset], count: int, shape: Shape, brightest: float, depths: Depths, place: Place
) -> Layer:
    """The measured images over the LEDs, read when one looks; hidden at first. White is twice ``brightest``."""
    stack = Stack(count, (1, *shape), lambda k: dataset().images[k][None])
    look = {"colormap": "gray", "contrast_limits": (0.0, 2 * brightest or 1.0)}
    where = place.where(depths.slab, leds=True)
    return stack, {"name": "raw images", "visible": False, **where, **look}, "image"


def of_dataset(dataset: Dataset) -> list[Layer]:
    """Truth, if there is one, and raw images, which are what is shown."""
    found, depths = [], Depths(dataset.planes_um[0])
    pixel = dataset.optics.pixel_um
    corner = corner_um(dataset.corner, pixel)
    if (truth := dataset.truth) is not None:
        shape = (truth.field.shape[0], truth.field.shape[1])
        finer = (dataset.extent_um[0] / shape[0], dataset.extent_um[1] / shape[1])
        found += of_truth(lambda: truth, shape, depths, Place(finer, corner))
    here = functools.partial(Place, (pixel, pixel), corner)
    bright = float(dataset.images.means.max())
    array, about, kind = of_images(lambda: dataset, dataset.n_images, dataset.image_shape, bright, depths, here())
    return [*found, (array, about | {"visible": True}, kind)]


def corner_um(corner: Sequence[float], pixel_um: float) -> tuple[float, float]:
    """Where the first of the camera's pixels (y, x) of a region is, so that regions of one field lie side by side."""
    return corner[0] * pixel_um, corner[1] * pixel_um
