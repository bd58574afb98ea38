"""CPU threads: how many a run may use, for torch and SciPy alike, and how idle ones wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fpmtools.errors import OptionError, expect

LIBRARIES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def check(threads: int | None) -> None:
    """Raise :class:`OptionError` for more threads than any machine makes use of; some libraries crash with them."""
    expect(threads, (int, type(None)), "threads", "a whole number")
    most = max(64, 4 * (os.cpu_count() or 1))
    if threads is not None and not 1 <= threads <= most:
        raise OptionError(f"threads must be from 1 to {most} here, got {threads}")


def announce(threads: int | None) -> None:
    """Tell libraries that are not imported yet how many threads they may use."""
    check(threads)
    for variable in LIBRARIES if threads is not None else ():
        os.environ[variable] = str(threads)


def chosen_by_user() -> bool:
    """Whether the environment says how many threads there are to be."""
    return "OMP_NUM_THREADS" in os.environ


@contextmanager
def limited(threads: int | None) -> Iterator[int]:
    """Give torch and SciPy this many threads (None: as many as torch has) for a while; yields the number."""
    import scipy.fft
    import torch

    check(threads)
    before = torch.get_num_threads()
    count = before if threads is None else threads
    torch.set_num_threads(count)
    try:
        with scipy.fft.set_workers(count):
            yield count
    finally:
        torch.set_num_threads(before)
