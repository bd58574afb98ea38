"""A run that is part of another, in a folder of its own: found as it was left, or begun."""

from __future__ import annotations

from pathlib import Path

from fpmtools.errors import FpmError
from fpmtools.runs.folder import RunFolder
from fpmtools.runs.spec import RunSpec

MOVES = {"calibration", "data.source"}  # what may be elsewhere when the whole folder, or its data, were moved


def opened(path: Path, spec: RunSpec) -> RunFolder:
    """The folder of this run, with what was done of it; emptied where it is of another run, or damaged."""
    try:
        place = RunFolder.reopen(path)
    except FpmError:
        return RunFolder.create(path, spec, force=True)  # which says so if another process works in it
    if same(RunSpec.from_dict(place.document["spec"]), spec):
        place.document["spec"] = spec.to_dict()
        return place
    place.close()
    return RunFolder.create(path, spec, force=True)


def same(one: RunSpec, other: RunSpec) -> bool:
    """Whether both come to the same result."""
    return set(one.differences(other)) <= MOVES
