"""Options: every type that can be typed in, from text and from Python, and one short line for all else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, make_dataclass
from typing import Any, ClassVar, Literal, Optional

import numpy as np
import pytest

from fpmtools import option
from fpmtools.errors import OptionError
from fpmtools.options import describe_options, make_options


@dataclass(frozen=True)
class Options:
    batch: Optional[int] = option(None, "LEDs at once", minimum=1)  # noqa: UP045 (it is what is tested)
    loss: Literal["amplitude", "poisson"] = option("amplitude", "What is minimised")
    order: Literal[1, 2] = option(1, "Order")
    rate: float | Literal["auto"] = option("auto", "Step")
    size: int = option(3, "Size")
    name: str | None = option(None, "Name")
    fast: bool = option(False, "Fast")


class Configured:
    Options = Options
    presets: ClassVar[dict[str, Any]] = {}


def make(**values: Any) -> Options:
    options: Options = make_options(Configured, values)
    return options


def test_optional_and_literal_options_work_from_text_and_from_python() -> None:
    assert make(batch="4").batch == make(batch=4).batch == make(batch=np.int64(4)).batch == 4
    assert make(batch="none").batch is make(batch=None).batch is None
    assert make(loss="poisson").loss == "poisson"
    assert make(order="2").order == make(order=2).order == 2
    assert (make(rate="auto").rate, make(rate="0.5").rate, make(rate=1).rate) == ("auto", 0.5, 1.0)
    assert type(make(rate=np.float32(0.5)).rate) is float
    assert make(fast=np.True_).fast is True
    rows = {row["name"]: row for row in describe_options(Configured)}
    assert rows["batch"]["type"] == "int | none"
    assert (rows["loss"]["type"], rows["loss"]["choices"]) == ("amplitude | poisson", ("amplitude", "poisson"))
    assert (rows["rate"]["type"], rows["rate"]["choices"]) == ("float | auto", None)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("batch", "0", "option batch: 0 is out of range; it must be at least 1"),
        ("batch", "many", "option batch: 'many' is not int | none"),
        ("loss", "poison", "unknown value of option loss: 'poison': did you mean 'poisson'?"),
        ("order", 3, "unknown value of option order: '3': known: 1, 2"),
        ("order", True, "unknown value of option order: 'True': known: 1, 2"),
        ("rate", "fast", "option rate: 'fast' is not float | auto"),
        ("size", [1], "option size: '[1]' is not int"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any, says: str) -> None:
    with pytest.raises(OptionError) as refused:
        make(**{name: value})
    assert str(refused.value) == says


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 10**5000),
        ("size", "9" * 4000),
        ("size", "9" * 5000),
        ("size", -(2**63) - 1),
        ("rate", "1e400"),
        ("rate", 10**400),
        ("rate", "x" * 5000),
        ("x" * 5000, 1),
        ("\x1b[2J", 1),
        ("preset", "\x1b[2J" * 1000),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_huge_numbers_and_endless_names_are_one_short_line(name: str, value: Any) -> None:
    with pytest.raises(OptionError) as refused:
        make_options(Configured, {name: value})
    assert len(str(refused.value)) < 250
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("hint", "named"),
    [
        (list[int], "list[int]"),
        (tuple[float, float], "tuple[float, float]"),
        (dict, "dict"),
        (int | bytes, "bytes"),
        (Literal[b"x"], "typing.Literal[b'x']"),
        (frozenset, "frozenset"),
    ],
    ids=str,
)
def test_a_type_that_cannot_be_typed_in_is_refused_with_option_and_type(hint: Any, named: str) -> None:
    options = make_dataclass("Options", [("shape", hint, option(None, "Shape"))], frozen=True)
    solver = type("Solver", (), {"Options": options, "presets": {}})
    with pytest.raises(OptionError) as refused:
        describe_options(solver)
    assert str(refused.value).startswith(f"option shape has the type {named}; it must be bool, int, float, str, None")


def test_options_import_neither_torch_nor_numpy() -> None:
    code = "import sys, fpmtools.options; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
