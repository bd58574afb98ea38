"""The process that asks plugins what they offer, each in a child of its own that is watched for time and memory.

It is started by :mod:`fpmtools.registry.asking`, reads one request, a JSON line, on stdin, and tells on stdout in JSON
lines what each task gave. It never imports a plugin itself: it forks. The child that does has a parent of its own, so
that nothing the plugin does to its parent reaches further, and says on a pipe what it is doing and what it found. Its
stdin, stdout and stderr lead nowhere.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TextIO

from fpmtools import threads
from fpmtools.errors import FpmError, SolverError
from fpmtools.processes import crowded_out_s, keep_torch_alone, killed_by, resident_bytes
from fpmtools.records import SolverRecord, to_data
from fpmtools.registry import classes, traces
from fpmtools.registry.entries import Entry, one_line
from fpmtools.registry.hooks import KINDS, announce

AT_ONCE, AT_MOST = 12, 24  # that were started within YOUNG_S, and all in all: most of the others sleep or hang
YOUNG_S = 1.0
LOOK_EVERY_S = 0.05
BUSY = 2  # times as long, where others crowd it out
READ_BYTES = 1 << 16
ANSWER_BYTES = 1 << 20  # at most, that one plugin may say

Say = Callable[..., None]


def main(*, classes: bool) -> NoReturn:
    """Take all tasks of a request, and tell what each gave in the order in which they end."""
    to_parent = os.fdopen(os.dup(1), "w", encoding="ascii")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    threads.announce(1)  # more would not survive the fork; nor is anything computed
    keep_torch_alone()
    if classes and sys.platform == "linux":  # where a process with torch in it can be forked
        import fpmtools.solver  # noqa: F401
    gc.freeze()  # or each child goes through all of it again
    request = json.loads(sys.stdin.buffer.readline() or "{}")
    if request:
        _take(request, to_parent)
    os._exit(0)  # there is nothing to clean up, which takes Python a second when torch is there


def _take(request: Mapping[str, Any], to_parent: TextIO) -> None:
    waiting, running = list(enumerate(request["tasks"])), list[_Child]()
    try:
        while waiting or running:
            while waiting and len(running) < AT_MOST and sum(child.taken_s < YOUNG_S for child in running) < AT_ONCE:
                running.append(_Child.start(*waiting.pop(0), [to_parent.fileno(), *(child.pipe for child in running)]))
            talking = [child.pipe for child in running if child.open]
            ready, _, _ = select.select([0, *talking], [], [], LOOK_EVERY_S)
            if 0 in ready:  # the parent is gone
                return
            for child in list(running):
                if answer := child.look(child.pipe in ready, request["seconds"], request["memory_bytes"]):
                    running.remove(child)
                    child.end()
                    to_parent.write(json.dumps({"task": child.task, "answer": answer}) + "\n")
                    to_parent.flush()
    finally:
        for child in running:
            child.end()


@dataclass
class _Child:
    """A child that has a task: the parent of the process that imports the plugin, and the pipe that this one has."""

    task: int
    pid: int
    pipe: int
    begun: float = field(default_factory=time.monotonic)
    plugin: int = 0
    doing: str = "it was started"
    said: bytes = b""
    open: bool = True

    @classmethod
    def start(cls, number: int, task: Mapping[str, Any], others: list[int]) -> _Child:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            for descriptor in (read, *others):
                os.close(descriptor)
            _tend(task, write)
        os.close(write)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return cls(number, pid, read)

    @property
    def taken_s(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.begun

    def look(self, ready: bool, seconds: float, memory_bytes: float) -> dict[str, Any] | None:
        """What the plugin has answered, or what is wrong with it; None as long as neither is known."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        try:
            answer = self._listen() if ready or ended else None
        except (ValueError, TypeError, RecursionError):
            answer = self._fault("gave an answer that cannot be read")
        if answer is not None:
            return answer
        if ended:
            return self._fault(_how(os.waitstatus_to_exitcode(status)))
        taken = self.taken_s
        if taken - crowded_out_s(self.plugin or self.pid) > seconds or taken > BUSY * seconds:
            return self._fault(f"took longer than {seconds:g} s") | {"slow": True}
        if resident_bytes(self.plugin or self.pid) > memory_bytes:
            return self._fault(f"took more than {memory_bytes / 1e9:g} GB of memory")
        return None

    def end(self) -> None:
        """The end of the child and of all that is in its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self.pipe)

    def _listen(self) -> dict[str, Any] | None:
        while self.open and select.select([self.pipe], [], [], 0)[0]:
            data = os.read(self.pipe, READ_BYTES)
            self.open = bool(data)
            *lines, self.said = (self.said + data).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if "answer" in event:
                    return dict(event["answer"])
                if "ended" in event:
                    return self._fault(_how(int(event["ended"])))
                self.plugin = int(event.get("plugin", self.plugin))
                self.doing = str(event.get("doing", self.doing))
            if len(self.said) > ANSWER_BYTES:
                return self._fault(f"said more than {ANSWER_BYTES >> 20} MB")
        return None

    def _fault(self, what: str) -> dict[str, Any]:
        return {"fault": f"{what} while {self.doing}"}


def _how(code: int) -> str:
    return killed_by(code) or f"exited with code {code}"


def _tend(task: Mapping[str, Any], write: int) -> NoReturn:
    """In the child: have the task done in a child of its own, and say how that ended."""
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(1, 0)  # which leads nowhere already
        pid = os.fork()
        if pid == 0:
            _do(task, write)
        _say(write, plugin=pid)
        _say(write, ended=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        os._exit(0)


def _do(task: Mapping[str, Any], write: int) -> NoReturn:
    """In the child's child: ask the plugin. What it leaves to be done at exit is not done."""
    leave = os._exit
    try:
        _say(write, answer=_answer(task, lambda doing: _say(write, doing=doing)))
    except BaseException as error:
        try:
            _say(write, answer={"fault": f"cannot be described: {one_line(error)}"})
        finally:
            leave(1)
    leave(0)


def _say(write: int, **event: Any) -> None:
    data = json.dumps(event).encode("ascii") + b"\n"
    while data:
        data = data[os.write(write, data) :]


def _answer(task: Mapping[str, Any], begin: Callable[[str], None]) -> dict[str, Any]:
    entry = Entry(**task["entry"])
    before = traces.state()
    try:
        records = announce(entry, begin)
    except SolverError as error:
        return {"fault": str(error)}
    if "solver" not in task:
        told = {
            what: [to_data(record, kind) for record in records if isinstance(record, kind)]
            for what, kind in KINDS.items()
        }
        return {**told, "traces": traces.left(before, entry.value)}
    record = next((r for r in records if isinstance(r, SolverRecord) and r.name == task["solver"]), None)
    if record is None:
        return {"fault": "is no longer announced"}
    begin(f"{record.solver} was imported")
    try:
        found = classes.describe(entry.supplies(record), task["options"])
    except FpmError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"options": found.options, "presets": found.presets, "resumable": found.resumable}
