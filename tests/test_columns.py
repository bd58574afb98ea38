"""One record per column: what a table, the report, the figures and the files say of a number."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fpmtools import columns
from fpmtools.columns import Column
from fpmtools.errors import SolverError
from fpmtools.records import MetricRecord
from fpmtools.registry import built_in_metrics

PACKAGE = Path(columns.__file__).parent
HOMES = {PACKAGE / "columns.py", PACKAGE / "evaluation" / "__init__.py"}
MINE = MetricRecord(name="stray_light_um", summary="Mine", measure="a:b", unit="µm", better="lower")


def known() -> dict[str, Column]:
    return columns.of(supplied.record for supplied in built_in_metrics())


def test_no_other_place_lists_columns() -> None:
    """Labels stand in the two homes of the records alone, and nobody else makes columns of their own."""
    labels = {column.label for key, column in known().items() if column.label not in (key, key.replace("_", " "))}
    labels = {label for label in labels if " " in label or label != label.lower()}
    assert {"PSNR", "time to target", "held-out error"} <= labels
    for path in set(PACKAGE.rglob("*.py")) - HOMES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Constant) and node.value in labels), f"{path}:{node.lineno} {node.value}"
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in {"Column", "columns.Column"}, f"{path}:{node.lineno}"


def test_every_number_has_one_column_in_its_place() -> None:
    found = known()
    assert list(found)[:3] == ["seconds", "seconds_to_target", "peak_memory_mb"]
    assert [column.rank for column in found.values()] == sorted(column.rank for column in found.values())
    assert all(column.summary and column.key == key for key, column in found.items())
    assert found["seconds"].path == ("times", "solve_s")
    assert found["psnr"].path == ("metrics", "psnr")
    assert {key for key, column in found.items() if column.spread} == {
        "seconds", "seconds_to_target", "setup_seconds", "step_seconds", "peak_memory_mb", "psnr", "ssim", "held_out",
    }  # fmt: skip


def test_a_plugins_metric_is_a_column_unless_its_name_is_taken() -> None:
    thieves = [replace(MINE, name=name, label="stolen") for name in ("status", "seconds_min", "seconds")]
    found = columns.of([MINE, *thieves])
    assert {"status", "seconds_min"}.isdisjoint(found)
    assert found["seconds"].label == "time"
    own = found["stray_light_um"]
    assert (own.label, own.title, own.hint) == ("stray light", "stray light (µm)", "Mine; lower is better")
    assert not own.main
    first = columns.of([replace(MINE, label="haze", rank=1, spread=True)])
    assert (next(iter(first)), first["stray_light_um"].title, first["stray_light_um"].main) == (
        "stray_light_um", "haze (µm)", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), [("label", "a\nb"), ("label", 3), ("rank", "first"), ("rank", True), ("spread", 1)]
)
def test_a_metric_record_says_what_is_wrong(field: str, value: object) -> None:
    with pytest.raises(SolverError, match=f"MetricRecord: {field} "):
        MetricRecord(name="a", summary="b", measure="c:d", **{field: value})  # type: ignore[arg-type]


def test_columns_survive_json_and_nonsense() -> None:
    for key, column in known().items():
        assert Column.from_dict(key, json.loads(json.dumps(column.to_dict()))) == column
    assert Column.from_dict("frc_um", {"unit": "µm", "rank": "x", "path": 3}) == Column("frc_um", "frc", "µm")


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("s", 0.012345, "0.0123"), ("s", 12.0, "12.0"), ("s", 1234.5, "1234"), ("", None, "–"), ("", math.nan, "–"),
        ("dB", 31.239, "31.24"), ("dB", math.inf, "∞"), ("bytes", 12_345, "12.3 kB"), ("bytes", 999.9, "1 kB"),
        ("bytes", 2.5e9, "2.5 GB"),
    ],
)  # fmt: skip
def test_how_a_number_is_written(unit: str, value: float | None, text: str) -> None:
    assert Column("a", unit=unit).text(value) == text


def test_reading_a_record_takes_numbers_only() -> None:
    seconds = known()["seconds"]
    assert seconds.read({"times": {"solve_s": 2.5}}) == 2.5
    for record in ({}, {"times": None}, {"times": {"solve_s": True}}, {"times": {"solve_s": "2"}}):
        assert seconds.read(record) is None
