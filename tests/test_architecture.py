"""The house rules that a parser can see: which way imports run, what is never called, what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fpmtools

ROOT = Path(__file__).resolve().parents[1]
CORE = sorted((ROOT / "fpmtools").rglob("*.py"))
PLUGINS = sorted(p for p in (ROOT / "plugins").rglob("*.py") if "tests" not in p.parts)

# A module may import those before it, never those after it.
ROOMS = (
    "errors", "display", "progress", "options", "interrupts", "storage", "threads", "processes", "records",
    "columns", "adam", "optics", "leds", "pupil", "stray", "surfaces", "calibration", "pixels", "passes", "images",
    "dataset", "known", "noise", "sampling", "losses", "transfer", "forward", "quasi_newton", "spectral_prior",
    "phantom", "imaging", "simulation", "slide", "catalogue", "clear", "unwrapping", "reconstruction", "coding",
    "low_rank", "metrics", "problem", "physics", "projection", "explained", "compact", "solver", "planes",
    "registry", "formats", "results", "calibrate", "engine", "evaluation", "runs", "tiling", "colour", "comparison",
    "report", "opening", "viewer", "napari", "cli",
)  # fmt: skip
ASIDE = {"__init__", "__main__", "testing"}  # the lazy front door, and what only authors of solvers import

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "cloudpickle"}
UNSAFE_CALLS = {"torch.load", "torch.save", "eval", "exec", "os.system"}
NEEDS_AXES = {
    "fft",
    "ifft",
    "fft2",
    "ifft2",
    "rfft",
    "irfft",
    "rfft2",
    "irfft2",
    "fftn",
    "ifftn",
    "fftshift",
    "ifftshift",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Every import in a file, anywhere in it: (module, name or None)."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [here, node.module]))
            yield from ((module, alias.name) for alias in node.names)


def rooms_imported(path: Path) -> Iterator[str]:
    """The rooms of the core that a file imports from."""
    for module, name in imports(path):
        parts = module.split(".")
        if parts[0] == "fpmtools":
            if len(parts) > 1:
                yield parts[1]
            elif name in fpmtools._HOME:
                yield fpmtools._HOME[name].split(".")[1]
            elif name not in {"__version__", None}:
                yield str(name)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, with its dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_every_module_has_its_room() -> None:
    found = {path.relative_to(ROOT / "fpmtools").with_suffix("").parts[0] for path in CORE}
    assert found == {*ROOMS, *ASIDE}


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT / "fpmtools").with_suffix("").parts[0]
    if room in ASIDE:
        return
    for imported in rooms_imported(path):
        assert imported in ROOMS, f"{room} imports {imported}"
        assert ROOMS.index(imported) <= ROOMS.index(room), f"{room} must not import {imported}, a later room"


@pytest.mark.parametrize("path", PLUGINS, ids=name_of)
def test_solvers_import_only_public_names_and_not_each_other(path: Path) -> None:
    own = path.parent.name
    for module, name in imports(path):
        top = module.split(".")[0]
        if top == "fpmtools":
            assert module == "fpmtools", f"{module} is not public"
            assert name in fpmtools.__all__, f"fpmtools.{name} is not public"
        elif top.startswith("fpmtools_"):
            assert top == own, f"{own} imports {top}, another solver"


def test_the_core_knows_no_solver_by_name() -> None:
    for path in CORE:
        for module, _ in imports(path):
            assert not module.startswith("fpmtools_"), f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=name_of)
def test_nothing_that_runs_code_from_a_file(path: Path) -> None:
    for module, _ in imports(path):
        assert module.split(".")[0] not in UNSAFE_MODULES, module
    for name, call in calls(path):
        assert name not in UNSAFE_CALLS, f"line {call.lineno}: {name}"
        for keyword in call.keywords:
            if keyword.arg == "allow_pickle":
                assert ast.unparse(keyword.value) == "False", f"line {call.lineno}"
        assert name not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}, f"line {call.lineno}"


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=name_of)
def test_every_fourier_transform_names_its_axes(path: Path) -> None:
    for name, call in calls(path):
        if ".fft." in f".{name}" and name.split(".")[-1] in NEEDS_AXES:
            assert {k.arg for k in call.keywords} & {"dim", "axis", "axes"}, f"line {call.lineno}: {ast.unparse(call)}"


def test_every_public_name_exists() -> None:
    assert set(fpmtools.__all__) == {*fpmtools._HOME, "__version__"}
    for name in fpmtools.__all__:
        assert getattr(fpmtools, name) is not None


def test_importing_is_cheap() -> None:
    """``import fpmtools`` and listing the solvers import none of the heavy packages."""
    code = (
        "import sys, fpmtools\n"
        "assert {m for m in sys.modules if m.startswith('fpmtools.')} == set(), 'import fpmtools imports its modules'\n"
        "from fpmtools import registry\n"
        "assert {s.record.name for s in registry.solvers()} >= {'ap', 'adam', 'inr'}\n"
        "heavy = {'torch', 'matplotlib', 'pandas', 'scipy', 'skimage', 'h5py', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_all_text_goes_to_the_terminal_through_one_place() -> None:
    """``cli/_output`` makes names harmless and survives a lost stderr; nobody else prints."""
    for path in CORE:
        if path != ROOT / "fpmtools" / "cli" / "_output.py":
            for name, call in calls(path):
                assert name not in {"click.echo", "click.secho", "print"}, f"{name_of(path)}:{call.lineno} {name}"
                assert not name.endswith(("stdout.write", "stderr.write")), f"{name_of(path)}:{call.lineno} {name}"
