"""A solver's options: fields with a description, a range and a unit, checked whoever gives them."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, Union

from fpmtools.errors import OptionError, printable, unknown

KINDS = (bool, int, float, str, type(None))
INTEGERS = range(-(2**63), 2**63)  # what arrays can hold


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
    """A field of a solver's options dataclass; the command line, the documentation and the checks all come from it.

    Its type is ``bool``, ``int``, ``float``, ``str``, a ``Literal`` of these, or a union of them and None.
    """
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
    types_of = _types(solver)
    checked = {}
    for name, value in chosen.items():
        if name not in fields:
            raise unknown("option", name, [*fields, *(["preset"] if solver.presets else [])])
        checked[name] = _check(name, value, types_of[name], fields[name].metadata)
    return solver.Options(**checked)


def describe_options(solver: type[Configurable]) -> list[dict[str, Any]]:
    """One JSON-ready row per option: name, type, default, unit, minimum, maximum, choices, doc.

    Raises :class:`OptionError` for an option of a type that cannot be typed in.
    """
    types_of = _types(solver)
    rows = [
        {"name": f.name, "type": _in_words(types_of[f.name]), "default": f.default, **dict(f.metadata)}
        for f in dataclasses.fields(solver.Options)
    ]
    for row in rows:
        if row.get("choices") is None and (literal := _choices(types_of[row["name"]])):
            row["choices"] = literal
    return rows


def _types(solver: type[Configurable]) -> dict[str, tuple[Any, ...]]:
    """Each option's alternatives: kinds of value, and literals."""
    hints = typing.get_type_hints(solver.Options)
    return {f.name: tuple(_alternatives(f.name, hints[f.name])) for f in dataclasses.fields(solver.Options)}


def _alternatives(name: str, hint: Any) -> typing.Iterator[Any]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is Union:
        for part in typing.get_args(hint):
            yield from _alternatives(name, part)
    elif hint in KINDS or (typing.get_origin(hint) is Literal and all(type(v) in KINDS for v in typing.get_args(hint))):
        yield hint
    else:
        text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else hint
        raise OptionError(
            f"option {name} has the type {printable(text, 80)}; it must be bool, int, float, str, None, a Literal of "
            "these, or a union of them"
        )


def _choices(alternatives: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of an option that takes nothing else."""
    literals = [typing.get_args(kind) for kind in alternatives if kind not in KINDS]
    return tuple(value for some in literals for value in some) if len(literals) == len(alternatives) else ()


def _in_words(alternatives: tuple[Any, ...]) -> str:
    names: list[str] = []
    for kind in alternatives:
        literal = typing.get_args(kind)
        names += [v if isinstance(v, str) else str(v).lower() for v in literal] or [kind.__name__]
    return " | ".join(names).replace("NoneType", "none")


def _check(name: str, value: Any, alternatives: tuple[Any, ...], meta: Mapping[str, Any]) -> Any:
    for kind in alternatives:
        try:
            value = _convert(value, kind)
            break
        except (TypeError, ValueError, OverflowError):
            continue
    else:
        if literal := _choices(alternatives):
            raise unknown(f"value of option {name}:", printable(value, 80), map(str, literal))
        raise OptionError(f"option {name}: '{printable(value, 80)}' is not {_in_words(alternatives)}")
    choices, low, high = meta.get("choices"), meta.get("minimum"), meta.get("maximum")
    if choices is not None and value not in choices:
        raise unknown(f"value of option {name}:", printable(value, 80), map(str, choices))
    if isinstance(value, str | None):
        return value
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"from {low} to {high}"
        raise OptionError(f"option {name}: {printable(value, 80)} is out of range; it must be {bounds}")
    if isinstance(value, int) and value not in INTEGERS:
        raise OptionError(f"option {name}: {printable(value, 80)} is out of range; it must have less than 64 bits")
    return value


def _convert(value: Any, kind: Any) -> Any:
    """``value`` as a ``kind``, or the one of a literal's values that it is; ValueError if it is none."""
    if getattr(value, "ndim", None) == 0:  # NumPy's numbers
        value = value.item()
    text = value.strip().lower() if isinstance(value, str) else None
    if isinstance(value, bool) and kind in (int, float):
        raise TypeError
    if kind not in KINDS:
        return _pick(value, typing.get_args(kind))
    if kind is type(None):
        if value is None or text == "none":
            return None
    elif kind is bool:
        if isinstance(value, bool):
            return value
        if text in {"true", "yes", "on", "1", "false", "no", "off", "0"}:
            return text in {"true", "yes", "on", "1"}
    elif kind is int:
        if text is not None:
            return int(text)
        if isinstance(value, numbers.Integral):
            return int(value)
    elif kind is float:
        if text is not None or isinstance(value, numbers.Real):
            number = float(value)
            if math.isfinite(number):
                return number
    elif kind is str and isinstance(value, str):
        return value
    raise ValueError


def _pick(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        try:
            if _convert(value, type(choice)) == choice:
                return choice
        except (TypeError, ValueError, OverflowError):
            continue
    raise ValueError
