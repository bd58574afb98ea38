"""What is shipped: a wheel and an sdist that are whole and lean, and texts beside them that say the same version."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

import fpmtools

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT_IN = [name for name in PROJECT["entry-points"]["fpmtools"] if name not in ("metrics", "formats", "pictures")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built without a network: the wheel from the sdist, as an index would."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.install
def test_an_index_would_take_them(built: Path) -> None:
    pytest.importorskip("twine")
    files = [str(path) for path in built.iterdir()]
    assert len(files) == 2
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.install
def test_the_wheel_is_whole_and_lean(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name for name in names if name.endswith(".dist-info/METADATA")).removesuffix("METADATA")
        about = message_from_bytes(archive.read(info + "METADATA"))
        assert archive.read(info + "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert archive.read("fpmtools/data_manifest.yaml") == (ROOT / "data_manifest.yaml").read_bytes()
    assert about["Version"] == fpmtools.__version__ == PROJECT["version"]
    assert about["License-Expression"] == PROJECT["license"]
    tops = {name.split("/")[0] for name in names} - {info.rstrip("/")}
    assert tops == {"fpmtools", *(PROJECT["entry-points"]["fpmtools"][name] for name in BUILT_IN)}
    assert not [name for name in names if re.search(r"(^|/)(tests?|docs|conftest|__pycache__|\..*cache)(/|\.|$)", name)]
    for source in (ROOT / "fpmtools").rglob("*"):
        if source.is_file() and "__pycache__" not in source.parts:
            assert str(source.relative_to(ROOT)) in names


@pytest.mark.install
def test_the_sdist_has_what_it_takes_to_test_and_document_it(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive.getmembers() if "/" in member.name}
    wanted = ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "Makefile", "docs/conf.py")
    assert {*wanted, "docs/index.rst", "tests/conftest.py", "plugins/template/pyproject.toml"} <= names
    junk = ("docs/_build", "docs/api", "docs/examples", ".venv", "out", ".git", ".pytest_cache", ".mypy_cache", ".ci")
    assert not [name for name in names if name.startswith(tuple(f"{folder}/" for folder in junk))]
    assert sdist.stat().st_size < 10e6


def test_the_citation_is_of_this_version() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["version"] == PROJECT["version"]
    assert cff["license"] == PROJECT["license"]
    assert cff["authors"] == [{"name": "The fpmtools developers"}]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for reference in cff["references"]:
        assert f"doi:{reference['doi']}" in readme


@pytest.mark.parametrize("name", ["bug", "data"])
def test_forms_ask_for_what_is_needed(name: str) -> None:
    """By GitHub's schema of issue forms: inputs have labels, ids are unique, and what is required is said."""
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked)
    required = {part["id"] for part in asked if part.get("validations", {}).get("required")}
    assert {"doctor", "inspect"} & {part["id"] for part in asked} <= required
    assert "doctor" in required
    for part in asked:
        assert part["attributes"]["label"]


def test_the_image_is_pinned_and_its_user_is_not_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    said = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    (base,) = [rest for word, rest in said if word == "FROM"]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    words = [word for word, _ in said]
    assert dict(said)["USER"] not in ("root", "0")
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert any("-c constraints.txt" in rest for word, rest in said if word == "RUN")
