"""The examples in the docstrings of what is public: they run, and give what they say."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import fpmtools
from fpmtools import errors, pupil

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITH_EXAMPLE = {
    "calibrate", "compare", "evaluate", "inspect", "load", "open_result", "options", "reconstruct", "resume", "run",
    "simulate", "solvers", "Dataset", "Optics", "Reconstruction",
}  # fmt: skip


def examples() -> list[doctest.DocTest]:
    """Of every public name, methods included, and of a few helpers."""
    finder, found = doctest.DocTestFinder(exclude_empty=True), {}
    public = {name: getattr(fpmtools, name) for name in fpmtools.__all__ if name not in ("__version__", "explained")}
    for name, thing in {**public, "errors.expect": errors.expect, "in_words": pupil.Pupil.in_words}.items():
        for test in finder.find(thing, name, extraglobs={"fpmtools": fpmtools, "np": np, "Pupil": pupil.Pupil}):
            found |= {test.name: test} if test.examples else {}
    return list(found.values())


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_example(test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


def test_what_people_call_has_an_example() -> None:
    assert {test.name.split(".")[0] for test in examples()} >= WITH_EXAMPLE


@pytest.mark.parametrize("name", sorted(set(fpmtools.__all__) - {"__version__", "hookimpl"}))
def test_what_is_public_is_documented(name: str) -> None:
    """Functions in numpydoc's form, with every argument, and what they return and raise."""
    thing = getattr(fpmtools, name)
    assert inspect.getdoc(thing)
    if name not in WITH_EXAMPLE or not inspect.isfunction(thing):
        return
    text = inspect.getdoc(thing) or ""
    for argument in inspect.signature(thing).parameters:
        assert argument in text, argument


@pytest.mark.usefixtures("warm_workers")
def test_the_page_about_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    page = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) > 4
    names: dict[str, object] = {}
    exec("\n".join(blocks), names)
    result = names["best"]
    assert isinstance(result, fpmtools.Reconstruction)
    assert result.field().shape == (96, 128)
    assert (tmp_path / "microscope.safetensors").is_file()
    from matplotlib import pyplot

    pyplot.close("all")
