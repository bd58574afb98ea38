"""The installed solvers and their options, as tables for people and as rows for programs."""

from __future__ import annotations

from fpmtools import registry
from fpmtools.display import Listing
from fpmtools.errors import expect, unknown


def solvers() -> Listing:
    """The installed solvers.

    Returns
    -------
    Listing
        A dict, name → ``{"summary", "can", "from"}``, that shows itself as a table. What is wrong with plugins, if
        anything, stands below it.

    Examples
    --------
    >>> found = fpmtools.solvers()
    >>> "ap" in found, found["ap"]["can"]
    (True, ['2d', 'cuda', 'masks', 'patterns', 'resume', 'z-stack'])
    """
    rows = {
        s.record.name: {"summary": s.record.summary, "can": sorted(s.record.capabilities), "from": str(s)}
        for s in registry.solvers()
    }
    return Listing(rows, "solver", "\n".join(map(str, registry.faults())))


def options(solver: str, preset: str | None = None) -> Listing:
    """The options of a solver.

    Parameters
    ----------
    solver
        Its name.
    preset
        Show as defaults what they are with this preset.

    Returns
    -------
    Listing
        A dict, name → ``{"type", "default", "unit", "minimum", "maximum", "choices", "doc"}``, that shows itself as a
        table; the solver's presets are named below it.

    Raises
    ------
    OptionError
        An unknown solver or preset, with the nearest that exists.
    SolverError
        A solver that cannot be used.

    Examples
    --------
    >>> sweeps = fpmtools.options("ap")["sweeps"]
    >>> sweeps["type"], sweeps["minimum"]
    ('int', 1)
    >>> fpmtools.options("app")
    Traceback (most recent call last):
    ...
    fpmtools.errors.OptionError: unknown solver 'app': did you mean 'ap'?
    """
    expect(solver, str, "options: solver", "the name of a solver")
    found = registry.describe_solver(solver)
    if preset not in (None, "default", *found.presets):
        raise unknown("preset", str(preset), ["default", *found.presets])
    changed = found.presets.get(preset or "", {})
    rows = {}
    for row in found.options:
        name, doc = row["name"], row["doc"]
        about = {key: value for key, value in row.items() if key not in ("name", "doc")}
        rows[name] = about | {"default": changed.get(name, row["default"]), "doc": doc}
    return Listing(rows, "option", f"presets: {', '.join(found.presets)}" if found.presets else "")
