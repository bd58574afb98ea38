"""Places of LEDs on their grid that the names of the image files tell."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError, printable

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_DIGITS = r"(?P<digits>\d{2,})"
# Tried in this order on names without their suffix; the first that fits every name counts.
_KNOWN = (
    rf"(?:^|.*[^a-z])x[ _=]?(?P<x>{_NUMBER})[ _,]+y[ _=]?(?P<y>{_NUMBER})(?:[^\d.].*)?",
    r"(?:^|.*[^a-z])r(?:ow)?[ _=]?(?P<row>\d+)[ _,]*c(?:ol)?[ _=]?(?P<col>\d+)(?:[^\d].*)?",
    rf"(?:.*[ _])?(?P<row>{_NUMBER})[ _,](?P<col>{_NUMBER})",
    _DIGITS,
)
_FORMS = "image_x_3_y_-2, r3_c5, scan_03_05 (row, column) or 0305 (row, column)"


def places(names: Sequence[str], pattern: str | None = None) -> NDArray[np.float64]:
    """Grid places [image, (x, y)] from file names without their suffixes; a column is x, a row is y.

    ``pattern``: how the names are made, such as ``"image_x_{x}_y_{y}"`` or ``"{row}{col}"`` (an even number of digits,
    the first half of them the row); * stands for anything. Without it one of the usual forms must fit every name: x and
    y spelled out, r and c, two numbers (row, column) at the end, or the even number of digits. Raises
    :class:`DataError` when none does.
    """
    if pattern is not None:
        expression = _expression(pattern)
        for name in names:
            if _place(expression, name) is None:
                raise DataError(f"the file name {printable(name)!r} is not made like {printable(pattern)!r}")
        return np.array([_place(expression, name) for name in names])
    for expression in _KNOWN:
        found = [_place(expression, name) for name in names]
        if None not in found:
            return np.array(found)
    raise DataError(
        f"file names such as {printable(names[0])!r} do not tell LED positions: they should be like {_FORMS}, or give "
        'a pattern such as "led_{x}_{y}"'
    )


def _expression(pattern: str) -> str:
    """The regular expression of a pattern."""
    parts = re.split(r"(\{\w+\}|\*)", pattern.strip())
    fields = [part for part in parts if part.startswith("{")]
    if sorted(fields) not in (["{x}", "{y}"], ["{col}", "{row}"]):
        raise DataError(f"the pattern {printable(pattern)!r} must have {{x}} and {{y}}, or {{row}} and {{col}}, once")
    if "}{" in pattern:
        if fields != ["{row}", "{col}"]:
            raise DataError(f"the pattern {printable(pattern)!r} needs something between its two numbers")
        before, after = pattern.strip().split("{row}{col}")
        return f"{_literal(before)}{_DIGITS}{_literal(after)}"
    return "".join(f"(?P<{part[1:-1]}>{_NUMBER})" if part in fields else _literal(part) for part in parts)


def _literal(text: str) -> str:
    return ".*".join(re.escape(part) for part in text.split("*"))


def _place(expression: str, name: str) -> tuple[float, float] | None:
    """(x, y) if the expression fits the name."""
    match = re.fullmatch(expression, name, re.IGNORECASE)
    if match is None:
        return None
    groups = match.groupdict()
    if "digits" in groups:
        half, odd = divmod(len(groups["digits"]), 2)
        return None if odd else (float(groups["digits"][half:]), float(groups["digits"][:half]))
    return float(groups.get("x") or groups["col"]), float(groups.get("y") or groups["row"])
