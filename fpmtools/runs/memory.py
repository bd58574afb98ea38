"""Peak memory of this process, with parts that do not count."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class PeakMemory:
    """Largest resident memory of this process so far, outside of :meth:`aside`."""

    def __init__(self) -> None:
        self._earlier_mb = 0.0

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done here does not count, where the system can forget a peak (Linux)."""
        self._earlier_mb = self.mb()
        try:
            yield
        finally:
            with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # the peak becomes what is resident now

    def mb(self) -> float:
        """In MB (10⁶ bytes)."""
        return max(self._earlier_mb, peak_memory_mb())


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10⁶ bytes)."""
    # On Linux ru_maxrss also counts the parent's memory from before this program started; VmHWM does not.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="ignore") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
