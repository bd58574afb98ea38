"""A program in a process of its own: watched for time and memory, and ended with all that it started."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from fpmtools.interrupts import TERMINATING, handled

LOOK_EVERY_S = 0.05
PATIENCE = 2  # Ctrl-C this often is passed on; once more, and the program is killed
GRACE_S = 20.0  # that a program has to leave after SIGTERM
READ_BYTES = 1 << 14  # between two looks; the program waits while no more is read
PIPE_BYTES = 1 << 20  # at most, that are still in a pipe when its writer has ended
LINE_LIMIT = 1 << 16  # characters; a line that is longer is handed on in pieces
REASON_LIMIT = 1000  # characters


@dataclass(frozen=True)
class Ending:
    """How a program ended: its exit code (negative: by that signal), who ended it, and its last line on stderr.

    ``signal``: the first of Ctrl-C, SIGTERM and SIGHUP that reached this process meanwhile, whatever the program made
    of it; 0 where none did.
    """

    code: int
    by: Literal["itself", "time limit", "memory limit"]
    last_line: str
    signal: int = 0

    @property
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C."""
        return self.signal == signal.SIGINT

    @property
    def killed_by(self) -> str:
        """The signal that ended it, in words; empty where it was none."""
        return killed_by(self.code)

    @property
    def last_words(self) -> str:
        """Its last line, where that may say why it ended: not an event, nor a warning."""
        line = str(parse_event(self.last_line).get("text", ""))
        return "" if line.startswith("warning: ") else line.removeprefix("error: ")[:REASON_LIMIT]


@dataclass
class Patience:
    """How long is waited for a program: all in all, and for its next line once it has written one; None: for ever."""

    total_s: float | None = None
    silent_s: float | None = None


def watch(
    command: Sequence[str],
    on_line: Callable[[str], None],
    patience: Patience | None = None,
    memory_bytes: float | None = None,
) -> Ending:
    """Run ``command`` to its end, or until ``patience`` with it ends, or it takes more than ``memory_bytes``.

    ``on_line`` is called with every line on its stderr, and may change ``patience``; its stdout is dropped. The memory
    is that resident for the process itself, looked at twenty times a second, where the system tells (Linux). Ctrl-C is
    passed on and waited for; the third one kills. SIGTERM and SIGHUP are too, for :data:`GRACE_S` seconds.
    """
    patience = patience or Patience()
    with _started(command) as process, _signals_passed_on(process) as caught:
        assert process.stderr is not None
        said = _Lines(process.stderr.fileno(), on_line)
        begun, heard = time.monotonic(), math.inf
        by: Literal["itself", "time limit", "memory limit"] = "itself"
        while process.poll() is None and by == "itself":
            if said.take(LOOK_EVERY_S):
                heard = time.monotonic()
            now = time.monotonic()
            if now - begun > (patience.total_s or math.inf) or now - heard > (patience.silent_s or math.inf):
                by = "time limit"
            elif memory_bytes is not None and resident_bytes(process.pid) > memory_bytes:
                by = "memory limit"
            if caught.killed_at is not None and now > caught.killed_at:
                process.kill()
        _kill_all(process)
        said.take_rest()
    return Ending(process.returncode, by, said.last, caught.numbers[0] if caught.numbers else 0)


@contextmanager
def private_stdout() -> Iterator[TextIO]:
    """Stdout for the caller alone: what others print meanwhile, in any thread and below Python too, goes to stderr.

    For commands, around all that may run a plugin; a result that must not wait is written to what this yields.
    Descriptor 1 is turned to stderr and back, so it is for one caller at a time. Where ``sys.stdout`` does not write
    to descriptor 1, as in a notebook, nothing is turned.
    """
    try:
        sys.stdout.flush()
        turned = sys.stdout.fileno() == 1
        kept = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 10) if turned else -1  # not 2, where that is free
    except (AttributeError, OSError, ValueError):
        turned = False
    if not turned:
        yield sys.stdout
        return
    try:
        os.dup2(2, 1)
    except OSError:  # stderr is closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with open(kept, "w", encoding="utf-8", errors="surrogateescape", closefd=True) as private:
        try:
            yield private
        finally:
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stdout.flush()  # what a plugin has printed
            private.flush()
            os.dup2(private.fileno(), 1)


def killed_by(code: int) -> str:
    """The signal that ended a program with that exit code, in words; empty where it was none."""
    if code >= 0:
        return ""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def parse_event(line: str) -> dict[str, Any]:
    """An event in a line of JSON, or any other line as it is."""
    try:
        event = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        event = None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else {"event": "line", "text": line}


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it has ended or the system does not tell."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def crowded_out_s(pid: int) -> float:
    """Seconds in which a process could have run but others had the processors; 0 where the system does not tell."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[1]) / 1e9
    return 0.0


def keep_torch_alone() -> None:
    """For processes of fpmtools' own, before torch is imported, unless the environment says otherwise.

    PyTorch would read every package's entry points, of which one may be damaged, and import its back ends.
    """
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    # In a session of its own the terminal's Ctrl-C does not reach it directly; it would arrive twice otherwise.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            _kill_all(process)


@dataclass
class _Caught:
    """Signals that have arrived, and when the program is killed for not having left."""

    numbers: list[int]
    killed_at: float | None = None


@contextmanager
def _signals_passed_on(process: subprocess.Popen[bytes]) -> Iterator[_Caught]:
    """Ctrl-C, SIGTERM and SIGHUP that arrive meanwhile are the program's; only the main thread gets any."""
    caught = _Caught([])

    def pass_on(number: int, usual: Any) -> None:
        caught.numbers.append(number)
        if number != signal.SIGINT:
            caught.killed_at = time.monotonic() + GRACE_S
        process.send_signal(number if caught.numbers.count(number) <= PATIENCE else signal.SIGKILL)

    with handled((signal.SIGINT, *TERMINATING), pass_on):
        yield caught


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """The process and what it has started; its session is its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Lines:
    """The lines that arrive in a pipe, handed on to ``on_line``; ``last`` is the last that is not empty."""

    def __init__(self, pipe: int, on_line: Callable[[str], None]) -> None:
        self.last = ""
        self._pipe, self._on_line = pipe, on_line
        self._decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
        self._begun = ""
        self._open = True

    def take(self, wait_s: float) -> bool:
        """Hand on what is there or comes within ``wait_s``, but not without end; whether there was a line."""
        if not self._open:
            time.sleep(wait_s)
            return False
        if not self._ready(wait_s):
            return False
        data = os.read(self._pipe, READ_BYTES)
        self._open = bool(data)
        *lines, self._begun = (self._begun + self._decoder.decode(data, final=not data)).split("\n")
        if len(self._begun) >= LINE_LIMIT:
            lines, self._begun = [*lines, self._begun], ""
        return self._hand_on(lines)

    def take_rest(self) -> None:
        """Hand on what a program that has ended left; what it started, in a session of its own, may still write."""
        for _ in range(PIPE_BYTES // READ_BYTES):
            if self._open and self._ready(0):
                self.take(0)
        self._hand_on([self._begun] if self._begun else [])

    def _ready(self, wait_s: float) -> bool:
        return bool(select.select([self._pipe], [], [], wait_s)[0])

    def _hand_on(self, lines: Sequence[str]) -> bool:
        for line in lines:
            self.last = line.strip() or self.last
            self._on_line(line)
        return bool(lines)
