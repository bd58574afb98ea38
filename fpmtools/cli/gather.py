"""``fpmtools gather``: what ``compare`` runs after each solve, in a process of its own; not for people."""

from __future__ import annotations

from pathlib import Path

import click

from fpmtools.cli import _inputs
from fpmtools.cli._output import tell_step
from fpmtools.processes import private_stdout


@click.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", required=True)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--step", "wanted", multiple=True)
def gather(folder: Path, data: str, threads: int | None, wanted: tuple[str, ...]) -> None:
    """Measure and draw the run in FOLDER."""
    _inputs.set_threads(threads)
    with private_stdout():
        from fpmtools import formats
        from fpmtools.report import gathering

        gathering.gather(folder, formats.load(data), wanted, tell_step)
