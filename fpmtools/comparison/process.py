"""A program in a process of its own: watched for time and memory, and ended with all that it started."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal

LOOK_EVERY_S = 0.05
PATIENCE = 2  # Ctrl-C this often is passed on; once more, and the program is killed


@dataclass(frozen=True)
class Ending:
    """How a program ended: its exit code (negative: by that signal), who ended it, and its last line on stderr."""

    code: int
    by: Literal["itself", "time limit", "memory limit"]
    last_line: str

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
    passed on and waited for; the third one kills.
    """
    patience = patience or Patience()
    with _started(command) as process:
        assert process.stderr is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(process.stderr, lines), daemon=True)
        reader.start()
        begun, heard = time.monotonic(), math.inf
        by: Literal["itself", "time limit", "memory limit"] = "itself"
        last, interrupts = "", 0
        while process.poll() is None:
            try:
                if found := _pass_on(lines, on_line, LOOK_EVERY_S):
                    last, heard = found, time.monotonic()
                now = time.monotonic()
                if now - begun > (patience.total_s or math.inf) or now - heard > (patience.silent_s or math.inf):
                    by = "time limit"
                elif memory_bytes is not None and resident_bytes(process.pid) > memory_bytes:
                    by = "memory limit"
                if by != "itself":
                    break
            except KeyboardInterrupt:
                interrupts += 1
                process.send_signal(signal.SIGINT if interrupts <= PATIENCE else signal.SIGKILL)
        _kill_all(process)
        reader.join(timeout=1)
        last = _pass_on(lines, on_line, 0) or last
    return Ending(process.returncode, by, last)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it has ended or the system does not tell."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    # In a session of its own the terminal's Ctrl-C does not reach it directly; it would arrive twice otherwise.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            _kill_all(process)


def _kill_all(process: subprocess.Popen[str]) -> None:
    """The process and what it has started; its session is its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    with contextlib.suppress(ValueError):  # closed under it: something the program started still holds the pipe
        for line in stream:
            lines.put(line.rstrip("\n"))


def _pass_on(lines: queue.SimpleQueue[str], on_line: Callable[[str], None], wait_s: float) -> str:
    """Hand on the lines that are there, or the first within ``wait_s``; the last that is not empty."""
    last = ""
    with contextlib.suppress(queue.Empty):
        line = lines.get(timeout=wait_s) if wait_s else lines.get_nowait()
        while True:
            last = line.strip() or last
            on_line(line)
            line = lines.get_nowait()
    return last
