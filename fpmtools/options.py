"""A solver's options: fields with a description, a range and a unit, checked whoever gives them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from fpmtools.errors import OptionError, unknown


class Configurable(Protocol):
    """A class with options: a solver's."""

    Options: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]


def option(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A field of a solver's options dataclass; the command line, the documentation and the checks all come from it."""
    return dataclasses.field(
        default=default,
        metadata={"doc": doc, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices},
    )


def make_options(solver: type[Configurable], values: Mapping[str, Any], preset: str | None = None) -> Any:
    """Build and check a solver's options from ``key=value`` pairs (strings or typed), on top of a preset.

    A ``preset`` key in ``values`` is the same as the argument.

    Raises
    ------
    OptionError
        Unknown preset or option (with the nearest name), a value of the wrong kind, out of range, or no choice.
    """
    values = dict(values)
    preset = values.pop("preset", preset)
    chosen: dict[str, Any] = {}
    if preset is not None and preset != "default":
        if preset not in solver.presets:
            raise unknown("preset", str(preset), ["default", *solver.presets])
        chosen.update(solver.presets[preset])
    chosen.update(values)
    fields = {f.name: f for f in dataclasses.fields(solver.Options)}
    hints = typing.get_type_hints(solver.Options)
    checked = {}
    for name, value in chosen.items():
        if name not in fields:
            raise unknown("option", name, [*fields, *(["preset"] if solver.presets else [])])
        checked[name] = _check(name, value, hints[name], fields[name].metadata)
    return solver.Options(**checked)


def describe_options(solver: type[Configurable]) -> list[dict[str, Any]]:
    """One JSON-ready row per option: name, type, default, unit, minimum, maximum, choices, doc."""
    hints = typing.get_type_hints(solver.Options)
    return [
        {"name": f.name, "type": _type_name(hints[f.name]), "default": f.default, **dict(f.metadata)}
        for f in dataclasses.fields(solver.Options)
    ]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _type_name(hint: Any) -> str:
    return " | ".join("none" if t is type(None) else t.__name__ for t in _alternatives(hint))


def _check(name: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    for kind in _alternatives(hint):
        try:
            value = _convert(value, kind)
            break
        except (TypeError, ValueError):
            continue
    else:
        raise OptionError(f"option {name}: {value!r} is not {_type_name(hint)}")
    choices, low, high = meta.get("choices"), meta.get("minimum"), meta.get("maximum")
    if choices is not None and value not in choices:
        raise unknown(f"value of option {name}:", str(value), map(str, choices))
    if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
        bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"from {low} to {high}"
        raise OptionError(f"option {name}: {value} is out of range; it must be {bounds}")
    return value


def _convert(value: Any, kind: Any) -> Any:
    text = value.strip().lower() if isinstance(value, str) else None
    if kind is type(None):
        if value is None or text == "none":
            return None
    elif kind is bool:
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if text in {"true", "yes", "on", "1", "false", "no", "off", "0"}:
            return text in {"true", "yes", "on", "1"}
    elif kind is int:
        if text is not None:
            return int(text)
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return int(value)
    elif kind is float:
        if text is not None or (isinstance(value, int | float | np.number) and not isinstance(value, bool)):
            number = float(value)
            if np.isfinite(number):
                return number
    elif kind is str and isinstance(value, str):
        return value
    raise ValueError
