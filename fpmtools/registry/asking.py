"""Asking plugins what they offer without importing them here; see :mod:`fpmtools.registry.probe`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fpmtools.processes import killed_by
from fpmtools.registry.entries import Entry

ANNOUNCE_S, ANNOUNCE_BYTES = 4.0, 2e9  # for each plugin: its hooks are to be quick
PATIENT_S = 30.0  # where something is asked for by name that only a slow plugin may have
CLASS_S, CLASS_BYTES = 8.0, 4e9  # for each solver's class, which may import much
GOODBYE_S = 2.0
OVERHEAD_S = 60.0  # at most, beside what plugins take

# -P, and the path of this process: what is asked is what would be imported here.
START = """
import json, sys
request = json.loads(sys.stdin.buffer.raw.readline())
sys.path[:] = request["path"]
from fpmtools.registry.probe import main
main(request)
"""
# Threads would not survive the fork; nor is anything computed. PyTorch would load other packages' back ends.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
}


def announcements(entries: Sequence[Entry], seconds: float | None = None) -> list[dict[str, Any]]:
    """What each entry point announces, in plain data; of a broken one the ``fault``, and if it is ``slow``."""
    return _ask([{"entry": dataclasses.asdict(entry)} for entry in entries], seconds or ANNOUNCE_S, ANNOUNCE_BYTES)


def descriptions(asked: Iterable[tuple[Entry, str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """What the class of each entry point's solver of that name says of itself, once its options are checked."""
    tasks = [{"entry": dataclasses.asdict(e), "solver": name, "options": dict(options)} for e, name, options in asked]
    return _ask(tasks, CLASS_S, CLASS_BYTES, classes=True)


def _ask(
    tasks: Sequence[Mapping[str, Any]], seconds: float, memory_bytes: float, *, classes: bool = False
) -> list[dict[str, Any]]:
    if not tasks:
        return []
    request = {
        "path": [place for place in sys.path if isinstance(place, str)],
        "tasks": tasks,
        "seconds": seconds,
        "memory_bytes": memory_bytes,
        "classes": classes,
    }
    answers: dict[int, dict[str, Any]] = {}
    with _started() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        too_late = threading.Timer(OVERHEAD_S + len(tasks) * seconds, process.kill)
        too_late.daemon = True
        too_late.start()
        for line in process.stdout:
            told = json.loads(line)
            answers[told["task"]] = told["answer"]
        too_late.cancel()
    ending = killed_by(process.returncode) or f"exited with code {process.returncode}"
    lost = {"fault": f"cannot be asked: the process that asks {ending}"}
    return [answers.get(number, lost) for number in range(len(tasks))]


@contextlib.contextmanager
def _started() -> Iterator[subprocess.Popen[bytes]]:
    """The process that asks; it ends with all its children when its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("FPMTOOLS_DEBUG") else subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(GOODBYE_S)
            except subprocess.TimeoutExpired:
                process.kill()
