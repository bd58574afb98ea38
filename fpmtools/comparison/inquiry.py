"""What plugins offer, asked in a process of its own: ``python -m fpmtools.comparison.inquiry [SOLVER …]``.

Without words the metrics, else what these solvers (``name:key=value``) can do; as JSON lines on stderr.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence

from fpmtools.errors import FpmError
from fpmtools.runs.worker import teller


def main(words: Sequence[str]) -> int:
    """Tell; the exit code is that of the command line."""
    tell = teller()
    try:
        if words:
            from fpmtools.comparison import spec

            for text in words:
                can = spec.capabilities(spec.Spec.parse(text))
                tell({"event": "solver", "label": text, "capabilities": sorted(can)})
        else:
            from fpmtools import registry

            for supplied in registry.metrics():
                tell({"event": "metric", "record": dataclasses.asdict(supplied.record)})
    except FpmError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
