"""What a shell can complete: names of data sets, solvers, their options and presets. A shell asks with every Tab."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def data(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Data sets by name, simulated ones and those of the manifest; files where no name begins so."""
    from fpmtools import catalogue
    from fpmtools.formats import manifest

    known = catalogue.entries() | {entry.name: entry.title for entry in manifest.entries()}
    return _beginning(typed, known) or [CompletionItem(typed, type="file")]


def published(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Data sets of the manifest."""
    from fpmtools.formats import manifest

    return _beginning(typed, {entry.name: entry.title for entry in manifest.entries()})


def solver(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Solvers by name."""
    from fpmtools import registry

    return _beginning(typed, {found.record.name: found.record.summary for found in registry.solvers()})


def solvers(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """The last of several solvers with commas between them."""
    before, comma, last = typed.rpartition(",")
    return [CompletionItem(before + comma + item.value, help=item.help) for item in solver(context, parameter, last)]


def option(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """``KEY=`` of the solver that was chosen, and then its values where they are names."""
    from fpmtools import registry

    rows = {row["name"]: row for row in registry.describe_solver(context.params.get("name") or "inr").options}
    key, equals, value = typed.partition("=")
    if not equals:
        return _beginning(typed, {f"{name}=": row["doc"] for name, row in rows.items()})
    choices = rows.get(key, {}).get("choices") or ()
    return [CompletionItem(f"{key}={item.value}") for item in _beginning(value, dict.fromkeys(map(str, choices), ""))]


def preset(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Presets of the solver that was chosen."""
    from fpmtools import registry

    found = registry.describe_solver(context.params.get("name") or "inr")
    return _beginning(typed, dict.fromkeys(found.presets, ""))


def _beginning(typed: str, known: dict[str, str]) -> list[CompletionItem]:
    return [CompletionItem(name, help=text) for name, text in known.items() if name.startswith(typed)]
