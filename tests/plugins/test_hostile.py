"""Plugins that do harm: each is named, costs no other anything, and leaves a run of another solver as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from fpmtools import registry
from fpmtools.cli import main
from fpmtools.registry import asking

BUILT_IN = {"adam", "admm", "ap", "epry", "fd", "inr", "lbfgs", "lowrank", "mpie"}
RECORD = "SolverRecord(name='{name}', summary='For a test', solver='fpmtools_ap.solver:AlternatingProjection')"
HOOK = "from fpmtools import SolverRecord, hookimpl\n\n@hookimpl\ndef fpmtools_solvers():\n"
LONG = "x" * 5000


@dataclass(frozen=True)
class Kind:
    """``source`` of the module: '{name}' is its name, '{record}' a good record; ``says``: part of its fault, or empty
    where it does no harm before it is used; ``listed``: whether its solver can be used all the same."""

    source: str
    says: str
    listed: bool = False
    points: str = "{name} = {module}"
    metadata: str | None = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def returns(value: str, before: str = "") -> str:
    """A module whose hook returns ``value``."""
    return f"{before}\n{HOOK}    return {value}\n"


def meddles(code: str) -> str:
    """A module that does something when it is imported, and announces a good solver."""
    return returns("[{record}]", code)


KINDS: Mapping[str, Kind] = {
    # ends the process, or never ends
    "raises": Kind("raise RuntimeError('no')", "cannot be imported: RuntimeError: no"),
    "system-exit": Kind("raise SystemExit(0)", "cannot be imported: SystemExit: 0"),
    "keyboard-interrupt": Kind("raise KeyboardInterrupt", "cannot be imported: KeyboardInterrupt"),
    "os-exit": Kind("import os; os._exit(0)", "exited with code 0 while it was imported"),
    "os-exit-in-hook": Kind(HOOK + "    import os; os._exit(3)", "exited with code 3 while it announced its solvers"),
    "segfault": Kind("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV while it was imported"),
    "abort": Kind("import os; os.abort()", "killed by SIGABRT while it was imported"),
    "kills-itself": Kind("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    "kills-its-parent": Kind("import os, time; os.kill(os.getppid(), 9); time.sleep(60)", "killed by SIGKILL"),
    "kills-its-group": Kind("import os; os.killpg(0, 9)", "killed by SIGKILL"),
    "stops-itself": Kind("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "took longer than"),
    "stops-its-parent": Kind("import os, signal; os.kill(os.getppid(), 19); os._exit(0)", "took longer than"),
    "endless-loop": Kind("while True: pass", "took longer than"),
    "sleeps": Kind("import time; time.sleep(60)", "took longer than"),
    "deaf-to-signals": Kind(
        "import signal\nfor n in {1, 2, 3, 15}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass", "took longer than"
    ),
    "endless-list": Kind(
        returns("Endless()", "class Endless(list):\n    def __iter__(self):\n        while True: yield None"),
        "while it announced its solvers",
    ),
    "waits-for-input": Kind("input()", "cannot be imported: EOFError"),
    "ten-gigabytes": Kind(
        "kept = []\nfor _ in range(100): kept.append(b'x' * 100_000_000)", "of memory while it was imported"
    ),
    "recursion": Kind("def f(): f()\nf()", "cannot be imported: RecursionError"),
    "thread-that-never-ends": Kind(
        meddles("import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()"),
        "side effects: its import starts threads",
        listed=True,
    ),
    "child-that-stays": Kind(meddles("import os, time\nif os.fork() == 0:\n    time.sleep(600)"), "", listed=True),
    "exit-code-at-exit": Kind(meddles("import atexit, os\natexit.register(os._exit, 7)"), "", listed=True),
    "exit-in-destructor": Kind(
        meddles("import os\nclass Bomb:\n    def __del__(self): os._exit(7)\nbomb = Bomb()"), "", listed=True
    ),
    # records that are none
    "no-record": Kind(returns("[{'name': 'x'}]"), "must return a list of SolverRecord"),
    "no-list": Kind(returns("7"), "must return a list of SolverRecord"),
    "none": Kind(returns("None"), "or they returned None"),
    "generator": Kind(HOOK + "    yield {record}", "must return a list of SolverRecord"),
    "attributes-raise": Kind(
        returns(
            "[object.__new__(Bad)]",
            "from fpmtools import SolverRecord\nclass Bad(SolverRecord):\n"
            "    def __getattribute__(self, name): raise OSError('mine')",
        ),
        "failed to announce its solvers: OSError: mine",
    ),
    "hostile-dunders": Kind(
        returns(
            "[Bad(name='{name}', summary='x', solver='a:B')]",
            "from fpmtools import SolverRecord\nclass Bad(SolverRecord):\n"
            "    def no(self, *rest): raise OSError('mine')\n    __eq__ = __hash__ = __str__ = __repr__ = no",
        ),
        "",
        listed=True,
    ),
    "hostile-error": Kind(
        "class Bad(BaseException):\n    def __str__(self): raise SystemExit(1)\nraise Bad", "cannot be imported: Bad"
    ),
    "name-taken": Kind(
        returns("[" + RECORD.replace("{name}", "ap") + "]"), "solver 'ap' is already supplied by fpmtools"
    ),
    "entry-point-taken": Kind(
        returns("[" + RECORD.replace("{name}", "ap") + "]"),
        "solver 'ap' is already supplied by fpmtools",
        points="ap = {module}",
    ),
    "escapes-in-summary": Kind(
        returns(r"[SolverRecord(name='{name}', summary='\x1b[2J', solver='a:B')]"),
        r"SolverRecord: summary '\x1b[2J' must be one line",
    ),
    "summary-without-end": Kind(
        returns("[SolverRecord(name='{name}', summary='x' * 10**7, solver='a:B')]"),
        "must be one line of at most 300 characters",
    ),
    "record-name-without-end": Kind(
        returns("[SolverRecord(name='x' * 5000, summary='x', solver='a:B')]"), "must be lower-case letters"
    ),
    "a-million-records": Kind(returns("[{record}] * 10**6"), "announces 1000000 solvers; at most 100 are looked at"),
    # the hooks and the import
    "wrong-arguments": Kind(HOOK.replace("()", "(config)") + "    return []", "has a wrong hook"),
    "missing-package": Kind("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
    "circular-import": Kind("from {module} import nothing", "cannot be imported: ImportError"),
    # meddles with the process
    "patches-numpy-and-torch": Kind(
        meddles("import numpy, torch\ntorch.fft.fft2 = numpy.fft.fft2 = lambda *a, **k: 1 / 0"),
        "its import replaces numpy.fft.fft2",
        listed=True,
    ),
    "patches-fpmtools": Kind(
        meddles(
            "import json\nfrom fpmtools import registry, records\nfrom fpmtools.registry import hooks, probe\n"
            "def bad(*a, **k): raise SystemExit(0)\n"
            "json.dumps = json.loads = probe._say = hooks.foreign = records.to_data = registry.solvers = bad"
        ),
        "exited with code 1 while it was imported",
    ),
    "writes-to-1-and-2": Kind(meddles("import os\nfor n in (1, 2): os.write(n, b'\\x1b[2Jnoise')"), "", listed=True),
    "closes-1-and-2": Kind(meddles("import os\nos.close(1); os.close(2)"), "changes stdin, stdout or stderr", True),
    "closes-all": Kind(meddles("import os\nos.closerange(0, 100)"), "exited with code"),
    "writes-to-all": Kind(
        meddles("import os\nfor n in range(3, 30):\n    try: os.write(n, b'x\\n')\n    except OSError: pass"),
        "gave an answer that cannot be read",
    ),
    "floods-stderr": Kind(meddles("import os\nfor _ in range(500): os.write(2, b'x' * 100_000)"), "", listed=True),
    "replaces-stdout": Kind(meddles("import sys\nsys.stdout = 3"), "changes stdin, stdout or stderr", listed=True),
    "chdir": Kind(meddles("import os\nos.chdir('/')"), "changes the working folder", listed=True),
    "replaces-handlers": Kind(
        meddles("import signal\nsignal.signal(2, signal.SIG_IGN)"), "changes signal handlers", listed=True
    ),
    "sets-environment": Kind(meddles("import os\nos.environ['PATH'] = ''"), "changes the environment", listed=True),
    "warnings-as-errors": Kind(
        meddles("import warnings\nwarnings.simplefilter('error')"), "makes errors of warnings", listed=True
    ),
    "removes-modules": Kind(
        meddles("import sys\nfor name in ('json', 'fpmtools.errors'): del sys.modules[name]"),
        "removes modules",
        listed=True,
    ),
    # metadata
    "24-mb-of-entry-points": Kind("", "its entry_points.txt has 24 MB", points="x = y\n" * 4_000_000),
    "24-mb-of-metadata": Kind(
        returns("[{record}]"),
        "",
        listed=True,
        metadata="Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\n" + "x\n" * 12_000_000,
    ),
    "thousands-of-entry-points": Kind(
        returns("[{record}]"),
        "has 5001 entry points; only the first 100",
        listed=True,
        points="{name} = {module}\n" + "again = {module}\n" * 5000,
    ),
    "damaged-entry-points": Kind("", "'no equals sign' is not 'name = module'", points="no equals sign"),
    "entry-points-of-nothing": Kind("", "is not 'name = module'", points=" = {module}\nx = "),
    "no-metadata": Kind("", "it has no METADATA", metadata=None),
    "metadata-without-name": Kind("", "its METADATA has no name", metadata="Version: 1.0\n"),
    "odd-names": Kind(
        "raise RuntimeError",
        "cannot be imported: RuntimeError",
        points=f"Δ\x1b[2J\x9b \x7f{LONG} = {{module}}",
    ),
    "odd-distribution": Kind(
        "raise RuntimeError",
        "cannot be imported: RuntimeError",
        metadata="Name: {name}\x1b[2J\x9bΔ" + LONG + "\nVersion: \x1b[2J\n",
    ),
    "odd-value": Kind("", "cannot be imported", points="{name} = 1 + 1"),
}


def write(folder: Path, kind: str) -> Path:
    """Write the plugin of that kind into ``folder``, which is created if need be, and return it."""
    what, name = KINDS[kind], called(kind)
    module = name.replace("-", "_")

    def filled(text: str) -> str:
        for word, value in {"record": RECORD, "name": name, "module": module}.items():
            text = text.replace(f"{{{word}}}", value)
        return text

    folder.mkdir(exist_ok=True)
    trace = f"with open({str(folder / 'imported')!r}, 'a') as file: file.write({kind + chr(10)!r})\n"
    (folder / f"{module}.py").write_text(trace + filled(what.source))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[fpmtools]\n{filled(what.points)}\n")
    if what.metadata is not None:
        (info / "METADATA").write_text(filled(what.metadata))
    return folder


def called(kind: str) -> str:
    """The name of the plugin of that kind."""
    return kind if kind[0].isalpha() else f"m{kind}"


Fpmtools = Callable[..., "subprocess.CompletedProcess[str]"]
PATIENCE_S = 120  # each plugin has 3 s, or 6 where others want the processors too; 6 of them hang


@pytest.fixture
def fpmtools(tmp_path: Path) -> Fpmtools:
    """``fpmtools(site, *arguments)``: the command in a new process with ``site`` on the path."""

    def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "fpmtools", *arguments]
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        begun = time.monotonic()
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        print(f"{arguments[0]}: {time.monotonic() - begun:.1f} s")
        return done

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_plugin_is_named_and_harms_nobody(
    kind: str,
    tmp_path: Path,
    plugin: Callable[..., Path],
    announcing: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its fault says what it did; a neighbour and the built-in solvers are listed; ``ap`` is found without a look."""
    monkeypatch.setattr(asking, "ANNOUNCE_BYTES", 1e9)
    hangs = "longer" in KINDS[kind].says or kind == "endless-list"
    monkeypatch.setattr(asking, "ANNOUNCE_S", 0.5 if hangs else 30.0)
    monkeypatch.syspath_prepend(write(tmp_path / "hostile", kind))
    plugin("neighbour", announcing("neighbour"))
    before = os.getcwd(), dict(os.environ)

    assert registry.find("ap").distribution == "fpmtools"
    assert not (tmp_path / "hostile" / "imported").exists()
    listed = {supplied.record.name for supplied in registry.solvers()}
    assert listed == BUILT_IN | {"neighbour"} | ({called(kind)} if KINDS[kind].listed else set())
    told = " / ".join(map(str, registry.faults()))
    assert KINDS[kind].says in told
    assert called(kind) in told if KINDS[kind].says else told == ""
    assert told.isprintable()
    assert (os.getcwd(), dict(os.environ)) == before


def test_nothing_that_hostile_plugins_started_is_left(tmp_path: Path, plugin: Callable[..., Path]) -> None:
    """A process that a plugin forks and leaves behind ends with it."""
    note = tmp_path / "pid"
    source = f"import os, time\npid = os.fork()\nif pid == 0: time.sleep(600)\nopen({str(note)!r}, 'w').write(str(pid))"
    plugin("leaves", returns("[]", source))
    assert registry.faults() == []
    left = Path("/proc") / note.read_text()
    for _ in range(100):
        if not left.exists():
            return
        time.sleep(0.02)
    pytest.fail("still there")


@pytest.mark.slow
def test_all_hostile_plugins_together(tmp_path: Path, fpmtools: Fpmtools) -> None:
    """``solvers`` and ``doctor`` name each with what it did; ``run`` gives the bytes that it gives without them.

    None of them is imported for that.
    """
    site = tmp_path / "hostile"
    for kind in KINDS:
        write(site, kind)
    with ThreadPoolExecutor() as pool:  # each waits for those that hang
        listed, checked = pool.map(lambda command: fpmtools(site, command, "--json"), ("solvers", "doctor"))
    assert listed.returncode == 0, listed.stderr
    assert checked.returncode == 1, checked.stderr
    usable = {solver["name"] for solver in json.loads(listed.stdout)["solvers"]}
    assert usable >= BUILT_IN
    faults = [f"{f['entry_point']} of {f['distribution']}: {f['message']}" for f in json.loads(listed.stdout)["faults"]]
    about = json.loads(checked.stdout)
    assert set(about["solvers"]) >= BUILT_IN

    def said(told: list[str], kind: str) -> str:
        return " / ".join(fault for fault in told if called(kind) in fault)

    for kind, what in KINDS.items():
        for told in (faults, about["problems"]):
            if what.says:
                assert what.says in said(told, kind) or "longer" in said(told, kind), kind  # it had no processor
        if what.listed:
            assert called(kind) in usable or "longer" in said(faults, kind), kind
    assert all(fault.isprintable() for fault in (*faults, *about["problems"]))

    (site / "imported").unlink()
    words = ["--data", "sim:thin@24x30", "--solver", "ap", "-o", "sweeps=2", "--z", "1", "--threads", "1", "--quiet"]
    words += ["--calibrate", "none"]
    assert main(["run", *words, "--out", str(tmp_path / "without")]) == 0
    done = fpmtools(site, "run", *words, "--out", str(tmp_path / "with"))
    assert done.returncode == 0, done.stderr
    without, beside = (tmp_path / name / "reconstruction.safetensors" for name in ("without", "with"))
    assert without.read_bytes() == beside.read_bytes()
    assert not (site / "imported").exists()
