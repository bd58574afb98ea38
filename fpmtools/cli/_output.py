"""What the commands print: JSON documents and tables on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.errors import OutputError

if TYPE_CHECKING:
    from fpmtools.dataset import Dataset


def print_json(document: Any) -> None:
    """One strict JSON document on stdout."""
    from fpmtools.storage import finite

    click.echo(json.dumps(finite(document), indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Aligned columns on stdout; columns whose header is in ``right`` are flush right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["─" * width for width in widths], *rows]:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, header, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def number(value: Any, digits: int = 3) -> str:
    """``value`` with this many significant digits, or a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.{digits}g}"


def size(n_bytes: float | None) -> str:
    """Bytes for people."""
    if n_bytes is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


class Progress:
    """A solver's progress on stderr: a bar on a terminal, a line every few seconds otherwise, or JSON lines."""

    LINE_EVERY_S = 5.0

    def __init__(self, label: str, *, style: str = "auto") -> None:
        self.label = label
        self.style = style
        self.terminal = style == "auto" and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.terminal and "NO_COLOR" not in os.environ
        self._next_line_s = 0.0
        self._open = False

    def show(self, event: Mapping[str, Any]) -> None:
        """An event of a run, of whatever kind, as :func:`fpmtools.compare` describes them."""
        if self.style == "json":
            print_event(event)
        elif self.style == "auto" and event["event"] == "progress":
            self._progress(event)
        elif self.terminal and event["event"] == "measuring":
            self._rewrite(f"{self.label}  measuring: {event['step']}")
        elif self.style == "auto" and event["event"] == "line":
            self.finish()
            tell(f"[{self.label}] {event['text']}\n")

    def _progress(self, event: Mapping[str, Any]) -> None:
        step, total, seconds = event["step"], event["total"], event["seconds"]
        left = "" if event["remaining_s"] is None else _left(event["remaining_s"])
        psnr = "" if event["psnr"] is None else f"  image PSNR {event['psnr']:.2f} dB"
        most = "at most " if event["at_most"] else ""
        text = f"{step}/{most}{total}  {event['what']} {_or_inf(event['loss']):.3e}{psnr}  {seconds:.1f} s{left}"
        if self.terminal:
            filled = round(24 * min(step / max(total, 1), 1.0))
            bar = "█" * filled + "░" * (24 - filled)
            bar = f"\033[36m{bar}\033[0m" if self.colour else bar
            self._rewrite(f"{self.label}  {bar}  {text}")
        elif step >= total or seconds >= self._next_line_s:
            self._next_line_s = seconds + self.LINE_EVERY_S
            tell(f"{self.label}  {text}\n")

    def _rewrite(self, text: str) -> None:
        tell(f"\r{text}\033[K")
        self._open = True

    def finish(self) -> None:
        """Leave the bar's line."""
        if self._open:
            tell("\n")
            self._open = False


def print_event(event: Mapping[str, Any]) -> None:
    """One JSON line on stderr."""
    from fpmtools.storage import finite

    tell(json.dumps(finite(event), ensure_ascii=False) + "\n")


def warn(text: str) -> None:
    """One line on stderr."""
    tell(f"warning: {text}\n")


def tell(text: str) -> None:
    """Text on stderr; that nobody reads it any more is no reason to stop."""
    try:
        click.echo(text, err=True, nl=False)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # what comes later, and the last flush, must not fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _left(seconds: float) -> str:
    if seconds < 60:
        return f", {seconds:.0f} s left"
    return f", {seconds / 60:.0f} min left" if seconds < 5400 else f", {seconds / 3600:.1f} h left"


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value  # what JSON cannot say


def claim_file(path: Path, force: bool) -> None:
    """Raise :class:`OutputError` when a file is there already and must not be replaced."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if path.exists() and not force:
        raise OutputError(f"{path} exists; use --force to replace it")


def describe(dataset: Dataset) -> dict[str, Any]:
    """What a data set is, and what can be recovered from it, as label → value."""
    from fpmtools.optics import aperture_overlap

    optics, shape = dataset.optics, dataset.image_shape
    return {
        "name": dataset.name,
        "images": f"{dataset.n_leds} of {shape[0]} × {shape[1]}, {int(dataset.bright_field.sum())} bright field",
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
        "calibrated_pupil": dataset.pupil is not None,
        "sha256": dataset.digest,
        "warnings": dataset.check(),
    }


def print_description(about: Mapping[str, Any]) -> None:
    """A mapping as aligned lines on stdout; warnings last, one line each."""
    width = max(map(len, about))
    for label, value in about.items():
        if label != "warnings":
            click.echo(f"{label:<{width}}  {_text(value)}")
    for warning in about.get("warnings", ()):
        click.echo(f"warning: {warning}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        shown = [_text(item) for item in value]
        return ", ".join(shown) if len(shown) <= 4 else f"{shown[0]} … {shown[-1]} ({len(shown)})"
    return number(value, 5) if isinstance(value, int | float) or value is None else str(value)
