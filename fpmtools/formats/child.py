"""Files that are not trusted, read by a child process whose memory and time are limited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fpmtools.errors import DataError, OutputError

START_S, BYTES_PER_S = 30.0, 2e6  # what a file may take, even on a busy machine
OVERHEAD_BYTES = 1 << 30  # of address space, for the interpreter and its libraries


class Failure(Exception):
    """What kind of failure the child tells of, and why."""

    def of(self, path: Path, what: str) -> DataError | OutputError:
        """As an error about the file at ``path``, which should be ``what``."""
        kind, why = self.args[0], " ".join(str(self.args[1]).split())[:300]
        if kind == "refused":
            return DataError(f"{path.name}: refused: {why}")
        if kind == "no room":
            return OutputError(f"{path}: no room to unpack it in {tempfile.gettempdir()}: set TMPDIR ({why})")
        if kind == "damaged":
            return DataError(f"{path}: damaged, truncated or too large {what} ({why})")
        return DataError(f"{path}: {why}")


def run(script: str, folder: Path, arguments: Sequence[str], limit_bytes: int, limit_s: float) -> dict[str, Any]:
    """What ``script``, a file beside this one, leaves in ``folder`` as ``result.json``; raises :class:`Failure`."""
    # One thread: each thread of a BLAS reserves address space, which is limited.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    limited = str(Path(__file__).with_name("_limited.py"))
    command = [sys.executable, "-P", limited, script, str(limit_bytes), str(limit_s), *arguments]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failure("", f"gave up after {limit_s:.3g} s; is the file damaged?") from None
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        raise Failure("", f"damaged: it crashed its reader (exit {done.returncode})") from None
    if "failed" in result:
        raise Failure(result["failed"], result["why"])
    return result
