"""A worker: ``python -m fpmtools.tiling.worker PARENT`` calls what lines of JSON on its stdin name.

Each line is answered by one on stderr, ``returned`` with a value or ``raised`` with an error. It ends with its stdin,
or as soon as PARENT is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from fpmtools.errors import OptionError
from fpmtools.processes import keep_torch_alone
from fpmtools.runs.worker import die_with, teller
from fpmtools.tiling.workers import RETURNED, as_event


def main(words: list[str]) -> int:
    """Serve until stdin ends."""
    die_with(int(words[0]))
    tell = teller()
    keep_torch_alone()
    while line := sys.stdin.buffer.readline():
        try:
            call = json.loads(line)
            tell({"event": RETURNED, "value": _function(call["function"])(*call["arguments"])})
        except Exception as error:
            tell(as_event(error))
    return 0


def _function(name: str) -> Any:
    """One of fpmtools' own, by module and name."""
    module, _, attribute = name.partition(":")
    if not module.startswith("fpmtools."):
        raise OptionError(f"a worker calls fpmtools' own functions, not {name!r}")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    # Everything is written; what plugins have left running does not hold it up.
    os._exit(main(sys.argv[1:]))
