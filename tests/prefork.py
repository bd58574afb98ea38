"""Real processes of the command that are forked from one which has made its imports.

Most of a short command's time is the import of torch. What such a process does, and how it ends, is what
``python -m fpmtools`` does and how it ends; only moments before the imports are done are not to be had. The same goes
for the workers of a comparison, ``python -m fpmtools.runs.worker``.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

READY = b"."
OWN = (
    "cli.compare", "cli.run", "calibrate.inspection", "engine", "formats", "report.pictures", "runs.measuring",
    "runs.worker",
)  # fmt: skip
IMPORTED = (*(f"fpmtools.{name}" for name in OWN), "matplotlib.backends.backend_agg", "skimage.metrics", "tifffile")


class Forked:
    """A process of the command, used as a :class:`subprocess.Popen`.

    ``stdout``, ``stderr``: DEVNULL, PIPE or a descriptor. ``environment``: what is changed in it. ``file_bytes``: no
    file may become larger. ``module``: instead of the command, its ``main(words)`` in the working directory of now, and
    in a process group of its own.
    """

    def __init__(
        self,
        server: Path,
        words: Sequence[str],
        *,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
        file_bytes: int | None = None,
        module: str = "",
    ) -> None:
        self.returncode: int | None = None
        self.stdout: Any = None  # what can be read of it, where it is a PIPE
        self.stderr: Any = None
        request = {"words": [*map(str, words)], "environment": dict(environment or {}), "file_bytes": file_bytes}
        request |= {"module": module, "folder": os.getcwd() if module else ""}
        nowhere = os.open(os.devnull, os.O_RDWR)
        streams = [nowhere]
        for name, stream in (("stdout", stdout), ("stderr", stderr)):
            if stream == subprocess.PIPE:
                read, stream = os.pipe()
                setattr(self, name, os.fdopen(read, "rb"))
            streams.append(nowhere if stream == subprocess.DEVNULL else stream)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(server))
        socket.send_fds(self._server, [json.dumps(request).encode()], streams)
        for descriptor in set(streams) - {stdout, stderr}:
            os.close(descriptor)
        self.pid = self._number()

    def _number(self) -> int:
        return int.from_bytes(self._server.recv(8), signed=True)

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        try:
            return self.wait(1e-3)
        except TimeoutError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; TimeoutError."""
        if self.returncode is None:
            self._server.settimeout(timeout)
            self.returncode = self._number()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """All that it prints and says, which is little, and its end."""
        said = self.stderr.read() if self.stderr else b""
        printed = self.stdout.read() if self.stdout else b""
        self.wait(timeout)
        return printed, said

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        if error[0] is not None:
            self.send_signal(signal.SIGKILL)
        self.wait()
        self._server.close()


@contextmanager
def worker(server: Path, command: Sequence[str]) -> Iterator[Forked]:
    """For ``fpmtools.processes``, which starts ``command``: the worker of a comparison, that is not to die with it."""
    from fpmtools import processes

    python, option, module, file, _ = command
    assert (python, option, module) == (sys.executable, "-m", "fpmtools.runs.worker")
    with Forked(server, [file], environment=os.environ, module=module) as process:
        try:
            yield process
        finally:
            processes._kill_all(process)  # type: ignore[arg-type]


def serve(path: str) -> None:
    """Fork processes as they are asked for at ``path``."""
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        os.write(1, READY)
        while True:
            asked, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                attend(asked)
            asked.close()


def attend(asked: socket.socket) -> None:
    """Fork one process, tell its number, and when it has ended its exit code."""
    message, descriptors, _, _ = socket.recv_fds(asked, 1 << 18, 3)
    request = json.loads(message)
    pid = os.fork()
    if pid == 0:
        begin(request, descriptors)
    if request["module"]:
        os.setpgid(pid, pid)
    for descriptor in descriptors:
        os.close(descriptor)
    asked.send(pid.to_bytes(8, signed=True))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    asked.send(code.to_bytes(8, signed=True))
    os._exit(0)


def begin(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Be the process."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    if request["file_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
    if request["module"]:
        os.chdir(request["folder"])
        sys.path[:0] = filter(None, request["environment"].get("PYTHONPATH", "").split(os.pathsep))
        importlib.invalidate_caches()
        os._exit(importlib.import_module(request["module"]).main(request["words"]))
    from fpmtools.cli import main

    sys.argv = ["fpmtools", *request["words"]]
    sys.exit(main())


if __name__ == "__main__":
    serve(sys.argv[1])
