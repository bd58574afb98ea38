"""Finding solvers, and surviving plugins that are broken in every way that was thought of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fpmtools import Grid, open_result, registry
from fpmtools.cli import main
from fpmtools.errors import OptionError, SolverError
from fpmtools.registry import asking

BUILT_IN = {"adam", "admm", "ap", "epry", "fd", "inr", "lbfgs", "lowrank", "mpie"}

HOOK = "from fpmtools import SolverRecord, hookimpl\n\n@hookimpl\n"

# name → (source, what its fault says)
BROKEN: dict[str, tuple[str, str]] = {
    "import-error": ("import not_there\n", "import_error cannot be imported: ModuleNotFoundError: No module named"),
    "syntax-error": ("def broken(:\n", "SyntaxError: invalid syntax"),
    "exits": ("raise SystemExit('bye')\n", "cannot be imported: SystemExit: bye"),
    "mute-error": (
        "class Mute(BaseException):\n    def __str__(self):\n        raise ValueError\n\nraise Mute\n",
        "cannot be imported: Mute",
    ),
    "dict-record": (
        HOOK + "def fpmtools_solvers():\n    return [{'name': 'x'}]\n",
        "must return a list of SolverRecord",
    ),
    "no-list": (HOOK + "def fpmtools_solvers():\n    return 3\n", "must return a list of SolverRecord"),
    "bad-record": (
        HOOK + "def fpmtools_solvers():\n    return [SolverRecord(name='Bad', summary='', solver='')]\n",
        "SolverRecord: name 'Bad' must be lower-case",
    ),
    "hook-raises": (
        HOOK + "def fpmtools_solvers():\n    raise RuntimeError('first\\nsecond')\n",
        "failed to announce its solvers: RuntimeError: first second",
    ),
    "hook-exits": (HOOK + "def fpmtools_solvers():\n    import sys\n    sys.exit(3)\n", "SystemExit: 3"),
    "hook-signature": (
        HOOK + "def fpmtools_solvers(config):\n    return []\n",
        "wrong hook: PluginValidationError",
    ),
    "hook-misspelt": (HOOK + "def fpmtools_solver():\n    return []\n", "wrong hook: PluginValidationError"),
    "no-hook": ("x = 1\n", "has none of the hooks fpmtools_solvers"),
}


def run_fpmtools(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a new process with ``path`` searched for packages as well."""
    paths = os.pathsep.join([str(path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fpmtools", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def write_broken(write_plugin: Callable[..., Path], announcing: Callable[..., str]) -> Path:
    """All broken plugins together, and one that is good."""
    for name, (source, _) in BROKEN.items():
        write_plugin(name, source)
    write_plugin("a-thief", announcing("ap"))
    write_plugin("another-ap", announcing("ap"), "ap")
    write_plugin("kind-thief", announcing("kind-thief", reconstructions={"inr": "kind_thief:Kind"}))
    write_plugin("plane-thief", announcing("plane-thief", reconstructions={"planes": "plane_thief:Kind"}))
    write_plugin("from-the-future", announcing("from-the-future", api_version=2))
    write_plugin("no-class", announcing("no-class", "no_class:Missing"))
    write_plugin("no-module", "", value="a_module_that_is_not_there")
    write_plugin("odd-value", "", value="1 + 1")
    write_plugin("prints", "print('at import')\n" + announcing("prints") + "\nprint('again')\n")
    meddles = "import numpy\nnumpy.random.seed(1)\nnumpy.seterr(all='raise')\n"
    return write_plugin("meddles", meddles + announcing("meddles"))


def test_every_broken_plugin_is_reported_and_no_other_is_lost(
    write_plugin: Callable[..., Path], announcing: Callable[..., str]
) -> None:
    done = run_fpmtools("solvers", "--json", path=write_broken(write_plugin, announcing))
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)  # nothing but our JSON: what plugins print leads nowhere
    assert done.stderr == ""

    usable = {solver["name"]: (solver["distribution"], solver["version"]) for solver in listed["solvers"]}
    assert set(usable) == BUILT_IN | {"prints", "meddles", "no-class"}
    assert {usable[name][0] for name in BUILT_IN} == {"fpmtools"}
    assert usable["prints"] == ("prints", "1.0")

    faults = listed["faults"]
    messages = {fault["distribution"]: fault["message"] for fault in faults}
    expected = {name: says for name, (_, says) in BROKEN.items()} | {
        "a-thief": "solver 'ap' is already supplied by fpmtools",
        "another-ap": "solver 'ap' is already supplied by fpmtools",
        "kind-thief": "results of kind 'inr' already belong to fpmtools",
        "plane-thief": "results of kind 'planes' already belong to fpmtools",
        "from-the-future": "version 2 of the solver interface",
        "no-module": "No module named 'a_module_that_is_not_there'",
        "odd-value": "1 + 1 cannot be imported",
    }
    assert set(messages) == set(expected)
    assert len(faults) == len(expected)
    for distribution, says in expected.items():
        assert says in messages[distribution]
        assert "\n" not in messages[distribution]


def test_the_doctor_also_finds_what_breaks_only_in_use(
    plugin: Callable[..., Path], announcing: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("no-hook", "")
    plugin("no-class", announcing("no-class", "no_class:Missing"))
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert set(found["solvers"]) == BUILT_IN
    problems = " / ".join(found["problems"])
    assert "solver 'no-class' of no-class 1.0: cannot import no_class:Missing" in problems
    assert "plugin 'no-hook' of no-hook: has none of the hooks fpmtools_solvers" in problems


# ---------------------------------------------------------------- one name at a time


def test_a_name_imports_its_own_plugin_and_no_other(
    plugin: Callable[..., Path], announcing: Callable[..., str]
) -> None:
    plugin("bystander", announcing("bystander"))
    site = plugin("other", announcing("other"))
    assert registry.find("ap").distribution == "fpmtools"
    assert not (site / "imported").exists()
    supplied = registry.find("other")
    assert (supplied.distribution, supplied.version, supplied.entry_point) == ("other", "1.0", "other")
    assert (site / "imported").read_text() == "other\n"


def test_built_in_entry_points_are_named_after_their_solver() -> None:
    """Otherwise a plugin's entry point of that name would be asked before the built-in."""
    own = [s for s in registry.solvers() if s.distribution == "fpmtools"]
    assert {s.record.name for s in own} == BUILT_IN
    assert all(s.record.name == s.entry_point for s in own)
    assert all(kind == s.entry_point for s in own for kind in s.record.reconstructions)


def test_a_plugin_can_supply_several_solvers(plugin: Callable[..., Path]) -> None:
    path = "fpmtools_ap.solver:AlternatingProjection"
    records = ", ".join(f"SolverRecord(name={n!r}, summary='x', solver={path!r})" for n in ("one", "two", "ap"))
    points = "[fpmtools]\none = many\ntwo = many\n"
    plugin("many", f"{HOOK}def fpmtools_solvers():\n    return [{records}]\n", metadata=points)
    found = {s.record.name: s.entry_point for s in registry.solvers() if s.distribution == "many"}
    assert found == {"one": "one", "two": "two"}
    assert registry.solver_class("two").__name__ == "AlternatingProjection"
    assert {fault.message for fault in registry.faults()} == {
        "solver 'ap' is already supplied by fpmtools; this one is left out"
    }


def test_one_plugin_with_two_records_of_one_name_keeps_the_first(plugin: Callable[..., Path]) -> None:
    records = ", ".join(f"SolverRecord(name='one', summary={summary!r}, solver='a:B')" for summary in ("x", "y"))
    plugin("many", f"{HOOK}def fpmtools_solvers():\n    return [{records}]\n")
    assert registry.find("one").record.summary == "x"
    (fault,) = registry.faults()
    assert "already supplied by many" in fault.message


def test_of_two_plugins_with_one_name_the_one_whose_entry_point_has_it_wins(
    plugin: Callable[..., Path], announcing: Callable[..., str]
) -> None:
    plugin("a-first-in-the-alphabet", announcing("wanted"))
    plugin("the-owner", announcing("wanted"), "wanted")
    assert registry.find("wanted").distribution == "the-owner"
    (listed,) = [s for s in registry.solvers() if s.record.name == "wanted"]
    assert listed.distribution == "the-owner"
    (fault,) = registry.faults()
    assert fault.distribution == "a-first-in-the-alphabet"
    assert "already supplied by the-owner" in fault.message


def test_a_distribution_that_is_seen_twice_counts_once(
    plugin: Callable[..., Path], announcing: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = plugin("twice", announcing("twice"))
    copy = tmp_path / "copy"
    (copy / "Twice-0.9.dist-info").mkdir(parents=True)
    (copy / "Twice-0.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: Twice\nVersion: 0.9\n")
    (copy / "Twice-0.9.dist-info" / "entry_points.txt").write_text("[fpmtools]\ntwice = twice\n")
    monkeypatch.setattr("sys.path", [str(site), *sys.path, str(copy), str(site)])
    assert [s.version for s in registry.solvers() if s.record.name == "twice"] == ["1.0"]
    assert not registry.faults()


def test_damaged_entry_points_are_a_fault_like_any_other(
    plugin: Callable[..., Path], announcing: Callable[..., str]
) -> None:
    """PyTorch reads everyone's entry points unguarded when it is imported; a run goes on all the same."""
    site = plugin("torn", announcing("torn"), metadata="[fpmtools]\nthis line has no equals sign\ntorn = torn\n")
    assert {s.record.name for s in registry.solvers()} == BUILT_IN | {"torn"}
    (fault,) = registry.faults()
    assert fault.distribution == "torn"
    assert "'this line has no equals sign' is not 'name = module'" in fault.message
    done = run_fpmtools("solvers", "ap", "--json", path=site)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_gets_the_nearest(plugin: Callable[..., Path], announcing: Callable[..., str]) -> None:
    plugin("wirtinger", announcing("wirtinger"))
    with pytest.raises(OptionError, match="unknown solver 'wirtingr': did you mean 'wirtinger'"):
        registry.find("wirtingr")


def test_a_broken_plugin_that_is_asked_for_says_what_is_wrong(plugin: Callable[..., Path]) -> None:
    plugin("broken", "import a_module_that_is_not_there\n")
    with pytest.raises(SolverError, match=r"solver 'broken' cannot be used: .*of broken: .*No module named"):
        registry.solver_class("broken")


def test_ctrl_c_during_an_import_is_not_swallowed(plugin: Callable[..., Path]) -> None:
    before = signal.getsignal(signal.SIGINT)
    plugin("slow", "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    with pytest.raises(KeyboardInterrupt):
        registry.find("slow")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_keyboard_interrupt_that_nobody_pressed_is_a_fault(plugin: Callable[..., Path]) -> None:
    plugin("playing", "raise KeyboardInterrupt\n")
    assert "ap" in {supplied.record.name for supplied in registry.solvers()}
    (fault,) = registry.faults()
    assert str(fault) == "plugin 'playing' of playing: playing cannot be imported: KeyboardInterrupt"


def test_stdout_is_not_stuck_after_imports_in_threads(
    plugin: Callable[..., Path], announcing: Callable[..., str]
) -> None:
    """Two plugins are imported at once, and the first to begin is the last to end."""
    before = sys.stdout
    for name, pause in (("slow", 0.5), ("quick", 0.1)):
        plugin(name, f"import time\ntime.sleep({pause})\n{announcing(name)}")
    threads = [threading.Thread(target=registry.find, args=(name,)) for name in ("quick", "slow")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is before


# ---------------------------------------------------------------- the classes

SOLVER = """
from dataclasses import dataclass
from fpmtools import PlaneStack, Reconstruction, Solver

class Incomplete(Solver):
    @dataclass(frozen=True)
    class Options:
        pass

    def start(self, problem): ...
    def step(self, state): ...

class NoOptions(Incomplete):
    Options = dict
    def result(self, state): ...

class PlainOption(NoOptions):
    @dataclass(frozen=True)
    class Options:
        sweeps: int

class StrangeOption(NoOptions):
    @dataclass(frozen=True)
    class Options:
        sweeps: "NoSuchType" = 3

class WrongKind(PlaneStack):
    pass

class RightKind(PlaneStack):
    kind = "right"

number = 3
"""


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("made:Missing", "cannot import made:Missing: AttributeError"),
        ("made.deeper:Missing", "cannot import made.deeper:Missing: ModuleNotFoundError"),
        ("made:number", "made:number is not a subclass of fpmtools.Solver"),
        ("made:RightKind", "made:RightKind is not a subclass of fpmtools.Solver"),
        ("made:Incomplete", "made:Incomplete does not implement result"),
        ("made:NoOptions", "made:NoOptions has no Options dataclass"),
        ("made:PlainOption", "option sweeps must be made with fpmtools.option"),
        ("made:StrangeOption", "cannot read its options: NameError"),
    ],
)
def test_a_class_that_is_no_solver_is_refused(
    plugin: Callable[..., Path], announcing: Callable[..., str], path: str, says: str
) -> None:
    plugin("made", announcing("made", path) + SOLVER)
    with pytest.raises(SolverError) as refused:
        registry.solver_class("made")
    assert str(refused.value).startswith("solver 'made' of made 1.0: ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_results_are_restored_by_the_class_that_announced_their_kind(
    plugin: Callable[..., Path], announcing: Callable[..., str], tmp_path: Path
) -> None:
    kinds = {"right": "made:RightKind", "wrong": "made:WrongKind", "lost": "made:Lost", "number": "made:number"}
    plugin("made", announcing("made", reconstructions=kinds) + SOLVER)
    cls = registry.reconstruction_class("right")
    planes = np.ones((1, 12, 10), np.complex64)
    result = cls(planes, (2.0,), Grid((12, 10), (6.0, 5.0), (2.0, 2.0)))  # type: ignore[call-arg]
    assert type(open_result(result.save(tmp_path / "result"))) is cls
    for kind, says in (
        ("wrong", "class WrongKind calls its kind 'planes'"),
        ("lost", "cannot import made:Lost"),
        ("number", "not a subclass of fpmtools.Reconstruction"),
        ("unheard-of", "install the plugin that made them"),
    ):
        with pytest.raises(SolverError, match=says):
            registry.reconstruction_class(kind)


def test_a_result_of_a_built_in_kind_imports_no_other_plugin(
    plugin: Callable[..., Path], announcing: Callable[..., str]
) -> None:
    site = plugin("bystander", announcing("bystander", reconstructions={"inr": "bystander:Kind"}))
    assert registry.reconstruction_class("inr").__module__ == "fpmtools_inr.reconstruction"
    assert not (site / "imported").exists()


def test_what_is_asked_for_by_name_is_found_in_a_slow_plugin_too(
    plugin: Callable[..., Path], announcing: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANNOUNCE_S", 0.2)
    plugin("slow", f"import time\ntime.sleep(0.6)\n{announcing('hidden', reconstructions={'right': 'slow:RightKind'})}")
    (fault,) = registry.faults()
    assert fault.message == "took longer than 0.2 s while it was imported"
    assert registry.describe_solver("hidden").supplied.distribution == "slow"
    with pytest.raises(SolverError, match="cannot import slow:RightKind"):
        registry.reconstruction_class("right")
