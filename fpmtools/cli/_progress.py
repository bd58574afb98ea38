"""A solver's progress on stderr: a bar on a terminal, a line every few seconds elsewhere, or JSON lines."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from fpmtools.cli._output import echo, is_terminal, number, print_event, styled, terminal_width, visible, write

BAR = 24  # characters; fewer where there is no room
_LEAST_BAR = 6


class Progress:
    """What a run says of itself, an event at a time.

    A ``progress`` event has ``step``, ``total``, ``loss`` and ``seconds``, and may have ``what`` (the name of the
    loss), ``psnr`` (of the low-resolution images, dB), ``remaining_s``, and ``at_most``: ``total`` is only an upper
    bound, so that nobody knows how long it will take. Where steps are tiles it has ``each_s``, of one, and no loss;
    where they are something else, ``doing`` says what.
    In a comparison it has ``all_remaining_s``, of all its runs.

    With ``verbose`` the lines of the run's log are shown too, whatever the style.
    """

    LINE_EVERY_S = 5.0

    def __init__(self, label: str, *, style: str = "auto", verbose: bool = False) -> None:
        self.label, self.verbose = visible(label), verbose
        self.style = style
        self.terminal = style == "auto" and is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self._next_line_s = self._next_calibrating_s = 0.0
        self._open = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        """A ``progress`` event, which need not say that it is one."""
        self.show({"event": "progress", **event})

    def show(self, event: Mapping[str, Any]) -> None:
        """An event of a run, of whatever kind, as :func:`fpmtools.compare` describes them."""
        if event["event"] == "log" and not self.verbose:
            return
        if self.style == "json":
            print_event(event)
        elif self.style == "auto" and event["event"] == "progress":
            self._progress(event)
        elif self.style == "auto" and event["event"] == "calibrating":
            self._calibrating(event)
        elif self.terminal and event["event"] == "measuring":
            text = f"{self.label}  measuring: {visible(str(event['task']))}"
            self._rewrite(_cut(text, terminal_width(sys.stderr) - 1))
        elif event["event"] == "log":
            self.finish()
            echo(event["text"], err=True)
        elif self.style == "auto" and event["event"] == "line":
            self.finish()
            echo(f"[{self.label}] {event['text']}", err=True)

    def _progress(self, event: Mapping[str, Any]) -> None:
        if self.terminal:
            self._rewrite(bar_line(self.label, event, terminal_width(sys.stderr) - 1, styled(sys.stderr)))
        elif event["step"] >= event["total"] or event["seconds"] >= self._next_line_s:
            self._next_line_s = event["seconds"] + self.LINE_EVERY_S
            echo(f"{self.label}  {'  '.join(_parts(event))}", err=True)

    def _calibrating(self, event: Mapping[str, Any]) -> None:
        text = f"{self.label}  calibrating: step {event['step']}/{event['total']}"
        if self.terminal:
            self._rewrite(_cut(text, terminal_width(sys.stderr) - 1))
        elif (now := time.monotonic()) >= self._next_calibrating_s:
            self._next_calibrating_s = now + self.LINE_EVERY_S
            echo(text, err=True)

    def _rewrite(self, text: str) -> None:
        write(f"\r{text}\033[K", err=True)
        self._open = True

    def finish(self) -> None:
        """Leave the bar's line."""
        if self._open:
            write("\n", err=True)
            self._open = False


def bar_line(label: str, event: Mapping[str, Any], room: int, colour: bool = False) -> str:
    """Progress in one line of at most ``room`` columns, for a longer one would wrap and be repeated, not rewritten.

    What matters least is left out first; a bar takes the room that is left, unless the total is only a bound.
    """
    parts = _parts(event)
    for least in ("image PSNR", _name(event)):
        if _width("  ".join([label, *parts])) > room:
            parts = [part for part in parts if not part.startswith(least)]
    text = "  ".join(parts)
    label = _cut(label, max(room - _width(text) - 2, 8))
    length = min(BAR, room - _width(label) - _width(text) - 4)
    if event.get("at_most") or length < _LEAST_BAR:
        return _cut(f"{label}  {text}", room)
    filled = round(length * min(event["step"] / max(event["total"], 1), 1.0))
    bar = "█" * filled + "░" * (length - filled)
    return f"{label}  \033[36m{bar}\033[0m  {text}" if colour else f"{label}  {bar}  {text}"


def _parts(event: Mapping[str, Any]) -> list[str]:
    """The parts of a line, in order: how far, the loss by its name, the PSNR where there is one, the time."""
    step, total, loss, psnr = event["step"], event["total"], event.get("loss"), event.get("psnr")
    parts = [f"step {step} of at most {total}" if event.get("at_most") else f"{step}/{total}"]
    if doing := event.get("doing"):
        parts = [f"{doing} {parts[0]}"]
    if each_s := event.get("each_s"):  # of tiles
        parts = [f"{parts[0]} tiles", f"{number(60 / each_s)} a minute"]
    if loss is not None:
        parts.append(f"{_name(event)} {loss:.3e}")
    if psnr is not None:
        parts.append(f"image PSNR {psnr:.2f} dB")
    remaining = None if event.get("at_most") else event.get("remaining_s")
    every = f" (all {_duration(left)})" if (left := event.get("all_remaining_s")) is not None else ""
    return [*parts, f"{event['seconds']:.1f} s{_left(remaining)}{every}"]


def _name(event: Mapping[str, Any]) -> str:
    """What the number in ``loss`` is called."""
    return visible(str(event.get("what") or "loss"))


def _left(seconds: float | None) -> str:
    return "" if seconds is None or not math.isfinite(seconds) else f", {_duration(seconds)} left"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, room: int) -> str:
    from rich.cells import set_cell_size

    return text if _width(text) <= room else set_cell_size(text, max(room - 1, 0)) + "…"
