"""Tiles solved by dask: the same bytes whoever solves them and whatever dies, and who cannot solve them is refused."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fpmtools
from fpmtools import registry
from fpmtools.cli import main
from fpmtools.errors import ClusterError, OptionError
from fpmtools.formats import native
from fpmtools.registry.entries import entries
from fpmtools.runs.folder import CHECKPOINT_FILE, RESULT_FILE, RunFolder, sha256
from fpmtools.runs.spec import RunSpec
from fpmtools.tiling.running import carry_on

distributed = pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")  # which it needs

from fpmtools.tiling import cluster  # noqa: E402

WORDS = ["--tiles", "48", "--overlap", "16", "--solver", "ap", "-o", "sweeps=3", "--margin", "8", "--trust-leds"]
WORDS += ["--calibrate", "none", "--threads", "1", "--quiet"]


def files(folder: Path) -> dict[str, str]:
    """Checksums of all results below a folder, and of what was calibrated."""
    return {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*.safetensors"))}


def children(process: Any, word: str = "") -> list[Any]:
    """All below a process that have this in their command; Python's own helper stays until its end."""
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = " ".join(child.cmdline())
            if word in command and "resource_tracker" not in command:
                found.append(child)
    return found


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go meanwhile."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


class Dask:
    """A scheduler in a process, and workers in others."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        words = ("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", ":0")
        self.scheduler = self._start("dask", *words, "--scheduler-file", str(self.file))
        self.workers: list[subprocess.Popen[bytes]] = []
        until = time.monotonic() + 60
        while not self.file.is_file() and time.monotonic() < until:
            time.sleep(0.05)

    def work(self, *path: Path) -> subprocess.Popen[bytes]:
        """One more worker, which finds packages in ``path`` before all others."""
        words = ("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
        self.workers.append(self._start("dask", *words, "--scheduler-file", str(self.file), env=environment))
        self.wait_for(len([w for w in self.workers if w.poll() is None]))
        return self.workers[-1]

    def wait_for(self, count: int) -> None:
        """Until so many workers are there."""
        with distributed.Client(scheduler_file=str(self.file), set_as_default=False) as client:
            while len(client.nthreads()) != count:
                time.sleep(0.05)

    def end(self) -> None:
        """All of them."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def _start(self, *words: str, **how: Any) -> subprocess.Popen[bytes]:
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", *words], stdout=log, stderr=log, **how)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """With one worker that can do all."""
    started = Dask(tmp_path_factory.mktemp("dask"))
    try:
        started.work()
        yield started
    finally:
        started.end()


def test_the_same_bytes_and_nothing_left(solved: Path, spec: RunSpec, tmp_path: Path, scratch: Path) -> None:
    before = children(psutil.Process())
    said: list[str] = []
    with RunFolder.create(tmp_path / "run", spec) as place:
        document = carry_on(
            place, scheduler="local", workers=1, on_event=lambda event: said.append(event.get("text", ""))
        )
    assert document["status"] == "done"
    assert document["hardware"]["device"] == "cpu"
    assert any(text.startswith("dashboard: http://127.0.0.1:") for text in said)
    assert files(tmp_path / "run") == files(solved)
    assert set(children(psutil.Process())) <= set(before)
    assert list(scratch.iterdir()) == []


def test_workers_are_killed(solved: Path, spec: RunSpec, tmp_path: Path) -> None:
    """One as soon as a tile is done, another a little later, in the middle of the next."""
    killed: list[Any] = []

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and len(killed) < 2:
            time.sleep(0.4 * len(killed))
            killed.append([one for one in children(psutil.Process(), "spawn_main") if one not in killed][-1])
            killed[-1].kill()

    with RunFolder.create(tmp_path / "run", spec) as place:
        document = carry_on(place, scheduler="local", workers=2, on_event=kill)
    assert len(killed) == 2
    assert document["status"] == "done"
    assert files(tmp_path / "run") == files(solved)
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_tile_that_fails_is_tried_elsewhere(field: Path, spec: RunSpec, tmp_path: Path) -> None:
    data = fpmtools.load(field)
    images = data.intensities
    images[:, :48, :48] = 0
    file = native.save(data.with_images(images), tmp_path / "dead.safetensors")
    dead = replace(spec, data=replace(spec.data, source=str(file)))
    with (
        RunFolder.create(tmp_path / "run", dead) as place,
        cluster.connected("local", 2, lambda event: None) as workers,
    ):
        assert workers.admit(place, fpmtools.load(file)) == "cpu"
        assert carry_on(place, executor=workers)["status"] == "partial"
        ((_, where),) = workers._failed.items()
    assert len(where) == 2, "at two workers"


def test_workers_that_cannot(dask: Dask, spec: RunSpec, field: Path, tmp_path: Path, capfd: Any) -> None:
    other = tmp_path / "other"
    (other / "fpmtools-9.9.dist-info").mkdir(parents=True)
    (other / "fpmtools-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fpmtools\nVersion: 9.9\n")
    worker = dask.work(other)
    command = ["run", "--data", str(field), *WORDS, "--scheduler", str(dask.file), "--out", str(tmp_path / "run")]
    assert main(command) == 7
    said = capfd.readouterr().err
    assert said.count("worker tcp://") == 1
    assert "has fpmtools 9.9, and this is" in said
    assert not (tmp_path / "run").exists()
    worker.terminate()
    worker.wait()
    dask.wait_for(1)


def test_workers_without_the_solver(
    dask: Dask, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    (site / "mine-1.0.dist-info").mkdir(parents=True)
    (site / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (site / "mine-1.0.dist-info" / "entry_points.txt").write_text("[fpmtools]\nmine = mine\n")
    record = "SolverRecord(name='mine', summary='For a test', solver='fpmtools_ap.solver:AlternatingProjection')"
    hook = f"from fpmtools import SolverRecord, hookimpl\n@hookimpl\ndef fpmtools_solvers():\n    return [{record}]\n"
    (site / "mine.py").write_text(hook)
    command = ["run", "--data", str(field), *WORDS, "--solver", "mine", "--scheduler", str(dask.file)]
    monkeypatch.syspath_prepend(site)
    caches = (registry._scan, registry._announced, entries)
    try:
        for cached in caches:
            cached.cache_clear()
        assert main([*command, "--out", str(tmp_path / "run")]) == 7
    finally:
        for cached in caches:
            cached.cache_clear()
        sys.modules.pop("mine", None)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert "unknown solver 'mine'" in line
    assert "worker tcp://" in line


def test_workers_that_see_other_files(dask: Dask, spec: RunSpec, field: Path, tmp_path: Path) -> None:
    with (
        RunFolder.create(tmp_path / "run", spec) as place,
        cluster.connected(str(dask.file), 1, lambda event: None) as found,
    ):
        place.document["created"] = "yesterday"
        with pytest.raises(ClusterError, match="does not see the run's folder"):
            found.admit(place, fpmtools.load(field))
    with (
        RunFolder.create(tmp_path / "two", spec) as place,
        cluster.connected(str(dask.file), 1, lambda event: None) as found,
    ):
        data = fpmtools.load(field)
        found.admit(place, data)


def test_the_scheduler_is_killed_and_another_goes_on(solved: Path, spec: RunSpec, dask: Dask, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            dask.scheduler.kill()

    with (
        RunFolder.create(folder, spec) as place,
        pytest.raises(ClusterError, match="scheduler is gone; finished tiles are kept"),
    ):
        carry_on(place, scheduler=str(dask.file), on_event=kill)
    assert not (folder / RESULT_FILE).exists()
    dask.end()
    again = Dask(tmp_path)
    try:
        again.work()
        with RunFolder.reopen(folder) as place:
            assert carry_on(place, scheduler=str(again.file))["status"] == "done"
    finally:
        again.end()
    assert files(folder) == files(solved)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_leave(field: Path, tmp_path: Path, scratch: Path, number: int, code: int) -> None:
    folder, words = tmp_path / "run", ["--scheduler", "local", "--workers", "1", "--out", str(tmp_path / "run")]
    slow = [word.replace("sweeps=3", "sweeps=20000") for word in WORDS] + ["-o", "stop_below=0"]
    command = [sys.executable, "-m", "fpmtools", "run", "--data", str(field), *slow, *words]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not any('"resolved"' in file.read_text() for file in folder.glob("tiles/*/run.json")):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        below = children(psutil.Process(process.pid))
        os.killpg(process.pid, number)  # as a terminal does
        said = process.stderr.read()
        assert process.wait(60) == code
    assert "Traceback" not in said
    assert not [child for child in below if child.is_running()]
    assert not (folder / RESULT_FILE).exists()
    assert len([*folder.glob(f"tiles/*/{CHECKPOINT_FILE}")]) == 1
    assert list(scratch.iterdir()) == []


def silent() -> socket.socket:
    """A server that says nothing."""
    server = socket.create_server(("127.0.0.1", 0))
    server.listen()
    return server


def test_schedulers_that_are_none(spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 0.5)
    with silent() as server:
        where = {
            f"tcp://127.0.0.1:{server.getsockname()[1]}": (ClusterError, "does not answer"),
            "tcp://127.0.0.1": (ClusterError, "no scheduler of dask answers there .missing port"),
            str(tmp_path / "nowhere.json"): (OptionError, "no such file"),
        }
        for address, (kind, said) in where.items():
            begun = time.monotonic()
            with RunFolder.create(tmp_path / "run", spec, force=True) as place, pytest.raises(kind, match=said):
                carry_on(place, scheduler=address)
            assert time.monotonic() - begun < 10
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(OptionError, match="no address in it"):
        cluster.address_of(str(tmp_path / "empty.json"))


def test_words_that_do_not_go_together(
    field: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ["run", "--data", str(field), "--out", str(tmp_path / "run"), "--scheduler", "local", "--quiet"]
    assert main(base) == 2
    assert "--scheduler is for a run in tiles" in capsys.readouterr().err
    assert main(["run", "--data", str(field), *WORDS, "--scheduler", "tcp://a:1", "--workers", "2"]) == 2
    assert "workers of its own" in capsys.readouterr().err
    monkeypatch.delattr("fpmtools.tiling.cluster")
    for name in ("fpmtools.tiling.cluster", "fpmtools.tiling.cluster_worker"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dask", None)
    assert main([*base, *WORDS]) == 2
    assert "pip install 'fpmtools[dask]'" in capsys.readouterr().err
