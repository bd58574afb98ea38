"""A real ``pip install`` of fpmtools and of the template into a fresh environment, from wheels built here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.install


class Environment:
    """A virtual environment that sees the running one's packages, behind its own."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.folder = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        # Unlike a plain line, addsitedir also reads the .pth files in there.
        (site / "running.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")

    def run(self, *command: str | Path) -> str:
        """stdout of a command; the test fails with its stderr when it does."""
        env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTEST_ADDOPTS"}}
        env["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, source: Path) -> None:
        """pip install from a folder, without network."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check"]
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed"]
        self.run(*pip, "install", *options, source)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """fpmtools and the template, installed."""
    made = Environment(tmp_path_factory.mktemp("install") / "environment")
    made.install(ROOT)
    shutil.copytree(ROOT / "plugins" / "template", made.folder / "template")
    made.install(made.folder / "template")
    return made


def test_what_was_installed_is_what_is_used(environment: Environment) -> None:
    code = "import fpmtools as f, fpmtools_ap as a, fpmtools_wirtinger as w; print(f.__file__, a.__file__, w.__file__)"
    for path in environment.run(environment.bin / "python", "-c", code).split():
        assert Path(path).is_relative_to(environment.folder), path
        assert "site-packages" in path


def test_the_wheel_holds_the_built_in_solvers_and_not_the_template(environment: Environment) -> None:
    code = "from importlib.metadata import files; print('\\n'.join(map(str, files('fpmtools'))))"
    installed = set(environment.run(environment.bin / "python", "-c", code).splitlines())
    assert {
        "fpmtools/py.typed",
        "fpmtools/data_manifest.yaml",
        *(
            f"fpmtools_{name}/solver.py"
            for name in ("ap", "adam", "inr", "epry", "mpie", "fd", "admm", "lbfgs", "lowrank")
        ),
    } <= installed
    assert not [path for path in installed if "wirtinger" in path or path.startswith(("plugins", "tests"))]


def test_the_solver_is_usable_by_name_at_once(environment: Environment) -> None:
    listed = json.loads(environment.run(environment.bin / "fpmtools", "solvers", "--json"))
    assert "wirtinger" in json.dumps(listed)
    arguments = ["--solver", "wirtinger", "-o", "iterations=3", "--z", "0", "--device", "cpu", "--out", "result"]
    arguments += ["--data", "sim:thin@16x24", "--calibrate", "none"]
    environment.run(environment.bin / "fpmtools", "run", *arguments)
    assert (environment.folder / "result" / "reconstruction.safetensors").is_file()


GAINS = """
import fpmtools
data = fpmtools.load("sim:thin+noise+aberrated@48")
known = fpmtools.calibrate(data, "pupil", z_um=0)
for calibration in ("nominal", known):
    made = fpmtools.reconstruct(
        data, "wirtinger", z_um=0, options={"iterations": 30}, calibration=calibration, calibrate="none"
    )
    print(fpmtools.evaluate(made, data, ["psnr"])["psnr"])
"""


def test_it_gains_from_a_calibration_that_it_knows_nothing_of(environment: Environment) -> None:
    """The host finds the aberrations, the solver is given the forward model that has them."""
    given, calibrated = map(float, environment.run(environment.bin / "python", "-c", GAINS).split())
    assert calibrated > given + 8


def test_its_own_tests_pass_there(environment: Environment) -> None:
    said = environment.run(
        environment.bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", environment.folder / "template"
    )
    assert " passed" in said
    assert " failed" not in said
