"""Who solves tiles: this process, or several of its own that are told by lines of JSON what to call.

An executor is any object with ``submit(function, *arguments)`` that returns a ``concurrent.futures.Future``; functions
are module-level, arguments and results JSON-ready. ``at_once``, where it has one, says how many may be under way, and
``stop()`` asks what is under way to leave.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from fpmtools import errors
from fpmtools.errors import FpmError, SolverError, Terminated
from fpmtools.processes import GRACE_S, killed_by, parse_event

RETURNED, RAISED = "returned", "raised"
Result = dict[str, Any]


class Executor(Protocol):
    """What tiles are given to."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have ``function(*arguments)`` called, here or elsewhere, now or later."""


class WorkerLost(Exception):
    """A worker has ended in the middle of a call: killed, crashed, or out of memory."""


class Here:
    """Calls in this process, one after the other."""

    at_once = 1

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Call it now. Ctrl-C, and a signal that asks to leave, are the caller's."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Terminated:
            raise
        except Exception as error:
            future.set_exception(error)
        return future


class Workers:
    """``count`` processes, each of which takes one call after the other; one that ends is replaced.

    A context: at its end all of them do.
    """

    def __init__(self, count: int, on_line: Callable[[str], object] = lambda text: None) -> None:
        self.at_once = count
        self._on_line = on_line
        self._calls: queue.SimpleQueue[tuple[Future[Any], str] | None] = queue.SimpleQueue()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped = False
        self._threads = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(count)]

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        for _ in self._threads:
            self._calls.put(None)
        for process in list(self._processes.values()):
            with contextlib.suppress(OSError):
                process.terminate()
        for thread in self._threads:
            thread.join()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have a worker call it."""
        future: Future[Any] = Future()
        call = {"function": f"{function.__module__}:{function.__qualname__}", "arguments": arguments}
        self._calls.put((future, json.dumps(call)))
        return future

    def stop(self) -> None:
        """Ask all that are under way to write a checkpoint and leave; nothing new is begun."""
        self._stopped = True
        for process in list(self._processes.values()):
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGTERM)

    def _serve(self, number: int) -> None:
        while (call := self._calls.get()) is not None:
            future, words = call
            if not future.set_running_or_notify_cancel():
                continue
            if self._stopped:
                future.set_exception(WorkerLost("nothing is begun any more"))
                continue
            try:
                future.set_result(self._called(number, words))
            except Exception as error:
                future.set_exception(error)
        if process := self._processes.pop(number, None):
            _end(process)

    def _called(self, number: int, words: str) -> Any:
        process = self._processes.get(number)
        if process is not None and process.poll() is not None:
            _end(process)
            process = None
        if process is None:
            process = self._processes[number] = _started()
        assert process.stdin is not None
        assert process.stderr is not None
        with contextlib.suppress(OSError):  # it has just ended
            process.stdin.write((words + "\n").encode())
            process.stdin.flush()
        last = ""
        for line in process.stderr:
            event = parse_event(line.decode(errors="replace").rstrip("\n"))
            if event["event"] == RETURNED:
                return event["value"]
            if event["event"] == RAISED:
                raise error_of(event)
            if event["event"] == "line" and event["text"].strip():
                last = event["text"].strip()
                self._on_line(last)
        code = process.wait()
        raise WorkerLost(killed_by(code) or f"ended with exit code {code}" + (f": {last}" if last else ""))


def _started() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fpmtools.tiling.worker", str(os.getpid())]
    # In a session of its own the terminal's Ctrl-C does not reach it: whoever started it passes on what is to be.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process that has nothing left to do go, or see that it goes."""
    assert process.stdin is not None
    assert process.stderr is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stderr.close()


def as_event(error: Exception) -> Result:
    """What a call has raised, JSON-ready."""
    text = " ".join(str(error).split())
    if isinstance(error, FpmError | WorkerLost):
        code = error.exit_code if isinstance(error, FpmError) else 0
        return {"event": RAISED, "kind": type(error).__name__, "exit_code": code, "message": text}
    return {"event": RAISED, "kind": "SolverError", "message": f"{type(error).__name__}: {text}"}


def error_of(event: Mapping[str, Any]) -> Exception:
    """What a call elsewhere has raised, as it would have been raised here."""
    kind, message = str(event.get("kind")), str(event.get("message", ""))
    if kind == WorkerLost.__name__:
        return WorkerLost(message)
    found = getattr(errors, kind, None)
    if found is Terminated:
        return Terminated(message, int(event["exit_code"]) - 128)
    if isinstance(found, type) and issubclass(found, FpmError):
        return found(message)
    return SolverError(message)
