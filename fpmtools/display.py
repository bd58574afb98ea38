"""How objects show themselves to people: a few lines of text, tables, and in a notebook pictures.

What draws is named and not imported, as a plugin's code is: drawing comes last.
"""

from __future__ import annotations

import importlib
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fpmtools.errors import printable

NARROWEST = 60  # columns of a table, however narrow the terminal is
_GAP, _LABEL = 2, 20  # columns between those of a table; of one that is not folded


def drawn(by: str, *what: Any, **how: Any) -> Any:
    """What the function called ``module:name`` makes of it."""
    module, _, name = by.partition(":")
    return getattr(importlib.import_module(module), name)(*what, **how)


class Shown:
    """Shows itself as a title and a few labelled facts, and in a notebook as these with a picture."""

    drawn_by: ClassVar[str]

    def heading(self) -> str:
        """What it is, in a few words."""
        return type(self).__name__

    def facts(self) -> dict[str, str]:
        """Label → value, each short."""
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = self.facts()
        indent = " " * (max(map(len, facts), default=0) + 4)
        lines = [
            textwrap.fill(
                printable(v, 400), _room(), initial_indent=f"  {k}".ljust(len(indent)), subsequent_indent=indent
            )
            for k, v in facts.items()
        ]
        return "\n".join([printable(self.heading()), *lines])

    def _repr_html_(self) -> str:
        return str(drawn(self.drawn_by, self))


class Listing(dict[str, dict[str, Any]]):
    """Rows by name, a dict of dicts, that show themselves as a table; ``head`` is what the names are of."""

    def __init__(self, rows: Mapping[str, dict[str, Any]], head: str, note: str = "") -> None:
        super().__init__(rows)
        self.head, self.note = head, note

    def table(self) -> list[list[str]]:
        """Heads and rows as text; columns in which no row has anything are left out."""
        keys = list(dict.fromkeys(key for row in self.values() for key in row))
        keys = [key for key in keys if any(row.get(key) not in (None, "", ()) for row in self.values())]
        rows = [[name, *(_cell(row.get(key)) for key in keys)] for name, row in self.items()]
        return [[self.head, *keys], *rows]

    def __repr__(self) -> str:
        return "\n".join(filter(None, [table(self.table()), printable(self.note)]))

    def _repr_html_(self) -> str:
        return str(drawn("fpmtools.report.notebook:listing", self))


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the first one the head, as text that fits the terminal: columns of words are folded."""
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for head, width in zip(lines[0], _widths(lines), strict=True):
        shown.add_column(Text(printable(head)), overflow="fold", no_wrap=width <= _LABEL)
    for line in lines[1:]:
        shown.add_row(*(Text(printable(cell)) for cell in line))
    console = Console(file=io.StringIO(), width=_room(), force_terminal=False, color_system=None)
    with console.capture() as text:
        console.print(shown)
    return "\n".join(line.rstrip() for line in text.get().splitlines())


def fitting(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of each line as many cells as fit the terminal unfolded, two at least."""
    room, count = _room(), 0
    for width in _widths(lines):
        room -= width + _GAP
        count += room >= -_GAP or count < 2
    return [[*line[:count]] for line in lines]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _room() -> int:
    return max(NARROWEST, shutil.get_terminal_size().columns)


def number(value: float, digits: int = 4) -> str:
    """With so many digits and a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def span(low: float, high: float, unit: str = "µm") -> str:
    """``3 µm``, or ``−10 … 10 µm``."""
    return f"{number(low)} {unit}" if low == high else f"{number(low)} … {number(high)} {unit}"


def depths(z_um: Sequence[float]) -> str:
    """``3 µm``, or ``5 planes, −10 … 10 µm``."""
    return (f"{len(z_um)} planes, " if len(z_um) > 1 else "") + span(z_um[0], z_um[-1])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
