"""The folder of a run: made at once, nobody else's meanwhile, found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fpmtools.errors import DataError, FpmError, OptionError, OutputError
from fpmtools.runs.folder import RunFolder, claim_numbered, locked
from fpmtools.runs.spec import RunSpec

SPEC = RunSpec("sim:tilted", "ap")  # type: ignore[arg-type]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_folder_holds_the_run_from_the_start(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a" / "run", SPEC, command=["fpmtools", "run"]) as place:
        written = json.loads((place.path / "run.json").read_text())
    assert (written["schema"], written["status"], written["command"]) == (1, "running", ["fpmtools", "run"])
    assert RunSpec.from_dict(written["spec"]) == SPEC
    assert names(tmp_path / "a") == {"run"}
    assert names(place.path) == {"run.json"}
    with RunFolder.reopen(place.path) as again:
        assert again.spec == SPEC


def test_two_never_share_an_automatic_name(tmp_path: Path) -> None:
    """Eight at the same time get eight folders, each with one run in it."""
    made: list[Path] = []

    def make() -> None:
        with RunFolder.create_numbered(tmp_path / "run", SPEC) as place:
            made.append(place.path)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name for path in made} == {"run", *(f"run-{i}" for i in range(2, 9))}
    assert names(tmp_path) == {path.name for path in made}
    assert [claim_numbered(tmp_path / "c").name for _ in range(3)] == ["c", "c-2", "c-3"]


def test_a_folder_in_use_is_refused_in_one_line(tmp_path: Path) -> None:
    """By another process, until that ends; also if it leaves a child behind."""
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from fpmtools.runs.folder import RunFolder\n"
        "place = RunFolder.reopen(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if not child: time.sleep(60)\n"
        "print(child, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with RunFolder.create(tmp_path / "run", SPEC) as place:
        pass
    command = [sys.executable, "-c", code, str(place.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        for attempt in (lambda: RunFolder.reopen(place.path), lambda: RunFolder.create(place.path, SPEC, force=True)):
            with pytest.raises(OutputError, match="is in use: another process works in it") as error:
                attempt()
            assert error.value.exit_code == 5
        process.kill()
    RunFolder.reopen(place.path).close()
    os.kill(child, 9)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (None, OptionError, "no such folder"),
        ({}, OptionError, "holds no run"),
        ({"run.json": "{"}, DataError, "not JSON"),
        ({"run.json": "{}"}, DataError, "another version"),
        ({"run.json": '{"spec": {"schema": 9}}'}, OptionError, "schema 9"),
    ],
)
def test_resume_of_what_is_no_run(
    content: dict[str, str] | None, error: type[FpmError], says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(error, match=says):
        RunFolder.reopen(folder)
    assert folder.exists() == (content is not None)


def test_a_used_folder_needs_force(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("x")
    with pytest.raises(OutputError, match=r"not empty \(1 file\).*option force"):
        RunFolder.create(tmp_path, SPEC)
    with RunFolder.create(tmp_path, SPEC, force=True):
        assert names(tmp_path) == {"old.txt", "run.json"}
    for path, says in ((tmp_path / "old.txt", "is a file"), (tmp_path / "old.txt" / "below", "cannot write in")):
        with pytest.raises(OutputError, match=says):
            RunFolder.create(path, SPEC, force=True)


def test_leftovers_of_a_killed_process_go(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", SPEC) as place:
        pass
    (place.path / ".phase.tiff.abcd1234.part").write_text("half")
    (place.path / "mine.part").write_text("not ours")
    RunFolder.reopen(place.path).close()
    assert names(place.path) == {"run.json", "mine.part"}


def test_paths_that_are_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xefve"))
    spec = RunSpec(str(path / "data.mat"), "ap")  # type: ignore[arg-type]
    with RunFolder.create(path, spec, command=["fpmtools", str(path)]) as place:
        place.update(status="done")
    (path / "run.json").read_text(encoding="utf-8", errors="strict")
    with RunFolder.reopen(path) as again:
        assert again.spec == spec
        assert again.document["command"] == ["fpmtools", str(path)]


def test_a_process_that_was_killed_a_moment_ago_still_lets_go(tmp_path: Path) -> None:
    """Its folder is waited for, a little."""
    held = "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)"
    hold = f"import fcntl, os, sys, time; {held}; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        timer = threading.Timer(0.3, process.kill)
        timer.start()
        begun = time.monotonic()
        with locked(tmp_path):
            assert time.monotonic() - begun > 0.2
        timer.join()


def test_a_signal_while_the_folder_is_made_leaves_it_whole(tmp_path: Path) -> None:
    """It ends the process, once there is a run in the folder and nothing beside it."""
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from fpmtools.runs.folder import RunFolder\nfrom fpmtools.runs.spec import DataSpec, RunSpec\n"
        "usual = Path.rename\n"
        "def rename(path, to):\n    os.kill(os.getpid(), signal.SIGTERM)\n    return usual(path, to)\n"
        "Path.rename = rename\n"
        "RunFolder.create(Path(sys.argv[1]) / 'run', RunSpec(DataSpec('a'), 'ap'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert done.returncode == -signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
