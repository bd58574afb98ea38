"""A run in a process of its own: ``python -m fpmtools.runs.worker FOLDER/run.json [PARENT]``.

The file holds a :class:`RunSpec`, or is the ``run.json`` of a run that was begun; the run is in the file's folder. What
it has to tell goes to stderr as JSON lines, whatever plugins do with their own. It ends as soon as PARENT, the process
that started it, is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fpmtools.errors import EXIT_INTERRUPTED, FpmError, SolverError
from fpmtools.processes import keep_torch_alone
from fpmtools.runs.folder import INTERRUPTED, RUN_FILE, RunFolder
from fpmtools.runs.spec import RunSpec, read_json

PR_SET_PDEATHSIG = 1


def main(words: list[str]) -> int:
    """Do it; the exit code is that of the command line (``errors.py``)."""
    if len(words) > 1:
        die_with(int(words[1]))
    tell = teller()
    keep_torch_alone()
    try:
        document = work(Path(words[0]), tell)
    except FpmError as error:
        status = error.status if isinstance(error, SolverError) else "failed"
        tell({"event": "error", "status": status, "message": " ".join(str(error).split())})
        return error.exit_code
    except KeyboardInterrupt:
        tell({"event": "error", "status": "failed", "message": "it interrupted itself"})  # or was: who did it knows
        return EXIT_INTERRUPTED
    return EXIT_INTERRUPTED if document["status"] == INTERRUPTED else 0


def work(file: Path, tell: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Run what ``file`` says in its folder."""
    from fpmtools.runs import running

    if file.name == RUN_FILE:
        with RunFolder.reopen(file.parent) as place:
            return running.carry_on(place, on_event=tell)
    spec = RunSpec.from_dict(read_json(file))
    with RunFolder.create(file.parent, spec, force=True) as place:
        return running.start(place, on_event=tell)


def teller() -> Callable[[Mapping[str, Any]], None]:
    """What writes events to this process's stderr, through a descriptor of its own; from now on stdout goes there too.

    That nobody listens any more does not end a run.
    """
    own = os.dup(2)
    os.dup2(2, 1)

    def tell(event: Mapping[str, Any]) -> None:
        if event["event"] == "warning":
            event = {"event": "line", "text": f"warning: {event['text']}"}
        with contextlib.suppress(OSError):
            os.write(own, (json.dumps(_strict(event)) + "\n").encode())

    return tell


def _strict(event: Mapping[str, Any]) -> Any:
    from fpmtools.storage import finite

    return finite(event)


def die_with(parent: int) -> None:
    """Have this process killed when ``parent`` ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_wait_for_end_of, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it was gone before
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_end_of(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # Everything is written; what plugins have left running does not hold it up.
    os._exit(main(sys.argv[1:]))
