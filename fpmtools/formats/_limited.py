"""Child process: run a script that lies beside this one with no more memory and time than it is given.

Arguments: the script's name, the limits in bytes and in seconds, the script's own arguments. Nothing of fpmtools is
imported.
"""

from __future__ import annotations

import math
import runpy
import sys
from pathlib import Path


def limit(most_bytes: int, most_s: float) -> None:
    """Limit the address space and the time on the CPU, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    for what, most in ((resource.RLIMIT_AS, most_bytes), (resource.RLIMIT_CPU, math.ceil(most_s))):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    script, most_bytes, most_s = sys.argv[1:4]
    limit(int(most_bytes), float(most_s))
    sys.argv[:4] = [script]
    runpy.run_path(str(Path(__file__).with_name(script)), run_name="__main__")
