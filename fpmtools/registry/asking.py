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
from typing import Any, TypeAlias

from fpmtools.processes import killed_by
from fpmtools.registry.entries import Entry

Asker: TypeAlias = "subprocess.Popen[bytes]"

ANNOUNCE_S, ANNOUNCE_BYTES = 3.0, 2e9  # for each plugin: its hooks are to be quick
PATIENT_S = 30.0  # where something is asked for by name that only a slow plugin may have
CLASS_S, CLASS_BYTES = 8.0, 4e9  # for each solver's class, which may import much
GOODBYE_S = 2.0
OVERHEAD_S = 60.0  # at most, beside what plugins take

# -P, and the path of this process: what is asked is what would be imported here.
START = """
import json, sys
sys.path[:] = json.loads(sys.stdin.buffer.raw.readline())
from fpmtools.registry.probe import main
main(classes="classes" in sys.argv)
"""


def announcements(entries: Sequence[Entry], seconds: float | None = None) -> list[dict[str, Any]]:
    """What each entry point announces, in plain data; of a broken one the ``fault``, and if it is ``slow``."""
    if not entries:
        return []
    with started() as asker:
        tasks = [{"entry": dataclasses.asdict(entry)} for entry in entries]
        return _ask(asker, tasks, seconds or ANNOUNCE_S, ANNOUNCE_BYTES)


def descriptions(
    asked: Iterable[tuple[Entry, str, Mapping[str, Any]]], ready: Asker | None = None
) -> list[dict[str, Any]]:
    """What the class of each entry point's solver of that name says of itself, once its options are checked.

    ``ready``: a process that was ``started(classes=True)`` for this.
    """
    tasks = [{"entry": dataclasses.asdict(e), "solver": name, "options": dict(options)} for e, name, options in asked]
    if not tasks:
        return []
    with contextlib.nullcontext(ready) if ready else started(classes=True) as asker:
        return _ask(asker, tasks, CLASS_S, CLASS_BYTES)


@contextlib.contextmanager
def started(*, classes: bool = False) -> Iterator[Asker]:
    """A process that can be asked once, and ends with all its children when its stdin is closed.

    For ``classes`` it imports torch beforehand, so that not each of its children must.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-c", START, *(["classes"] if classes else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("FPMTOOLS_DEBUG") else subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            _write(process, [place for place in sys.path if isinstance(place, str)])
            yield process
        finally:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(GOODBYE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _ask(asker: Asker, tasks: Sequence[Mapping[str, Any]], seconds: float, memory_bytes: float) -> list[dict[str, Any]]:
    assert asker.stdout is not None
    _write(asker, {"tasks": tasks, "seconds": seconds, "memory_bytes": memory_bytes})
    answers: dict[int, dict[str, Any]] = {}
    too_late = threading.Timer(OVERHEAD_S + len(tasks) * seconds, asker.kill)
    too_late.daemon = True
    too_late.start()
    for line in asker.stdout:
        told = json.loads(line)
        answers[told["task"]] = told["answer"]
    too_late.cancel()
    asker.wait()
    ending = killed_by(asker.returncode) or f"exited with code {asker.returncode}"
    lost = {"fault": f"cannot be asked: the process that asks {ending}"}
    return [answers.get(number, lost) for number in range(len(tasks))]


def _write(asker: Asker, told: Any) -> None:
    assert asker.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        asker.stdin.write(json.dumps(told).encode() + b"\n")
        asker.stdin.flush()
