"""A trained FPM-INR: renders the field at any z from its stored parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools import Grid, Reconstruction
from fpmtools_inr.network import ImplicitField, Layout

SCALE = ".scale"  # of integers, beside the tensor of the name before it


def pack(values: NDArray[np.float32], bits: int) -> dict[str, NDArray[Any]]:
    """Feature plane [y, x, feature] in 32, 16 or 8 bits; the scale of 8-bit integers is one float32 per feature.

    Scales are powers of two, so that packing what was unpacked gives the very same integers and scales.
    """
    if bits == 32:
        return {"": values}
    if bits == 16:
        return {"": values.astype(np.float16)}
    finest = np.maximum(np.abs(values).max((0, 1)).astype(np.float64), 1e-30) / 127
    scale = 2.0 ** np.ceil(np.log2(finest))
    return {"": np.rint(values / scale).astype(np.int8), SCALE: scale.astype(np.float32)}


def unpack(parts: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Inverse of :func:`pack`, up to the rounding."""
    values = np.array(parts[""], dtype=np.float32)
    return values * parts[SCALE] if SCALE in parts else values


class InrReconstruction(Reconstruction):
    """Field A(x, y, z) · exp(i φ(x, y, z)) of an :class:`ImplicitField`, evaluated on the solver's object grid.

    ``support`` [y, x] bool, when given, is the synthetic aperture in the centred spectrum of ``native_shape``: what
    lies outside it was never measured, and is removed from what is rendered. With ``bits`` = 8 or 16 the feature plane
    is rounded to that many bits (8: integers with one scale per feature; 16: float16), here and in the file alike, so
    that a saved result renders exactly what the unsaved one does.
    """

    kind: ClassVar[str] = "inr"

    def __init__(
        self,
        network: ImplicitField,
        native_shape: tuple[int, int],
        support: NDArray[np.bool_] | None,
        grid: Grid,
        metadata: Mapping[str, Any] | None = None,
        *,
        bits: int = 32,
    ) -> None:
        super().__init__(grid, metadata)
        self.network = network
        self.native_shape = native_shape
        self.support = support
        self.bits = bits
        with torch.no_grad():
            for branch in network.branches:
                plane = branch.get_parameter("plane")
                plane.copy_(torch.from_numpy(unpack(pack(plane.detach().float().cpu().numpy(), bits))))

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        """Render one plane [y, x], complex64."""
        low, high = self.grid.z_range
        parameter = next(self.network.parameters())
        z = torch.tensor([(z_um - low) / (high - low) if high > low else 0.0], dtype=parameter.dtype)
        with torch.no_grad():
            amplitude, phase = self.network(z.to(parameter.device), self.native_shape)
            field = torch.polar(torch.ones_like(phase), phase) * amplitude
            if self.support is not None:
                mask = torch.from_numpy(np.fft.ifftshift(self.support, axes=(-2, -1))).to(field.device)
                field = torch.fft.ifft2(torch.fft.fft2(field, dim=(-2, -1)) * mask, dim=(-2, -1))
        return np.asarray(field[0].to(torch.complex64).cpu().numpy())

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The network's parameters as float32, M in ``bits``, and the synthetic aperture as single bits."""
        tensors: dict[str, NDArray[Any]] = {}
        for name, value in self.network.state_dict().items():
            array = value.detach().float().cpu().numpy()
            if name.endswith(".plane"):
                tensors |= {f"{name}{part}": packed for part, packed in pack(array, self.bits).items()}
            else:
                tensors[name] = array
        if self.support is not None:
            tensors["support"] = np.packbits(self.support)
        config = {"layout": self.network.layout.to_dict(), "native_shape": list(self.native_shape), "bits": self.bits}
        return tensors, config

    @classmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> InrReconstruction:
        """Inverse of :meth:`dump`."""
        y, x = (int(n) for n in config["native_shape"])
        network = ImplicitField(Layout.from_dict(config["layout"]))
        parameters = {}
        for name in network.state_dict():
            parts = {part: tensors[name + part] for part in ("", SCALE) if name + part in tensors}
            parameters[name] = torch.from_numpy(unpack(parts))
        network.load_state_dict(parameters)
        bits = tensors.get("support")
        support = None if bits is None else np.unpackbits(bits, count=y * x).reshape(y, x).astype(bool)
        return cls(network, (y, x), support, grid, bits=int(config["bits"]))
