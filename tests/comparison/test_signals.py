"""Comparisons that are ended from outside: what they leave, and going on afterwards."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fpmtools
from fpmtools.cli import main
from fpmtools.dataset import Dataset
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster
from fpmtools.simulation import simulate

SLOW_AP = "ap:sweeps=500:join_below=0:halve_below=0"
RESULT = "reconstruction.safetensors"
pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    na = direction_sines(raster(3, 3, 9.0), 74.0)
    dataset: Dataset = simulate("tilted", image_shape=(17, 22), leds=na, tilt_um=2.0)
    return native.save(dataset, tmp_path_factory.mktemp("data") / "small.safetensors")


def words(data_file: Path, out: Path, *more: str) -> list[str]:
    arguments = ["--data", str(data_file), "--z=-1,1", "--threads", "1", "--no-tracking", "--out", str(out)]
    return ["compare", "--solvers", f"{SLOW_AP},ap:sweeps=1", *arguments, *more]


def wait_for(there: Callable[[], bool]) -> bool:
    begun = time.monotonic()
    while not there() and time.monotonic() - begun < 120:
        time.sleep(0.02)
    return there()


def workers_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid_of, _, rest = stat.read_text().partition(" (")
            words = rest.rpartition(")")[2].split()
            if int(words[1]) == pid and words[0] != "Z":
                found.append(int(pid_of))
        except OSError:
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def whole(warm_workers: Callable[..., Any], data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(words(data_file, out)) == 0
    return out


def as_whole(out: Path, whole: Path) -> None:
    for folder in (SLOW_AP.replace(":", "_"), "ap_sweeps=1"):
        assert (out / folder / RESULT).read_bytes() == (whole / folder / RESULT).read_bytes()
    assert not [path for path in out.rglob("*") if path.suffix == ".part"]
    assert {path.relative_to(out) for path in out.rglob("*")} == {path.relative_to(whole) for path in whole.rglob("*")}


@pytest.mark.slow
def test_a_comparison_that_is_ended_and_then_killed_comes_to_the_same_end(
    data_file: Path, whole: Path, tmp_path: Path, forked: Callable[..., Any]
) -> None:
    """SIGTERM keeps a checkpoint and says so; kill −9 leaves no worker; each resume goes on from what is there."""
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    with forked(words(data_file, out, "--progress", "json"), environment={"TMPDIR": str(temporary)}) as process:
        assert any(b'"progress"' in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert not list(temporary.iterdir()), "compare leaves data in TMPDIR"
    first, second = json.loads((out / "results.json").read_text())["rows"]
    assert (first["status"], first["reason"]) == ("interrupted", "ended by SIGTERM; it can be resumed")
    assert (second["status"], second["reason"]) == ("skipped", "interrupted before its turn")
    place = out / SLOW_AP.replace(":", "_")
    assert {path.name for path in place.iterdir()} == {"run.json", "run.log", "checkpoint.safetensors"}
    assert json.loads((place / "run.json").read_text())["status"] == "running"

    workers: list[int] = []
    with forked(words(data_file, out, "--resume")) as process:
        assert wait_for(lambda: bool(workers.extend(workers_of(process.pid)) or workers))
        process.send_signal(signal.SIGKILL)
    assert wait_for(lambda: not any(map(alive, workers)))

    assert main(words(data_file, out, "--resume")) == 0
    history = json.loads((place / "run.json").read_text())["history"]
    assert history == sorted(history)
    as_whole(out, whole)


@pytest.fixture(scope="module")
def seconds(
    data_file: Path, whole: Path, forked: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> float:
    """What an uninterrupted comparison takes as a process of its own."""
    begun = time.monotonic()
    with forked(words(data_file, tmp_path_factory.mktemp("timed") / "out")) as process:
        process.communicate()
    return time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_signal_at_a_random_moment(
    how: str,
    draw: int,
    data_file: Path,
    whole: Path,
    seconds: float,
    tmp_path: Path,
    forked: Callable[..., Any],
) -> None:
    out = tmp_path / "out"
    with forked(words(data_file, out)) as process:
        time.sleep(seconds * random.Random(f"{how} {draw}").random())
        workers = workers_of(process.pid)
        process.send_signal(getattr(signal, how))
        process.communicate(timeout=120)
    assert wait_for(lambda: not any(map(alive, workers)))
    assert main(words(data_file, out, *(["--resume"] if out.exists() else []))) == 0
    as_whole(out, whole)


@pytest.mark.slow
def test_a_disk_that_becomes_full_at_a_random_moment(
    draw: int, data_file: Path, whole: Path, disk: Callable[[int], Any], forked: Callable[..., Any]
) -> None:
    """It has room for some of what the comparison writes: that goes on once there is more."""
    most = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    full = disk(random.Random(f"full {draw}").randrange(4096, 2 * most))
    out = full.path / "out"
    with forked(words(data_file, out)) as process:
        said = process.communicate(timeout=300)[1].decode()
    assert process.returncode in (0, 1, 5), said
    assert process.returncode == 0 or "cannot write" in said, said
    full.grow()
    assert main(words(data_file, out, *(["--resume"] if out.exists() else []))) == 0
    as_whole(out, whole)


@pytest.mark.slow
def test_a_comparison_without_a_folder_leaves_nothing(
    data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its temporary folder goes with it, also on SIGTERM."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = fpmtools.compare(data_file, ["ap:sweeps=1"], z_um=0.0, threads=1, track=False)
    assert (found.rows[0]["status"], len(found.reconstructions["ap:sweeps=1"].field())) == ("done", 34)
    del found
    gc.collect()
    assert not list(tmp_path.iterdir())
    code = (
        "import sys, fpmtools\n"
        "fpmtools.compare(sys.argv[1], ['ap:sweeps=100000000:join_below=0'], z_um=0.0, threads=1, track=False)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code, str(data_file)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        assert wait_for(lambda: "resolved" in "".join(p.read_text() for p in tmp_path.glob("*/*/run.json")))
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == -signal.SIGTERM
    assert not list(tmp_path.iterdir())
