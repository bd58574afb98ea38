"""A trained FPM-INR: renders the field at any z from its stored parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools import Grid, Reconstruction
from fpmtools_inr.codec import CodedPlane
from fpmtools_inr.network import ImplicitField, Layout

BASIS = ".basis"  # of a coded plane, beside the bytes under the plane's own name


def code(network: ImplicitField, error: float) -> list[CodedPlane]:
    """Code each branch's M with about that rms ``error`` of the field, and change ``network`` into what is stored.

    All other parameters become what float16 holds. Values that are not finite cannot be coded: then the list is empty
    and nothing is changed.
    """
    if not all(value.isfinite().all() for value in network.parameters()):
        return []
    coded = []
    with torch.no_grad():
        for plane, sensitivity in zip(network.planes(), network.sensitivity(), strict=True):
            coded.append(CodedPlane.encode(plane.float().cpu().numpy(), sensitivity.double().cpu().numpy(), error))
        for value in network.parameters():
            value.copy_(value.half())
        for plane, kept in zip(network.planes(), coded, strict=True):
            plane.copy_(torch.from_numpy(kept.plane()))
    return coded


class InrReconstruction(Reconstruction):
    """Field A(x, y, z) · exp(i φ(x, y, z)) of an :class:`ImplicitField`, evaluated on the solver's object grid.

    ``support`` [y, x] bool, when given, is the synthetic aperture in the centred spectrum of ``native_shape``: what
    lies outside it was never measured, and is removed from what is rendered. ``coded`` holds what :func:`code` made of
    the network, one plane per branch, and is what is saved, so that a saved result renders exactly what the unsaved
    one does; without it all is saved in float32.
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
        coded: Sequence[CodedPlane] = (),
    ) -> None:
        super().__init__(grid, metadata)
        self.network = network
        self.native_shape = native_shape
        self.support = support
        self.coded = coded

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
        """Coded planes with their basis and the rest in float16, or all in float32; the aperture in single bits."""
        rest = np.float16 if self.coded else np.float32
        tensors: dict[str, NDArray[Any]] = {
            name: value.detach().cpu().numpy().astype(rest)
            for name, value in self.network.state_dict().items()
            if not (self.coded and name.endswith(".plane"))
        }
        for i, plane in enumerate(self.coded):
            tensors |= {_plane_name(i): plane.packed, _plane_name(i) + BASIS: plane.basis}
        if self.support is not None:
            tensors["support"] = np.packbits(self.support)
        return tensors, {"layout": self.network.layout.to_dict(), "native_shape": list(self.native_shape)}

    @classmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> InrReconstruction:
        """Inverse of :meth:`dump`."""
        y, x = (int(n) for n in config["native_shape"])
        network = ImplicitField(Layout.from_dict(config["layout"]))
        parameters = {name: np.asarray(tensors[name]) for name in network.state_dict()}
        coded = []
        for name in map(_plane_name, range(len(network.branches))):
            if name + BASIS in tensors:
                coded.append(CodedPlane.unpack(tensors[name], tensors[name + BASIS], network.layout.plane_shape))
                parameters[name] = coded[-1].plane()
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})
        bits = tensors.get("support")
        support = None if bits is None else np.unpackbits(bits, count=y * x).reshape(y, x).astype(bool)
        return cls(network, (y, x), support, grid, coded=coded)


def _plane_name(branch: int) -> str:
    return f"branches.{branch}.plane"
