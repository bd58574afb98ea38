"""What a reconstruction takes to store, beside what a stack of planes would."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from fpmtools.dataset import Dataset
from fpmtools.optics import synthetic_support
from fpmtools.reconstruction import Reconstruction

SAMPLED_PLANES = 5  # compressed as a sample of all


def planes_needed_um(reconstruction: Reconstruction, dataset: Dataset) -> tuple[float, ...]:
    """Planes over the reconstructed range, at most half a recovered depth of field apart, which lose nothing."""
    low, high = reconstruction.grid.z_range
    step = 0.5 * dataset.optics.recovered_depth_of_field_um(dataset.na)
    gaps = math.ceil((high - low) / step - 1e-9)
    return tuple(low + (high - low) * i / gaps for i in range(gaps + 1)) if gaps else (low,)


def sizes(reconstruction: Reconstruction, dataset: Dataset, z_um: Sequence[float] | None = None) -> dict[str, float]:
    """Bytes of a reconstruction, and of the same planes ``z_um`` (default: :func:`planes_needed_um`) as arrays.

    Returns
    -------
    dict
        ``stored_bytes``: its arrays, as saved (the file adds about a kilobyte); ``bytes_per_plane``: that over the
        number of planes; ``dense_bytes``: amplitude and phase as float32 at the output size; ``compressed_bytes``: the
        same without loss, bytes of equal significance together, by zlib at level 6, from at most five planes;
        ``band_limited_bytes``: real and imaginary part, 16 bits each, of the spectrum's samples inside the synthetic
        aperture.
    """
    from fpmtools.sampling import SamplingPlan

    planes = planes_needed_um(reconstruction, dataset) if z_um is None else tuple(z_um)
    h, w = reconstruction.grid.shape
    picked = {planes[round(i)] for i in np.linspace(0, len(planes) - 1, min(SAMPLED_PLANES, len(planes)))}
    compressed = [_compressed(reconstruction, z) for z in sorted(picked)]
    plan = SamplingPlan.choose(dataset)  # whose output has square pixels, and holds the synthetic aperture
    support = synthetic_support(dataset.optics, dataset.na, plan.output_shape, plan.extent_um[0] / plan.output_shape[0])
    return {
        "stored_bytes": float(reconstruction.stored_bytes),
        "bytes_per_plane": reconstruction.stored_bytes / len(planes),
        "dense_bytes": 8.0 * h * w * len(planes),
        "compressed_bytes": float(np.mean(compressed)) * len(planes),
        "band_limited_bytes": 4.0 * int(support.sum()) * len(planes),
    }


def _compressed(reconstruction: Reconstruction, z_um: float) -> int:
    field = reconstruction.field(z_um)
    parts = np.stack([np.abs(field), np.angle(field)]).astype("<f4")
    return len(zlib.compress(np.ascontiguousarray(parts.reshape(-1, 1).view(np.uint8).T).tobytes(), 6))
