"""``fpmtools solvers``: which solvers are installed, and the options of one."""

from __future__ import annotations

from typing import Any

import click

from fpmtools.cli import _complete
from fpmtools.cli._inputs import json_option
from fpmtools.cli._output import echo, number, print_json, print_table


@click.command(short_help="List solvers, or one solver's options.")
@click.argument("name", required=False, shell_complete=_complete.solver)
@json_option
def solvers(name: str | None, as_json: bool) -> None:
    """List the installed solvers, or show one solver's options."""
    if name is None:
        _list(as_json)
    else:
        _describe(name, as_json)


def _list(as_json: bool) -> None:
    from fpmtools import registry

    found, faults = registry.solvers(), registry.faults()
    if as_json:
        print_json({"solvers": [_record(s) for s in found], "faults": [vars(fault) for fault in faults]})
        return
    rows = [[s.record.name, s.record.summary, ", ".join(sorted(s.record.capabilities)), str(s)] for s in found]
    print_table(["solver", "summary", "can do", "from"], rows)
    if faults:
        echo("\nWhat is wrong with plugins:")
        for fault in faults:
            echo(f"  {fault}")
    echo("\n'fpmtools solvers NAME' shows a solver's options.")


def _describe(name: str, as_json: bool) -> None:
    from fpmtools import registry

    found = registry.describe_solver(name)
    supplied, options, presets = found.supplied, found.options, found.presets
    if as_json:
        print_json({**_record(supplied), "options": options, "presets": presets, "resumable": found.resumable})
        return
    echo(f"{name}: {supplied.record.summary}\nfrom {supplied}\n")
    rows = [[o["name"], o["type"], str(o["default"]).lower(), o["unit"], _range(o), o["doc"]] for o in options]
    print_table(["option", "type", "default", "unit", "allowed", "meaning"], rows)
    for preset, values in presets.items():
        changes = ", ".join(f"{key}={str(value).lower()}" for key, value in values.items())
        echo(f"\npreset {preset}: {changes or 'the defaults'}")
    for reference in supplied.record.references:
        echo(f"\n{reference}")


def _record(supplied: Any) -> dict[str, Any]:
    record = supplied.record
    return {
        "name": record.name,
        "summary": record.summary,
        "capabilities": sorted(record.capabilities),
        "references": list(record.references),
        "distribution": supplied.distribution,
        "version": supplied.version,
        "entry_point": supplied.entry_point,
    }


def _range(option: dict[str, Any]) -> str:
    if option["choices"] is not None:
        return ", ".join(str(choice) for choice in option["choices"])
    low, high = option["minimum"], option["maximum"]
    if low is None and high is None:
        return ""
    if high is None:
        return f"≥ {number(low, 6)}"
    return f"≤ {number(high, 6)}" if low is None else f"{number(low, 6)} … {number(high, 6)}"
