"""Metrics from other distributions: usable like the built-in ones, and harmless when they are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpmtools import MetricRecord, PlaneStack, reconstruct, registry, simulate
from fpmtools.errors import FpmError, SolverError
from fpmtools.evaluation import evaluate

SOURCE = """
from fpmtools import MetricRecord, hookimpl

@hookimpl
def fpmtools_metrics():
    return [MetricRecord(name={name!r}, summary='For a test', measure={measure!r})]

def planes(case):
    return len(case.reconstruction.z_um)

def none(case):
    return None

def broken(case):
    return 1 / 0

def text(case):
    return 'many'
"""
GOOD: dict[str, Any] = {"name": "my_metric2", "summary": "One line", "measure": "package.module:function"}


def announce(module: str, function: str, name: str = "plane_count") -> str:
    return SOURCE.format(name=name, measure=f"{module}:{function}")


@pytest.fixture(scope="module")
def case() -> tuple[Any, Any]:
    data = simulate("thin", image_shape=(16, 21))
    result = reconstruct(data, "ap", options={"sweeps": 1}, device="cpu", z_um=(-1.0, 0.0, 1.0), exact=True)
    assert isinstance(result, PlaneStack)
    return result, data


def test_a_third_partys_metric_is_computed_like_any(plugin: Callable[..., Path], case: tuple[Any, Any]) -> None:
    plugin("counting", announce("counting", "planes"))
    assert evaluate(*case, ["plane_count", "stored_bytes"])["plane_count"] == 3
    assert evaluate(*case)["plane_count"] == 3
    (supplied,) = (s for s in registry.metrics() if s.record.name == "plane_count")
    assert str(supplied) == "counting 1.0"
    assert registry.faults() == []
    assert {s.record.name for s in registry.solvers()} >= {"ap", "adam", "inr"}


def test_one_distribution_may_bring_a_solver_and_a_metric(
    plugin: Callable[..., Path], announcing: Callable[..., str]
) -> None:
    plugin("both", announcing("both") + announce("both", "planes"))
    assert registry.find("both").distribution == "both"
    assert "plane_count" in {s.record.name for s in registry.metrics()}


def test_a_metric_without_meaning_here_is_left_out(plugin: Callable[..., Path], case: tuple[Any, Any]) -> None:
    plugin("shy", announce("shy", "none"))
    assert evaluate(*case, ["plane_count", "rmse"]).keys() == {"rmse"}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("broken", "metric 'plane_count' of bad 1.0: ZeroDivisionError: division by zero"),
        ("text", "metric 'plane_count' of bad 1.0: ValueError: could not convert"),
        ("missing", "metric 'plane_count' of bad 1.0: cannot import bad:missing"),
    ],
)
def test_a_broken_metric_is_named(
    plugin: Callable[..., Path], case: tuple[Any, Any], function: str, words: str
) -> None:
    plugin("bad", announce("bad", function))
    with pytest.raises(SolverError, match=words):
        evaluate(*case, ["plane_count"])
    assert evaluate(*case, ["rmse"]).keys() == {"rmse"}


def test_a_taken_name_is_refused_with_both_suppliers(plugin: Callable[..., Path], case: tuple[Any, Any]) -> None:
    before = evaluate(*case, ["psnr"])
    plugin("thief", announce("thief", "planes", "psnr"))
    assert evaluate(*case, ["psnr"]) == before
    (fault,) = registry.faults()
    assert str(fault) == (
        "plugin 'thief' of thief: metric 'psnr' is already supplied by fpmtools; this one is left out"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def fpmtools_metrics():\n    return 3\n", "fpmtools_metrics must return a list of MetricRecord"),
        ("def fpmtools_metrics():\n    return [{}]\n", "fpmtools_metrics must return a list of MetricRecord"),
        ("def fpmtools_metrics():\n    raise OSError('no')\n", "failed to announce its metrics: OSError: no"),
    ],
)
def test_a_hook_that_fails_is_a_fault_and_costs_nobody_else(
    plugin: Callable[..., Path], source: str, words: str
) -> None:
    plugin("bad", f"from fpmtools import hookimpl\n\n@hookimpl\n{source}")
    (fault,) = registry.faults()
    assert words in str(fault)
    assert "psnr" in {s.record.name for s in registry.metrics()}


def test_a_good_record_keeps_its_values() -> None:
    record = MetricRecord(**GOOD, unit="dB", better="higher", needs_truth=True, cost="solves", references=["A"])
    assert (record.unit, record.better, record.references) == ("dB", "higher", ("A",))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "My-Metric", "MetricRecord: name 'My-Metric' must be lower-case"),
        ("summary", "two\nlines", "must be one line"),
        ("measure", "function", "must be 'module:function'"),
        ("unit", None, "unit None must be a str"),
        ("better", "bigger", "must be 'higher', 'lower' or ''"),
        ("needs_truth", 1, "needs_truth 1 must be True or False"),
        ("cost", "much", "must be 'cheap' or 'solves'"),
        ("references", "A paper", "must be a collection of str"),
        ("api_version", 2, "metric 'my_metric2' is written for version 2 of the metric interface"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(field: str, value: Any, says: str) -> None:
    with pytest.raises(FpmError) as caught:
        MetricRecord(**{**GOOD, field: value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
