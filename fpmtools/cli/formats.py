"""``fpmtools formats``: what can be read and written, and who supplies it."""

from __future__ import annotations

from typing import Any

import click

from fpmtools.cli._inputs import json_option
from fpmtools.cli._output import echo, print_json, print_table


@click.command(short_help="List the formats that are read and written.")
@json_option
def formats(as_json: bool) -> None:
    """List the formats of measurements (--data) and of results (render --out)."""
    from fpmtools import registry

    readers = [_about(supplied) for supplied in registry.readers()]
    writers = [_about(supplied) for supplied in registry.writers()]
    if as_json:
        print_json({"readers": readers, "writers": writers})
        return
    for title, rows, bare in (
        ("Measurements, --data FILE [--format NAME]:", readers, "by its content"),
        ("Results, render --out FILE [--format NAME]:", writers, "by name only"),
    ):
        echo(title)
        cells = [[row["name"], " ".join(row["suffixes"]) or bare, row["summary"], row["from"]] for row in rows]
        print_table(["format", "end of the name", "what it is", "from"], cells)
        echo()


def _about(supplied: Any) -> dict[str, Any]:
    record = supplied.record
    return {
        "name": record.name,
        "summary": record.summary,
        "suffixes": list(record.suffixes),
        "from": str(supplied),
    }
