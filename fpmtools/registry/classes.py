"""The classes that records point to: imported, checked, and described in plain data."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fpmtools.errors import OptionError, SolverError
from fpmtools.options import describe_options, make_options
from fpmtools.records import SolverRecord
from fpmtools.registry.entries import Supplied
from fpmtools.registry.hooks import foreign

if TYPE_CHECKING:
    from fpmtools.solver import Solver


@dataclass(frozen=True)
class Description:
    """What a solver says of itself, JSON-ready: one row per option, the presets, and whether it can be resumed."""

    supplied: Supplied[SolverRecord]
    options: list[dict[str, Any]]
    presets: dict[str, dict[str, Any]]
    resumable: bool


def describe(supplied: Supplied[SolverRecord], options: Mapping[str, Any]) -> Description:
    """Import a solver's class, and check ``options`` for it.

    Raises :class:`OptionError` for wrong options and :class:`SolverError` for a solver that cannot be used.
    """
    cls = load_solver(supplied)
    with foreign(f"{called(supplied)}: cannot take its options", passing=(OptionError,)):
        make_options(cls, options)
    with foreign(f"{called(supplied)}: cannot describe its options"):
        presets = {name: dict(values) for name, values in cls.presets.items()}
        return Description(supplied, describe_options(cls), presets, bool(cls.resumable()))


def load_solver(supplied: Supplied[SolverRecord]) -> type[Solver[Any]]:
    """The class of a solver, imported and checked; :class:`SolverError` when it cannot be used."""
    from fpmtools.solver import Solver

    what, path = called(supplied), supplied.record.solver
    cls = import_class(path, Solver, what)
    with foreign(f"{what}: cannot read its options"):
        if not dataclasses.is_dataclass(getattr(cls, "Options", None)):
            raise SolverError(f"{path} has no Options dataclass")
        for option in describe_options(cls):
            if "doc" not in option:
                name = option["name"]
                raise SolverError(f"option {name} must be made with fpmtools.option(default, description)")
    return cls


def called(supplied: Supplied[SolverRecord]) -> str:
    """The solver with its name and supplier, for messages."""
    return f"solver {supplied.record.name!r} of {supplied}"


def import_class(path: str, base: type[Any], what: str) -> type[Any]:
    """Import ``"module:Class"`` and check that it is a complete subclass of ``base``."""
    module, _, name = path.partition(":")
    with foreign(f"{what}: cannot import {path}"):
        cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise SolverError(f"{what}: {path} is not a subclass of fpmtools.{base.__name__}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise SolverError(f"{what}: {path} does not implement {missing}")
    return cls
