"""A value of the wrong kind, for whatever people call, is an error of fpmtools' own in one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fpmtools
from fpmtools.formats import native

# What authors of solvers call with what the host gives them, and often.
OF_AUTHORS = {"hookimpl", "one_cycle", "option", "put", "take"}
FUNCTIONS = [
    name for name in fpmtools.__all__ if inspect.isfunction(getattr(fpmtools, name)) and name not in OF_AUTHORS
]
# Yes or no, for which Python takes anything; and functions.
ANYTHING = {"bool", "bool | None", "OnEvent | None", "OnProgress | None"}


def parameters(name: str) -> Iterator[inspect.Parameter]:
    for one in inspect.signature(getattr(fpmtools, name)).parameters.values():
        if (
            one.kind is not one.VAR_KEYWORD
            and str(one.annotation) not in ANYTHING
            and "Callable" not in str(one.annotation)
        ):
            yield one


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    """Arguments that are right, but for what would take long: that is not there."""
    data = fpmtools.simulate("thin", image_shape=(16, 24))
    result = fpmtools.reconstruct(data, "ap", options={"sweeps": 1})
    folder = tmp_path_factory.mktemp("kinds")
    file = native.save(data, folder / "data.safetensors")
    return {
        "load": (file,), "simulate": (), "simulate_slide": (folder / "slide",), "reconstruct": (data, "ap"),
        "evaluate": (result, data), "compare": ("sim:none",), "inspect": (data,), "calibrate": (data,),
        "options": ("ap",), "run": (fpmtools.RunSpec("sim:none", "ap"), folder / "run"), "resume": (folder / "none",),
        "open_result": (folder / "none",), "export": (result, folder / "a.npy"), "to_deepinv": (data,), "solvers": (),
    }  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_argument_of_the_wrong_kind_is_named_in_a_line(
    name: str, given: dict[str, tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    function: Callable[..., Any] = getattr(fpmtools, name)
    for place, one in enumerate(parameters(name)):
        for bad in (object(), *([None] if one.default is one.empty else [])):
            args, more = list(given[name]), {}
            if place < len(args):
                args[place] = bad
            else:
                more[one.name] = bad
            with pytest.raises(fpmtools.FpmError) as found:
                function(*args, **more)
            assert "\n" not in str(found.value), one.name


def test_a_number_is_no_data() -> None:
    with pytest.raises(fpmtools.FpmError, match="load: source must be a path, or the name of a data set, got 3"):
        fpmtools.load(3)  # type: ignore[arg-type]
