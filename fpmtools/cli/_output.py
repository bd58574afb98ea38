"""What the commands print: the one place through which text goes to the terminal, JSON documents and tables.

Names come from files, folders, data and plugins. Whatever they hold, the terminal shows it and obeys none of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from fpmtools.errors import OutputError

if TYPE_CHECKING:
    from fpmtools.dataset import Dataset

# Control characters but for tab and newline, line separators, marks that turn the direction of writing, and halves of
# surrogate pairs, which is how Python spells the bytes of a name that is not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_GAP = 2  # columns between those of a table
_TEXT_LEAST = 16  # characters that a column of words is folded to
_Kind = Literal["words", "label", "number"]  # of a column: the first is folded where it must be, the last flush right


def echo(text: object = "", *, err: bool = False) -> None:
    """One or more lines on stdout, or stderr; characters that would steer the terminal are spelled out."""
    write(visible(str(text)) + "\n", err=err)


def visible(text: str) -> str:
    """``text`` with escapes, such as ``\\x1b``, for whatever a terminal would obey or could not show."""
    return _UNPRINTABLE.sub(_escape, text)


def write(text: str, *, err: bool = False) -> None:
    """Text as it is. A lost stderr is given up for good, and nobody is told: there is nobody to tell."""
    stream: TextIO | None = sys.stderr if err else sys.stdout
    if stream is None:  # its descriptor was closed when the process began
        return
    try:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        _give_up(stream)
        if not err:
            raise


def _give_up(stream: TextIO) -> None:
    """Let whatever else goes to ``stream``, also what the interpreter flushes at its end, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def print_json(document: Any) -> None:
    """One strict JSON document on stdout."""
    write(_json(document, sys.stdout, indent=2) + "\n")


def print_event(event: Mapping[str, Any]) -> None:
    """One JSON line on stderr."""
    write(_json(event, sys.stderr) + "\n", err=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Aligned columns on stdout; those whose header is in ``right`` are numbers, flush right and never folded.

    On a terminal that is too narrow for them, the records stand beside each other instead of below, or one after the
    other.
    """
    lines = [[visible(cell) for cell in line] for line in (header, *rows)]
    kinds: list[_Kind] = ["number" if name in right else "words" for name in header]
    widths = _widths(lines)
    least = [min(width, _TEXT_LEAST) if kind == "words" else width for width, kind in zip(widths, kinds, strict=True)]
    room = terminal_width(sys.stdout) if is_terminal(sys.stdout) else _total(widths)
    turned = [list(line) for line in zip(*lines, strict=True)]
    if _total(least) <= room:
        write(_table(lines, kinds, room))
    elif _total(_widths(turned)) <= room:
        write(_table(turned, ["number" if k else "label" for k in range(len(lines))], room))
    else:
        for row in lines[1:]:
            pairs = [[name, cell] for name, cell in zip(lines[0], row, strict=True)]
            write(_table(pairs, ["label", "words"], room) + "\n")


def terminal_width(stream: TextIO) -> int:
    """The columns of the terminal behind ``stream``; 80 where they are not known."""
    with contextlib.suppress(OSError, ValueError):
        if (columns := os.get_terminal_size(stream.fileno()).columns) > 0:
            return columns
    return shutil.get_terminal_size().columns


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody sees what goes there."""
    with contextlib.suppress(ValueError):  # closed
        return stream is not None and stream.isatty()
    return False


def styled(stream: TextIO | None) -> bool:
    """Whether ``stream`` is a terminal that may be sent colours."""
    return is_terminal(stream) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def number(value: Any, digits: int = 3) -> str:
    """``value`` with this many significant digits, or a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.{digits}g}"


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _json(value: Any, stream: TextIO | None, **how: Any) -> str:
    from fpmtools.storage import finite

    wide = stream is None or (stream.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(finite(value), ensure_ascii=not wide, **how)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # they stand inside of strings only


def _table(lines: Sequence[Sequence[str]], kinds: Sequence[_Kind], room: int) -> str:
    """Cells as a table of at most ``room`` columns with its first line as head."""
    import io

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colour = styled(sys.stdout)
    style = "bold" if colour else ""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, _GAP - 1, 0, 0), pad_edge=False, header_style=style)
    for name, kind in zip(lines[0], kinds, strict=True):
        table.add_column(
            Text(name), justify="right" if kind == "number" else "left", no_wrap=kind != "words", overflow="fold"
        )
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    file = io.StringIO()
    Console(file=file, width=room, force_terminal=colour, color_system="standard" if colour else None).print(table)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in zip(*lines, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def claim_file(path: Path, force: bool) -> None:
    """Raise :class:`OutputError` when a file is there already and must not be replaced."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if path.exists() and not force:
        raise OutputError(f"{path} exists; use --force to replace it")


def describe(dataset: Dataset) -> dict[str, Any]:
    """What a data set is, and what can be recovered from it, as label → value."""
    from fpmtools.calibrate import resolve
    from fpmtools.calibrate import warnings as said_of
    from fpmtools.optics import aperture_overlap

    optics, shape, used = dataset.optics, dataset.image_shape, dataset.calibration.used
    left_out = "" if used.all() else f"; {int((~used).sum())} are left out"
    found = f"{dataset.n_images} of {shape[0]} × {shape[1]}, {int(dataset.bright_field.sum())} bright field"
    return {
        "name": dataset.name,
        "images": found + left_out,
        "wavelength_um": optics.wavelength_um,
        "na": optics.na,
        "magnification": optics.magnification,
        "camera_pixel_um": optics.camera_pixel_um,
        "medium_index": optics.medium_index,
        "pixel_um": optics.pixel_um,
        "field_of_view_um": [shape[0] * optics.pixel_um, shape[1] * optics.pixel_um],
        "synthetic_na": optics.synthetic_na(dataset.na),
        "depth_of_field_um": optics.depth_of_field_um,
        "overlap": aperture_overlap(dataset.na, optics.na),
        "z_um": list(dataset.planes_um),
        "truth": dataset.truth is not None,
        "calibrated_pupil": not dataset.calibration.pupil.ideal,
        "sha256": dataset.digest,
        "warnings": [*dataset.check(), *said_of(resolve(dataset))],
    }


def print_description(about: Mapping[str, Any]) -> None:
    """A mapping as aligned lines on stdout; warnings last, one line each."""
    width = max(map(len, about))
    for label, value in about.items():
        if label != "warnings":
            echo(f"{label:<{width}}  {_text(value)}")
    for warning in about.get("warnings", ()):
        echo(f"warning: {warning}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        shown = [_text(item) for item in value]
        return ", ".join(shown) if len(shown) <= 4 else f"{shown[0]} … {shown[-1]} ({len(shown)})"
    return number(value, 5) if isinstance(value, int | float) or value is None else str(value)
