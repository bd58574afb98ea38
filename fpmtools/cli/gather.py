"""``fpmtools gather``: what ``compare`` runs after each solve, in a process of its own; not for people."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path

import click

from fpmtools.cli import _inputs
from fpmtools.cli._output import print_event, tell_step


@click.command(hidden=True)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--data", default="")
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--step", "wanted", multiple=True)
@click.option("--solver", "solvers", multiple=True)
def gather(
    folder: Path | None, data: str, threads: int | None, wanted: tuple[str, ...], solvers: tuple[str, ...]
) -> None:
    """Measure and draw the run in FOLDER; without one, say what the solvers can do, or which metrics are installed."""
    if solvers:
        from fpmtools.comparison import spec

        for text in solvers:
            can = spec.capabilities(spec.Spec.parse(text))
            print_event({"event": "solver", "label": text, "capabilities": sorted(can)})
        return
    if folder is None:
        from fpmtools import registry

        for supplied in registry.metrics():
            print_event({"event": "metric", "record": dataclasses.asdict(supplied.record)})
        return
    _inputs.set_threads(threads)
    with contextlib.redirect_stdout(sys.stderr):
        from fpmtools import formats
        from fpmtools.report import gathering

        gathering.gather(folder, formats.load(data), wanted, tell_step)
