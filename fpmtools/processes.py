"""A program in a process of its own: watched for time and memory, and ended with all that it started."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

LOOK_EVERY_S = 0.05
PATIENCE = 2  # Ctrl-C this often is passed on; once more, and the program is killed
GRACE_S = 20.0  # that a program has to leave after SIGTERM
LISTING_S = 120.0  # that plugins may take to say what they offer
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
        if self.code >= 0:
            return ""
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = str(-self.code)
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

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


def ask(words: Sequence[str]) -> tuple[list[dict[str, Any]], Ending]:
    """What :mod:`fpmtools.comparison.inquiry` with these words tells of the plugins: its events, and how it ended.

    Raises :class:`KeyboardInterrupt` on Ctrl-C: nothing is lost yet.
    """
    events: list[dict[str, Any]] = []
    command = [sys.executable, "-m", "fpmtools.comparison.inquiry", *words]
    ending = watch(command, lambda line: events.append(parse_event(line)), Patience(LISTING_S))
    if ending.interrupted:
        raise KeyboardInterrupt
    return events, ending


def parse_event(line: str) -> dict[str, Any]:
    """A line that is an event in JSON, or any other line as it is."""
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
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def pass_on(number: int, frame: Any) -> None:
        caught.numbers.append(number)
        if number != signal.SIGINT:
            caught.killed_at = time.monotonic() + GRACE_S
        process.send_signal(number if caught.numbers.count(number) <= PATIENCE else signal.SIGKILL)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ignored = (signal.SIG_IGN, None)
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) not in ignored}
    for number in before:
        signal.signal(number, pass_on)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
