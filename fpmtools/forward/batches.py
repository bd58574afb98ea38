"""Work on many planes and images in blocks that fit the processor's cache or the graphics card's memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from fpmtools.forward.model import ForwardModel

Block = tuple[slice, slice]  # of planes, of images


def in_batches(forward: ForwardModel, planes: int, images: Sequence[int], work: Callable[[slice, slice], None]) -> None:
    """Call ``work(plane slice, image slice)`` on blocks that together cover ``planes`` planes × ``images``.

    A block holds ``forward.batch_samples`` samples of fields: on a CPU what stays in the processor's cache, on a GPU
    what fills it. When one runs out of memory, it and all that follow are halved, so ``work`` must leave nothing half
    done.
    """
    samples = math.prod(forward.image_shape) * forward.fields_per_image
    room = max(1, forward.batch_samples // samples)
    z_step = min(planes, room)
    step = max(1, room // z_step)
    todo = [
        (slice(z, min(z + z_step, planes)), slice(i, min(i + step, len(images))))
        for z in range(0, planes, z_step)
        for i in range(0, len(images), step)
    ]
    while todo:
        try:
            work(*todo[0])
        except torch.OutOfMemoryError:
            size = _size(todo[0])
            if size == 1:
                raise
            room = (size + 1) // 2
            forward.batch_samples = room * samples
            todo = [part for block in todo for part in _parts(block, room)]
        else:
            todo.pop(0)


def _size(block: Block) -> int:
    return math.prod(part.stop - part.start for part in block)


def _parts(block: Block, room: int) -> list[Block]:
    """A block in halves, images first, until each part has at most ``room`` images."""
    if _size(block) <= room:
        return [block]
    planes, images = block
    long = images if images.stop - images.start > 1 else planes
    middle = (long.start + long.stop + 1) // 2
    halves = slice(long.start, middle), slice(middle, long.stop)
    parts = [(planes, half) if long is images else (half, images) for half in halves]
    return [small for part in parts for small in _parts(part, room)]
