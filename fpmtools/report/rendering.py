"""What of a result is drawn: rendered once and kept as plain arrays, so that drawing needs no solver's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import metrics, storage
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError
from fpmtools.optics import Shape, resample
from fpmtools.reconstruction import Grid, Reconstruction

RENDERED_FILE = "rendered.safetensors"
LARGEST = 512  # pixels of the longer side of a plane
MOST_PLANES = 24

Field = NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True)
class Measured:
    """What of the measurements is shown beside a result.

    ``amplitude`` [y, x] float32 of ``image``, the one whose light was nearest to the axis, in the result's units.
    """

    amplitude: NDArray[np.float32]
    image: int

    @classmethod
    def of(cls, dataset: Dataset, result: Reconstruction) -> Measured:
        """Of the images that the result was solved from."""
        known = metrics.as_used(result, dataset).calibration
        image = int(next(i for i in known.order if known.used[i]))
        scale = float(result.metadata.get("intensity_scale", 1.0))
        intensity = np.asarray(dataset.images[image], np.float32) / np.float32(scale)
        return cls(np.sqrt(np.maximum(intensity, 0)), image)


@dataclass(frozen=True)
class Rendered:
    """Pictures of one result.

    ``planes`` [z, y, x] complex64 at ``z_um``, at most :data:`MOST_PLANES` of at most :data:`LARGEST` pixels;
    ``middle`` [y, x] the plane at ``middle_um`` at full size; ``focus`` [y, x] the field at the truth's sampling with
    every pixel at its true depth, None without a truth. All as the solver gave them: no gain, no phase is taken out.
    ``measured`` is what lies beside it, None where that was not kept.
    """

    grid: Grid
    z_um: tuple[float, ...]
    planes: NDArray[np.complex64]
    middle_um: float
    middle: NDArray[np.complex64]
    focus: NDArray[np.complex64] | None
    measured: Measured | None = None

    def plane(self, z_um: float, shape: Shape) -> Field | None:
        """One of the planes, resampled to ``shape``; None where there is no plane at that z."""
        if z_um not in self.z_um:
            return None
        return resample(self.planes[self.z_um.index(z_um)], shape)

    def save(self, folder: str | Path) -> Path:
        """Write it into the folder of a run; planes as pairs of float16, for they are for looking at."""
        brightest = np.abs(self.planes)
        scale = float(brightest[np.isfinite(brightest)].max(initial=0)) or 1.0
        tensors: dict[str, NDArray[Any]] = {
            "planes": _pairs(self.planes / np.float32(scale)).astype(np.float16),
            "middle": _pairs(self.middle),
        }
        tensors |= {} if self.focus is None else {"focus": _pairs(self.focus)}
        header = {"grid": self.grid.to_dict(), "z_um": self.z_um, "middle_um": self.middle_um, "scale": scale}
        if (beside := self.measured) is not None:
            tensors["raw"], header["raw_image"] = beside.amplitude.astype(np.float16), beside.image
        return storage.write_tensors(Path(folder) / RENDERED_FILE, tensors, "rendered planes", header)

    @classmethod
    def load(cls, folder: str | Path) -> Rendered:
        """Read what :meth:`save` wrote; raises :class:`DataError` when that is missing or damaged."""
        path = Path(folder) / RENDERED_FILE
        tensors, header = storage.read_tensors(path, "rendered planes")
        try:
            planes = _fields(tensors["planes"]) * np.float32(header["scale"])
            focus = _fields(tensors["focus"]) if "focus" in tensors else None
            z_um = tuple(float(z) for z in header["z_um"])
            beside = None
            if "raw" in tensors:
                beside = Measured(tensors["raw"].astype(np.float32), int(header["raw_image"]))
            return cls(
                Grid.from_dict(header["grid"]),
                z_um,
                planes,
                float(header["middle_um"]),
                _fields(tensors["middle"]),
                focus,
                beside,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not complete ({error!r})") from error


def render(
    result: Reconstruction, z_um: Sequence[float], truth: Truth | None, dataset: Dataset | None = None
) -> Rendered:
    """Render what the pictures need: of the planes ``z_um`` evenly spread ones, and all depths of a ``truth``.

    With the ``dataset`` that it was solved from, what is shown of that too.
    """
    low, high = result.grid.z_range
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    inside = [float(z) for z in shown_planes(z_um) if low - slack <= z <= high + slack]
    shape = scaled(result.grid.shape, LARGEST)
    planes = [result.field(z, shape) for z in inside]
    middle_um = min(max(float(z_um[len(z_um) // 2]), low), high)
    return Rendered(
        result.grid,
        tuple(inside),
        np.stack(planes) if planes else np.empty((0, *shape), np.complex64),
        middle_um,
        result.field(middle_um),
        None if truth is None else metrics.composite(result, truth.depth_um),
        None if dataset is None else Measured.of(dataset, result),
    )


def shown_planes(z_um: Sequence[float]) -> list[float]:
    """At most :data:`MOST_PLANES` of ``z_um``, evenly spread, with both ends."""
    chosen = sorted({round(k) for k in np.linspace(0, len(z_um) - 1, min(MOST_PLANES, len(z_um)))})
    return [float(z_um[k]) for k in chosen]


def scaled(shape: Shape, longest: int) -> Shape:
    """``shape`` with its longer side at most ``longest``."""
    factor = min(1.0, longest / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _pairs(field: NDArray[np.complexfloating[Any, Any]]) -> NDArray[np.float32]:
    values = np.ascontiguousarray(field, dtype=np.complex64)
    return values.view(np.float32).reshape(*values.shape, 2)


def _fields(pairs: NDArray[Any]) -> NDArray[np.complex64]:
    return np.ascontiguousarray(pairs, dtype=np.float32).view(np.complex64)[..., 0]
