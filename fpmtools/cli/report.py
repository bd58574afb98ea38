"""``fpmtools report``: the report of a run, or that of a comparison again, with its figures for a paper."""

from __future__ import annotations

from pathlib import Path

import click

from fpmtools.cli._inputs import json_option
from fpmtools.cli._output import echo, print_json


@click.command(short_help="The report of a run or a comparison; figures for papers.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--figures", "with_figures", is_flag=True, help="Also write PNG and SVG figures into DIR/figures.")
@json_option
def report(folder: Path, with_figures: bool, as_json: bool) -> None:
    """Write report.html, from what 'fpmtools run' or 'fpmtools compare' with '--out DIR' left in DIR."""
    from fpmtools.report import html_page, publication

    page = html_page.write(folder)
    figures = publication.write(folder) if with_figures else []
    if as_json:
        print_json({"report": str(page), "figures": [str(path) for path in figures]})
        return
    for path in [page, *figures]:
        echo(path)
