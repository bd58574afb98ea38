"""``fpmtools inspect``: what the images say about themselves and the instrument, before anything is solved."""

from __future__ import annotations

import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _complete, _inputs
from fpmtools.cli._groups import Grouped
from fpmtools.cli._output import claim_file, echo, print_json, terminal_width

if TYPE_CHECKING:
    from fpmtools.calibrate.inspection import Inspection

_MARKS = {"ok": "  ", "note": "· ", "warning": "! "}
_WIDEST = 100  # columns of text that are still read easily


@click.command(cls=Grouped, short_help="What is wrong with a data set, without a solve.")
@click.argument("data", metavar="NAME|PATH", shell_complete=_complete.data)
@_inputs.reading_options
@click.option(
    "--figure", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw LEDs, images and spectra into a file."
)
@_inputs.force_option
@_inputs.json_option
def inspect(data: str, figure: Path | None, force: bool, as_json: bool, **reading: Any) -> None:
    """Look at a data set: orientation of the LED board, sizes, order of the files, dark level, noise, and more.

    Nothing is solved, and nothing is changed. Ends with the command line that runs it.
    """
    from fpmtools.calibrate import inspection

    if figure is not None:
        claim_file(figure, force)
    given = _inputs.take_reading(reading)
    found = inspection.inspect(_inputs.load(data, given))
    command = run_line(data, given, found.corrections)
    if figure is not None:
        from fpmtools.report import figures, looking

        figures.save(looking.inspection(found), figure)
    if as_json:
        print_json({**found.to_dict(), "command": command, "figure": None if figure is None else str(figure)})
        return
    _show(found)
    echo(f"\nTo run it:\n  {command}")
    if figure is not None:
        echo(f"figure: {figure}")


def run_line(data: str, reading: dict[str, Any], corrections: dict[str, float]) -> str:
    """The words of ``fpmtools run`` that read ``data`` as ``reading`` says, with what was found put right."""
    values = dict(corrections)
    given = {**reading, "dark_level": values.pop("dark_level", reading["dark_level"])}
    if given["dark_level"] != reading["dark_level"]:
        given["dark"] = None  # the level is in its place
    given["optics"] = {**reading["optics"], **values}
    return shlex.join(["fpmtools", "run", "--data", data, *_inputs.spelled(given)])


def _show(found: Inspection) -> None:
    data = found.dataset
    h, w = data.image_shape
    bright = int(found.geometry.board.bright.sum())
    echo(f"{data.name}: {data.n_images} images of {h} × {w}, {bright} of them bright field\n")
    width = min(terminal_width(sys.stdout), _WIDEST)
    column = max(len(finding.name) for finding in found.findings) + 2
    for finding in found.findings:
        start = f"{_MARKS[finding.severity]}{finding.name:<{column}}"
        text = f"{finding.value} ({finding.sure})" if finding.sure else finding.value
        echo(textwrap.fill(text, width, initial_indent=start, subsequent_indent=" " * len(start)))
        said = "; ".join(part for part in (finding.meaning, finding.advice) if part)
        if finding.severity != "ok" and said:
            indent = " " * len(start)
            echo(textwrap.fill(f"{said[0].upper()}{said[1:]}.", width, initial_indent=indent, subsequent_indent=indent))
    counts = {name: sum(f.severity == name for f in found.findings) for name in ("warning", "note")}
    parts = [f"{n} {name}{'s' * (n != 1)} ({_MARKS[name].strip()})" for name, n in counts.items() if n]
    echo(f"\n{', '.join(parts) or 'nothing is wrong that can be seen without a solve'}")
