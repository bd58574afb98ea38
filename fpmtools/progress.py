"""A bar while something runs: in a terminal a line on stderr, in a notebook an element, elsewhere nothing."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fpmtools.display import drawn
from fpmtools.errors import printable

DRAWN_BY = "fpmtools.report.html_templates:render"
Show = Callable[[Mapping[str, Any]], None]


@contextmanager
def bar(label: str, wanted: bool = True) -> Iterator[Show]:
    """A function that shows events: dicts of ``step``, ``total``, and where they are known ``at_most`` (the total is
    only a bound), ``what`` (the name of the) ``loss``, ``remaining_s``, and ``doing`` in place of the loss.
    """
    label = printable(label, 60)
    if wanted and in_notebook():
        yield _Element(label)
    elif wanted and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _line(label) as show:
            yield show
    else:
        yield lambda event: None


def of_run(show: Show) -> Show:
    """What shows how far a run is, of the events that it tells of itself (:func:`fpmtools.run`)."""

    def tell(event: Mapping[str, Any]) -> None:
        if event["event"] == "calibrating":
            show({**event, "doing": "calibrating"})
        elif event["event"] == "progress":
            show(event)

    return tell


def of_runs(show: Show) -> Callable[[str, Mapping[str, Any]], None]:
    """The same of several runs, whose events have their ``number``, the ``count`` of all, and ``all_remaining_s``."""

    def tell(title: str, event: Mapping[str, Any]) -> None:
        if event["event"] == "calibrating":
            show({**event, "doing": f"calibrating {printable(title, 40)}"})
        elif event["event"] == "progress":
            which = f"run {event['number']} of {event['count']}: {printable(title, 40)}"
            show({**event, "doing": which, "remaining_s": event.get("all_remaining_s")})

    return tell


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML."""
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


@contextmanager
def _line(label: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Without a thread of its own: what is measured meanwhile is not disturbed.
    with Progress(*columns, console=Console(file=sys.stderr), auto_refresh=False) as shown:
        task = shown.add_task(label, total=None, text="")

        def show(event: Mapping[str, Any]) -> None:
            total = None if event.get("at_most") else event["total"]
            shown.update(task, completed=event["step"], total=total, text=_words(event), refresh=True)

        yield show


class _Element:
    """A bar in a notebook's output, which is written anew with every event; Jupyter's widgets are not needed."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.handle: Any = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        shown: Any = importlib.import_module("IPython.display")  # which is there where there is a notebook
        known = {"step": 0, "total": 0, "at_most": False, "remaining_s": None, **event}
        text = shown.HTML(drawn(DRAWN_BY, "bar.html", {"label": self.label, "event": known, "words": _words(event)}))
        if self.handle is None:
            self.handle = shown.display(text, display_id=True)
        else:
            self.handle.update(text)


def _words(event: Mapping[str, Any]) -> str:
    """How far, and the loss by its name."""
    far = f"{event['step']}{' of at most ' if event.get('at_most') else '/'}{event['total']}"
    if doing := event.get("doing"):
        return f"{doing} {far}"
    loss = event.get("loss")
    return far if loss is None else f"{far}  {printable(event.get('what') or 'loss', 40)} {loss:.3g}"
