"""A run that is ended at any moment, in any way, comes to the same end when it is resumed."""

from __future__ import annotations

import functools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpmtools.cli import main
from fpmtools.runs.folder import RunFolder

SOLVERS = {
    "ap": ["--solver", "ap", "-o", "sweeps=150", "-o", "join_below=0", "-o", "halve_below=0"],
    "adam": ["--solver", "adam", "-o", "sweeps=60"],
    "inr": ["--solver", "inr", "-o", "steps=60", "-o", "features=8"],
}
RESULT = "reconstruction.safetensors"
Start = Callable[..., Any]


def command(data_file: Path, solver: str, folder: Path) -> list[str]:
    arguments = ["--data", str(data_file), *SOLVERS[solver], "--z=-1:1:3", "--threads", "1", "--quiet"]
    return ["run", *arguments, "--out", str(folder)]


@pytest.fixture
def start(data_file: Path, forked: Start) -> Start:
    """``start(solver, folder)``: the command as a process of its own."""
    return lambda solver, folder, **more: forked(command(data_file, solver, folder), **more)


@pytest.fixture(scope="module")
def whole(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run of a solver."""

    @functools.cache
    def run(solver: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / solver
        assert main(command(data_file, solver, folder)) == 0
        return folder

    return run


def resume(folder: Path) -> int:
    return main(["run", "--resume", str(folder), "--quiet"])


def ends_as(folder: Path, whole: Path) -> None:
    """Resumed, the run in ``folder`` is in the end as the one in ``whole``, and nothing else is left."""
    assert resume(folder) == 0
    document = json.loads((folder / "run.json").read_text())
    assert document["status"] == "done"
    assert document["history"][-1][0] == document["steps"]
    assert (folder / RESULT).read_bytes() == (whole / RESULT).read_bytes()
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    for name in ("amplitude.tiff", "phase.tiff"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    numbers = json.loads((whole / "run.json").read_text())["metrics"]
    assert document["metrics"] == pytest.approx(numbers)


def wait_for(there: Callable[[], bool], process: Any, timeout_s: float = 120.0) -> None:
    begun = time.monotonic()
    while not there() and process.poll() is None and time.monotonic() - begun < timeout_s:
        time.sleep(0.01)
    assert there(), process.stderr and process.stderr.read()


def solving(folder: Path) -> Callable[[], bool]:
    return lambda: (folder / "run.json").is_file() and "resolved" in json.loads((folder / "run.json").read_text())


def solved(folder: Path) -> Callable[[], bool]:
    return lambda: (folder / "run.json").is_file() and "solved" in json.loads((folder / "run.json").read_text())


def drawing(folder: Path) -> Callable[[], bool]:
    return lambda: (folder / "amplitude.tiff").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGKILL, solving),
        (signal.SIGKILL, solved),
        (signal.SIGKILL, drawing),
        (signal.SIGTERM, drawing),
        (signal.SIGINT, solving),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_run_that_is_ended(
    number: signal.Signals,
    moment: Callable[[Path], Callable[[], bool]],
    start: Start,
    whole: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """While it solves, measures or draws: it says how, and is resumed to the same bytes."""
    folder = tmp_path / "run"
    with start("ap", folder) as process:
        wait_for(moment(folder), process)
        process.send_signal(number)
        process.wait(60)
    if number != signal.SIGINT:
        assert process.returncode in (-number, 128 + number, 0)
    else:
        assert process.returncode in (130, 0)
    ends_as(folder, whole("ap"))


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_draws_nothing(data_file: Path, forked: Start, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with forked([*command(data_file, "ap", folder), "-o", "sweeps=1000000"]) as process:
        wait_for(solving(folder), process)
        time.sleep(0.3)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode in (143, -15), said
    if process.returncode == 143:
        assert "ended by SIGTERM after step" in said
        assert {path.name for path in folder.iterdir()} == {"run.json", "run.log", "checkpoint.safetensors"}
    assert time.monotonic() - begun < 20
    assert json.loads((folder / "run.json").read_text())["status"] == "running"


@pytest.fixture(scope="module")
def seconds(
    whole: Callable[[str], Path], data_file: Path, forked: Start, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], float]:
    """``seconds(solver)``: what an uninterrupted run takes as a process of its own."""

    @functools.cache
    def measure(solver: str) -> float:
        begun = time.monotonic()
        with forked(command(data_file, solver, tmp_path_factory.mktemp("timed") / solver)) as process:
            process.wait()
        return time.monotonic() - begun

    return measure


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_signal_at_a_random_moment(
    how: str,
    solver: str,
    draw: int,
    start: Start,
    whole: Callable[[str], Path],
    seconds: Callable[[str], float],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    with start(solver, folder) as process:
        time.sleep(seconds(solver) * random.Random(f"{how} {solver} {draw}").random())
        process.send_signal(getattr(signal, how))
        process.wait(120)
    if folder.exists():
        ends_as(folder, whole(solver))
    assert {path.name for path in tmp_path.iterdir()} <= {"run"}


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_disk_that_becomes_full_at_a_random_moment(
    solver: str, draw: int, start: Start, whole: Callable[[str], Path], disk: Callable[[int], Any]
) -> None:
    """It has room for some of what the run writes: that goes on once there is more."""
    most = sum(path.stat().st_size for path in whole(solver).iterdir())
    full = disk(random.Random(f"{solver} {draw}").randrange(4096, 2 * most))
    folder = full.path / "run"
    with start(solver, folder) as process:
        said = process.communicate(timeout=300)[1].decode()
    assert process.returncode in (0, 5), said
    if process.returncode == 5:
        assert said.splitlines()[-1].startswith("error: cannot write"), said
        assert "No space left on device" in said or "the disk may be full" in said
    assert not list(full.path.rglob("*.part"))
    full.grow()
    if folder.exists():
        ends_as(folder, whole(solver))
    assert {path.name for path in full.path.iterdir()} <= {"run"}


@pytest.mark.slow
def test_kill_9_while_it_still_imports(data_file: Path, whole: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [sys.executable, "-m", "fpmtools", *command(data_file, "ap", folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        time.sleep(0.3)
        process.kill()
    if folder.exists():
        ends_as(folder, whole("ap"))


def full_at(size: int, solver: str, folder: Path, start: Start) -> None:
    """A run none of whose files may be larger than ``size``: writing fails as on a full disk."""
    with start(solver, folder, file_bytes=size) as process:
        said = process.communicate(timeout=300)[1].decode()
    assert process.returncode in (0, 5), said
    if process.returncode == 5:
        assert said.splitlines()[-1].startswith("error: cannot write"), said
        assert not folder.exists() or not list(folder.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 3_000, 9_000])
def test_disk_full_at_any_write(size: int, start: Start, whole: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    full_at(size, "ap", folder, start)
    if folder.exists():
        ends_as(folder, whole("ap"))
    else:
        assert size == 100, "only where not even the first file could be written"


@pytest.mark.parametrize("spoil", ["flipped", "empty", "gone"])
def test_resuming_a_finished_run_looks_at_its_result(
    spoil: str, whole: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result that is not sound is solved again, and that is said."""
    folder = Path(shutil.copytree(whole("ap"), tmp_path / "run"))
    content = (folder / RESULT).read_bytes()
    if spoil == "gone":
        (folder / RESULT).unlink()
    else:
        (folder / RESULT).write_bytes(content[:-9] + b"!" + content[-8:] if spoil == "flipped" else b"")
    capsys.readouterr()
    assert resume(folder) == 0
    assert "it is solved again" in capsys.readouterr().err
    assert (folder / RESULT).read_bytes() == content
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert resume(folder) == 0
    assert capsys.readouterr().err == ""
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.slow
def test_several_stops_in_a_row(start: Start, forked: Start, whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Each resume is stopped as well, a little later each time: while it solves, and once it has a result."""
    folder = tmp_path / "run"
    with start("adam", folder) as process:
        wait_for(solving(folder), process)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    for event in ("progress", "measuring"):
        with forked(["run", "--resume", folder, "--progress", "json"]) as process:
            assert any(f'"{event}"'.encode() in line for line in process.stderr)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode in (143, -15)
    ends_as(folder, whole("adam"))
    RunFolder.reopen(folder).close()
