"""What a solver record accepts, and how it refuses the rest."""

from __future__ import annotations

from typing import Any

import pytest

from fpmtools import SolverRecord
from fpmtools.errors import FpmError

GOOD: dict[str, Any] = {
    "name": "my-solver2",
    "summary": "One line",
    "solver": "package.module:Class",
    "reconstructions": {"my-kind": "package:Kind"},
    "capabilities": frozenset({"2d", "continuous-z"}),
    "references": ("A paper, doi:10.1000/1",),
}


def test_a_good_record_keeps_its_values() -> None:
    record = SolverRecord(**GOOD)
    assert {name: getattr(record, name) for name in GOOD} == GOOD
    assert record.api_version == 1
    assert SolverRecord(name="a", summary="b", solver="c:D").reconstructions == {}


def test_lists_and_sets_are_accepted_as_collections() -> None:
    record = SolverRecord(**{**GOOD, "capabilities": {"2d"}, "references": ["A"]})
    assert record.capabilities == frozenset({"2d"})
    assert record.references == ("A",)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "My_Solver", "name 'My_Solver' must be lower-case"),
        ("name", "", "name '' must be"),
        ("name", "2d", "a letter first"),
        ("name", "ap\n", "must be lower-case"),
        ("name", None, "name None must be"),
        ("summary", "two\nlines", "summary 'two\\x0alines' must be one line"),
        ("summary", " ", "must be one line"),
        ("solver", "module.Class", "must be 'module:Class'"),
        ("solver", "module:Class()", "must be 'module:Class'"),
        ("solver", int, "must be 'module:Class'"),
        ("reconstructions", ["kind"], "must be a mapping"),
        ("reconstructions", {"kind": "module"}, "reconstructions {'kind': 'module'} must be"),
        ("reconstructions", {1: "module:Class"}, "reconstructions {1: 'module:Class'} must be"),
        ("capabilities", "2d", "capabilities '2d' must be a collection"),
        ("capabilities", {"z-stak"}, "did you mean 'z-stack'?"),
        ("references", "A paper", "references 'A paper' must be a collection"),
        ("references", (1,), "references (1,) must be"),
        ("api_version", 2, "version 2 of the solver interface and this fpmtools has version 1: upgrade fpmtools"),
        ("api_version", 0, "api_version 0 must be 1"),
        ("api_version", "1", "api_version '1' must be 1"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(field: str, value: Any, says: str) -> None:
    with pytest.raises(FpmError) as refused:
        SolverRecord(**{**GOOD, field: value})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
