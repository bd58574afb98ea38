"""The implicit representation: a lateral feature plane times an axial feature vector, decoded by a small network.

Zhou, Feng et al., Optica 10, 1679 (2023): V(x, y, z) = M(x, y) ⊙ u(z), then an MLP per output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Layout:
    """Everything that fixes the network's tensors. ``plane_shape`` (y, x) is the size of the feature plane M."""

    plane_shape: tuple[int, int]
    features: int
    nodes: int
    hidden: int
    branches: int
    layer_norm: bool

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
    """M ⊙ u(z) through an MLP of two hidden layers: features → hidden → hidden → outputs, ReLU between."""

    def __init__(self, layout: Layout, outputs: int) -> None:
        super().__init__()
        y, x = layout.plane_shape
        self.plane = nn.Parameter(torch.empty(y, x, layout.features))
        self.axial = nn.Parameter(torch.empty(layout.nodes, layout.features))
        self.first = _linear(layout.features, layout.hidden)
        self.second = _linear(layout.hidden, layout.hidden)
        self.last = _linear(layout.hidden, outputs)
        norms = layout.layer_norm
        self.norms = nn.ModuleList([nn.LayerNorm(layout.hidden) if norms else nn.Identity() for _ in range(2)])

    def forward(self, z: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Outputs [z, output, y, x] at relative depths ``z`` in [0, 1], sampled on ``shape``.

        Sampling M bilinearly, multiplying by u(z) and applying the first layer are all linear, so they commute: u(z)
        folds into the layer's weights, the layer runs on the coarse plane, and its result is what is interpolated.
        """
        weights = self.first.weight * self.axial_features(z)[:, None, :]
        hidden = self.plane.flatten(0, 1) @ weights.mT  # [z, pixel, hidden]
        if self.plane.shape[:2] != shape:
            coarse = hidden.reshape(len(z), *self.plane.shape[:2], -1).movedim(-1, 1)
            fine = F.interpolate(coarse, shape, mode="bilinear", align_corners=False)
            hidden = fine.movedim(1, -1).flatten(1, 2)
        hidden = F.relu(self.norms[0](hidden + self.first.bias))
        hidden = F.relu(self.norms[1](self.second(hidden)))
        with torch.autocast(hidden.device.type, enabled=False):
            # Eight bits of amplitude would drown the dark field, so the last layer is never in bfloat16.
            outputs: torch.Tensor = self.last(hidden.to(self.last.weight.dtype))
        return outputs.mT.reshape(len(z), -1, *shape)

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

    def forward(self, z: torch.Tensor, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Amplitude and phase (rad), each [z, y, x], at relative depths ``z`` in [0, 1]. Both may be negative."""
        outputs = torch.cat([branch(z, shape) for branch in self.branches], dim=1)
        return outputs[:, 0], outputs[:, 1]
