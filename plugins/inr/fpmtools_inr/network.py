"""The implicit representation: a lateral feature plane times an axial feature vector, decoded by a small network.

Zhou, Feng et al., Optica 10, 1679 (2023): V(x, y, z) = M(x, y) ⊙ u(z), then an MLP per output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# Pixels that are decoded at once on a CPU. Larger tensors would be mapped afresh, page by page, in every step: at
# 700² pixels network and gradient together take a third of the time in bands.
CPU_BAND = 1 << 16

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": F.relu, "silu": F.silu}


@dataclass(frozen=True)
class Layout:
    """Everything that fixes the network but its numbers. ``plane_shape`` (y, x) is the size of the feature plane M."""

    plane_shape: tuple[int, int]
    features: int
    nodes: int
    hidden: int
    branches: int
    layer_norm: bool
    activation: str

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layout:
        """Inverse of :meth:`to_dict`."""
        y, x = values["plane_shape"]
        return cls(**{**values, "plane_shape": (int(y), int(x))})


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer whose weights are not drawn yet: ``nn.Linear`` would take them from the global random generator."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")


class Branch(nn.Module):
    """M ⊙ u(z) through an MLP of two hidden layers: features → hidden → hidden → outputs."""

    def __init__(self, layout: Layout, outputs: int) -> None:
        super().__init__()
        y, x = layout.plane_shape
        self.plane = nn.Parameter(torch.empty(y, x, layout.features))
        self.axial = nn.Parameter(torch.empty(layout.nodes, layout.features))
        self.first = _linear(layout.features, layout.hidden)
        self.second = _linear(layout.hidden, layout.hidden)
        self.last = _linear(layout.hidden, outputs)
        self.activation = ACTIVATIONS[layout.activation]
        norms = layout.layer_norm
        self.norms = nn.ModuleList([nn.LayerNorm(layout.hidden) if norms else nn.Identity() for _ in range(2)])

    def forward(self, z: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Outputs [z, output, y, x] at relative depths ``z`` in [0, 1], sampled on ``shape``.

        Sampling M bilinearly, multiplying by u(z) and applying the first layer are all linear, so they commute: u(z)
        folds into the layer's weights, the layer runs on the coarse plane, and its result is what is interpolated.
        """
        weights = self.first.weight * self.axial_features(z)[:, None, :]
        height, width = shape
        if self.plane.shape[:2] != shape:
            coarse = self._hidden(self.plane, weights).reshape(len(z), *self.plane.shape[:2], -1).movedim(-1, 1)
            fine = F.interpolate(coarse, shape, mode="bilinear", align_corners=False)
            outputs = self._decode(fine.movedim(1, -1).flatten(1, 2))
        else:
            rows = height if z.is_cuda else max(1, CPU_BAND // (width * len(z)))
            outputs = torch.cat(
                [self._decode(self._hidden(band, weights)) for band in torch.split(self.plane, rows)], dim=1
            )
        return outputs.mT.reshape(len(z), -1, height, width)

    @staticmethod
    def _hidden(plane: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """First layer without its bias, [z, pixel, hidden]."""
        return plane.flatten(0, 1) @ weights.mT

    def _decode(self, hidden: torch.Tensor) -> torch.Tensor:
        """All that follows, [z, pixel, output]."""
        hidden = self.activation(self.norms[0](hidden + self.first.bias))
        hidden = self.activation(self.norms[1](self.second(hidden)))
        with torch.autocast(hidden.device.type, enabled=False):
            # Eight bits of amplitude would drown the dark field, so the last layer is never in bfloat16.
            outputs: torch.Tensor = self.last(hidden.to(self.last.weight.dtype))
        return outputs

    def axial_features(self, z: torch.Tensor) -> torch.Tensor:
        """u(z): linear interpolation between the nodes, [z, feature]."""
        nodes = len(self.axial)
        if nodes == 1:
            return self.axial.expand(len(z), -1)
        at = z.clamp(0, 1) * (nodes - 1)
        low = at.floor().clamp_max(nodes - 2).long()
        return torch.lerp(self.axial[low], self.axial[low + 1], (at - low)[:, None])


class ImplicitField(nn.Module):
    """Amplitude and phase of the sample at any depth; one branch for both, or one for each as published."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.branches = nn.ModuleList([Branch(layout, 2 // layout.branches) for _ in range(layout.branches)])

    def initialise(self, generator: torch.Generator, plane_scale: float) -> ImplicitField:
        """Random weights from ``generator``: M ~ ``plane_scale`` · N(0, 1), u ~ N(0, 1), free to change sign with z.

        A joint network starts near amplitude 1 and phase 0: the clear sample.
        """
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    bound = module.in_features**-0.5
                    module.weight.uniform_(-bound, bound, generator=generator)
                    module.bias.uniform_(-bound, bound, generator=generator)
                elif isinstance(module, Branch):
                    module.plane.normal_(0, plane_scale, generator=generator)
                    module.axial.normal_(generator=generator)
            for branch in self.branches:
                if len(self.branches) == 1 and isinstance(branch, Branch):
                    branch.last.bias.copy_(torch.tensor([1.0, 0.0]))
        return self

    def planes(self) -> list[torch.Tensor]:
        """The feature plane M [y, x, feature] of each branch."""
        return [branch.get_parameter("plane") for branch in self.branches]

    def sensitivity(self, pixels: int = 2500) -> list[torch.Tensor]:
        """How strongly the field answers to changes of M, [feature, feature] for each branch.

        A change δ of a pixel's features changes the squared field there by δᵀ S δ to first order, in the mean over z
        and over about ``pixels`` pixels. S is the mean of JᵀJ, J the slopes of amplitude and of amplitude · phase.
        """
        whole = self.planes()
        stride = math.ceil(math.sqrt(whole[0].shape[0] * whole[0].shape[1] / pixels))
        planes = [plane.detach()[::stride, ::stride].clone().requires_grad_() for plane in whole]
        names = [f"branches.{i}.plane" for i in range(len(planes))]
        shape = (planes[0].shape[0], planes[0].shape[1])
        depths = ((torch.arange(2 * self.layout.nodes) + 0.5) / (2 * self.layout.nodes)).to(planes[0])
        totals = [plane.new_zeros(plane.shape[-1], plane.shape[-1]) for plane in planes]
        with torch.enable_grad():
            for z in depths:
                fields = torch.func.functional_call(self, dict(zip(names, planes, strict=True)), (z[None], shape))
                for output in (fields[0], fields[1] * fields[0].detach()):
                    slopes = torch.autograd.grad(output.sum(), planes, retain_graph=True, materialize_grads=True)
                    for total, slope in zip(totals, slopes, strict=True):
                        rows = slope.flatten(0, 1)
                        total += rows.mT @ rows / (len(rows) * len(depths))
        return totals

    def forward(self, z: torch.Tensor, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Amplitude and phase (rad), each [z, y, x], at relative depths ``z`` in [0, 1]. Both may be negative."""
        outputs = torch.cat([branch(z, shape) for branch in self.branches], dim=1)
        return outputs[:, 0], outputs[:, 1]
