"""A trained FPM-INR: renders the field at any z from its stored parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools import Grid, Reconstruction
from fpmtools_inr.network import ImplicitField, Layout


class InrReconstruction(Reconstruction):
    """Field A(x, y, z) · exp(i φ(x, y, z)) of an :class:`ImplicitField`, evaluated on the solver's object grid.

    ``support`` [y, x] bool, when given, is the synthetic aperture in the centred spectrum of ``native_shape``: what
    lies outside it was never measured, and is removed from what is rendered.
    """

    kind: ClassVar[str] = "inr"

    def __init__(
        self,
        network: ImplicitField,
        native_shape: tuple[int, int],
        support: NDArray[np.bool_] | None,
        grid: Grid,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(grid, metadata)
        self.network = network
        self.native_shape = native_shape
        self.support = support

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
        """The network's parameters as float32 and, as bits, the synthetic aperture."""
        tensors = {name: value.detach().float().cpu().numpy() for name, value in self.network.state_dict().items()}
        if self.support is not None:
            tensors["support"] = np.packbits(self.support)
        return tensors, {"layout": self.network.layout.to_dict(), "native_shape": list(self.native_shape)}

    @classmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> InrReconstruction:
        """Inverse of :meth:`dump`."""
        y, x = (int(n) for n in config["native_shape"])
        network = ImplicitField(Layout.from_dict(config["layout"]))
        parameters = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items() if name != "support"}
        network.load_state_dict(parameters)
        bits = tensors.get("support")
        support = None if bits is None else np.unpackbits(bits, count=y * x).reshape(y, x).astype(bool)
        return cls(network, (y, x), support, grid)
