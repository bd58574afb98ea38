"""The command as a process: what it imports, signals, terminals, pipes, full disks."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fpmtools as package
from fpmtools import storage

Fpmtools = Callable[..., "subprocess.CompletedProcess[str]"]
ENDLESS = ["--solver", "ap", "-o", "sweeps=1000000", "-o", "join_below=0"]
COMMAND = [sys.executable, "-m", "fpmtools"]


def test_help_is_cheap(environment: dict[str, str]) -> None:
    code = (
        "import sys; from fpmtools.cli import main; assert main(['--help']) == main([]) == main(['run', '-h']) == 0;"
        "print(sorted({'torch', 'numpy', 'scipy', 'matplotlib', 'pandas', 'skimage'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    for command in (
        "run",
        "inspect",
        "calibrate",
        "compare",
        "render",
        "evaluate",
        "solvers",
        "data",
        "simulate",
        "doctor",
    ):
        assert f"\n  {command} " in run.stdout


def test_mistake_in_a_process(fpmtools: Fpmtools) -> None:
    done = fpmtools("rum", "--solver", "inr")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown command 'rum': did you mean 'run'?\n"


def test_reader_of_stdout_may_leave(environment: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "--help"], env=environment, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.stderr == b""


def drain(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # the last writer has gone
        while os.read(descriptor, 4096):
            pass


def test_interrupt_keeps_the_result_and_resume_continues(
    data_file: Path, tmp_path: Path, forked: Callable[..., Any]
) -> None:
    """On a terminal (a real one, of the pseudo kind): a bar, Ctrl-C, files, exit 130; then the run is continued."""
    master, terminal = pty.openpty()
    folder = tmp_path / "out"
    arguments = ["run", "--data", str(data_file), *ENDLESS, "--z", "-1:1:3", "--out", str(folder)]
    colourless = {"TERM": "xterm", "NO_COLOR": "1"}
    with forked([*arguments, "--json"], environment=colourless, stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while b"loss" not in shown:
            shown += os.read(master, 4096)
        process.send_signal(signal.SIGINT)
        # A terminal that nobody reads would stop who writes to it.
        reader = threading.Thread(target=drain, args=(master,), daemon=True)
        reader.start()
        record = json.loads(process.stdout.read())
    reader.join(10)
    os.close(master)
    assert process.returncode == 130
    assert "░".encode() in shown
    assert b"\033[36m" not in shown  # NO_COLOR is set
    assert record["status"] == "interrupted"
    assert json.loads((folder / "run.json").read_text())["steps"] == record["steps"] > 0
    assert package.open_result(folder).field(0.3).shape == (34, 44)
    storage.read_tensors(folder / "checkpoint.safetensors", "checkpoint")

    budget = record["times"]["solve_s"] + 0.3
    with forked([*arguments, "--resume", "--json", "--budget", budget], stdout=subprocess.PIPE) as resumed:
        printed, said = resumed.communicate()
    assert resumed.returncode == 0, said
    continued = json.loads(printed)
    assert continued["status"] == "stopped"
    assert continued["steps"] > record["steps"]
    assert continued["times"]["solve_s"] >= budget


def test_interrupted_rendering_keeps_what_was_there(finished: Path, tmp_path: Path, forked: Callable[..., Any]) -> None:
    """It says how far it is; Ctrl-C ends it with an older file as it was, and nothing else."""
    out = tmp_path / "a.npz"
    out.write_text("old")
    words = ["render", finished, "--z", "-2:2:100000", "--shape", "128,128", "--out", out, "--force"]
    with forked(words, stdout=subprocess.PIPE) as process:
        said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        printed, rest = process.communicate()
    assert (process.returncode, printed) == (130, b"")
    assert re.fullmatch(rb"a\.npz  plane \d+/100000  \d\.\d s, .+ left\n", said)
    assert rest.endswith(b"interrupted\n")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir() if path.suffix in (".npz", ".part")] == [
        ("a.npz", "old")
    ]


def test_full_disk(data_file: Path, tmp_path: Path, forked: Callable[..., Any]) -> None:
    """A limit on file sizes stands for a full disk: exit 5, one line, no half-written file, and what was
    complete by then, the record and the reconstruction, stays."""
    folder = tmp_path / "out"
    words = ["run", "--data", data_file, "--solver", "ap", "-o", "sweeps=1", "--z", "0", "--quiet", "--out", folder]
    with forked(words, stdout=subprocess.PIPE, file_bytes=7 << 10) as done:
        printed, said = done.communicate()
    lines = [line for line in said.splitlines() if not line.startswith(b"warning: ")]
    assert (done.returncode, printed, len(lines)) == (5, b"", 1), said
    assert b"cannot write" in lines[0]
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]
    assert package.open_result(folder).field().shape == (34, 44)
    assert json.loads((folder / "run.json").read_text())["status"] == "running"


def test_a_folder_whose_name_is_not_utf8(data_file: Path, tmp_path: Path, forked: Callable[..., Any]) -> None:
    folder = os.fsencode(tmp_path) + b"/na\xefve"
    words = ["run", "--data", data_file, "--solver", "ap", "-o", "sweeps=1", "--z", "0", "-q"]
    with forked([*words, "--out", os.fsdecode(folder)], stdout=subprocess.PIPE) as done:
        printed, said = done.communicate()
    assert (done.returncode, said.count(b"\n")) == (0, said.count(b"warning: ")), said
    assert printed.startswith(b"ap on ")
    assert os.path.isfile(folder + b"/reconstruction.safetensors")
