"""Numbers on their way to a device that goes on working meanwhile.

``torch.tensor(list, device="cuda")``, a tensor indexed by a list, and ``.to("cuda")`` of what is in ordinary memory all
wait until a GPU has done what it was asked for before. From pinned memory a copy takes its place in the queue instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def put(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Numbers of the host (a sequence, an array, a tensor) on ``device``; a tensor that is there already stays."""
    if device.type == "cpu" or (isinstance(values, torch.Tensor) and values.device.type != "cpu"):
        return torch.as_tensor(values, dtype=dtype, device=device)
    return torch.as_tensor(values, dtype=dtype).pin_memory().to(device, non_blocking=True)


def take(tensor: torch.Tensor, chosen: Sequence[int] | None, dim: int = 0) -> torch.Tensor:
    """The slices ``chosen`` of a tensor along ``dim``, all for None; a view, not a copy, where they are neighbours."""
    if chosen is None:
        return tensor
    first, count = chosen[0], len(chosen)
    if count == 1 or all(index == first + i for i, index in enumerate(chosen)):
        return tensor.narrow(dim, first, count)
    return tensor.index_select(dim, put(chosen, tensor.device))
