"""The guide for authors says everything that the contract has, and its code is code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fpmtools import (
    ForwardModel,
    MetricRecord,
    PlaneSolver,
    Problem,
    Reconstruction,
    Solver,
    SolverRecord,
    evaluate,
    option,
    reconstruct,
    records,
    simulate,
)
from fpmtools.registry.hooks import Hooks

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = (DOCS / "writing-a-solver.md").read_text()
METRICS = (DOCS / "writing-a-metric.md").read_text()
CODE, METRIC = (re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) for text in (GUIDE, METRICS))


@pytest.mark.parametrize(
    "name",
    [
        *(field.name for field in dataclasses.fields(SolverRecord)),
        *(field.name for field in dataclasses.fields(MetricRecord)),
        *(name for name in vars(Hooks) if name.startswith("fpmtools")),
        *sorted(records.CAPABILITIES),
        *(field.name for field in dataclasses.fields(Problem)),
        *(name for name in vars(Problem) if not name.startswith("_")),
        *sorted(Solver.__abstractmethods__),
        *(name for name in (*vars(PlaneSolver), *PlaneSolver.__annotations__) if not name.startswith("_")),
        *sorted(Reconstruction.__abstractmethods__),
        *(name for name in option.__annotations__ if name != "return"),
        "presets",
        "dump",
    ],
)
def test_every_name_of_the_contract_is_explained(name: str) -> None:
    assert re.search(rf"`[^`\n]*\b{re.escape(name)}\b[^`\n]*`", GUIDE + METRICS), f"{name} is not in the guides"


def test_names_of_the_forward_model_exist() -> None:
    for name in re.findall(r"`(\w+)(?:\([\w, ]*\))?`", GUIDE.split("has three levels")[1].split("\n## ")[0]):
        assert callable(getattr(ForwardModel, name)), name


def test_the_examples_run() -> None:
    solver, planes, announcement, test = CODE
    names: dict[str, object] = {"__name__": "guide"}
    exec(compile(solver, "solver", "exec", dont_inherit=True), names)
    assert not names["MySolver"].__abstractmethods__  # type: ignore[attr-defined]
    exec(compile(planes, "planes", "exec", dont_inherit=True), names)
    assert not names["MyPlaneSolver"].__abstractmethods__  # type: ignore[attr-defined]
    exec(compile(announcement, "announcement", "exec", dont_inherit=True), names)
    (record,) = names["fpmtools_solvers"]()  # type: ignore[operator]
    assert record.name == "my-solver"
    exec(compile(test, "test", "exec", dont_inherit=True), names)
    assert "TestMySolver" in names


def test_the_metric_is_one_like_any_other(plugin: Callable[..., Path]) -> None:
    announcement, measures = METRIC
    plugin("fpmtools-finer", announcement.replace("fpmtools_finer.measures", "fpmtools_finer_measures"), "finer")
    plugin("fpmtools-finer-measures", measures, metadata="")
    data = simulate("thin", image_shape=(32, 40))
    result = reconstruct(data, "ap", options={"sweeps": 10})
    assert 1 < evaluate(result, data, ["finer"])["finer"] < 60
    assert "finer" in evaluate(result, data)
