"""Numbers in few bytes: all rounded with one step, a little towards 0, and the integers entropy-coded.

With uncorrelated numbers one step for all costs the fewest bits for a given error (transform coding: Goyal, IEEE Signal
Process. Mag. 18(5), 9, 2001); what makes them uncorrelated, and in which order they come, is the caller's.
"""

from __future__ import annotations

import lzma
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What rounding would do is shrunk a little more: most small coefficients are noise of the fit.
ROUNDING = 0.3
# Adaptive range coding of single bytes; neighbours tell nothing more after the transforms.
FILTERS: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}]
LARGEST = 1 << 30


def rounded(values: NDArray[np.floating]) -> NDArray[np.int32]:
    """Real ``values`` in units of the rounding step as integers; OverflowError where one is beyond 2³⁰."""
    size = np.floor(np.abs(values) + ROUNDING)
    if size.size and not size.max() < LARGEST:
        raise OverflowError("the rounding step is too small for 32 bits")
    return np.asarray(np.copysign(size, values), dtype=np.int32)


def pack(levels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """``levels`` of any shape, entropy-coded in their order: the sign in the lowest bit, all lowest bytes first.

    Shortest where those that are alike in size stand together.
    """
    flat = levels.ravel()
    unsigned = (2 * np.abs(flat) - (flat < 0)).astype("<u4")
    streams = np.ascontiguousarray(unsigned.view(np.uint8).reshape(-1, 4).T)
    return np.frombuffer(lzma.compress(streams.tobytes(), lzma.FORMAT_RAW, filters=FILTERS), dtype=np.uint8)


def unpack(packed: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Inverse of :func:`pack`. Raises :class:`ValueError` when the bytes do not hold an array of that shape."""
    count = math.prod(shape)
    coder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
    try:
        streams = coder.decompress(packed.tobytes(), max_length=4 * count + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"coded numbers: {error}") from error
    if len(streams) != 4 * count:
        raise ValueError(f"coded numbers: not {count} of them")
    unsigned = np.ascontiguousarray(np.frombuffer(streams, np.uint8).reshape(4, count).T).view("<u4")
    size = ((unsigned + 1) // 2).astype(np.int32)
    return np.where(unsigned % 2, -size, size).reshape(shape)
