"""One tile: a run in a folder of its own, described by JSON and done by whoever has the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpmtools.errors import FpmError
from fpmtools.optics import Box
from fpmtools.runs import running
from fpmtools.runs.folder import FINISHED, RESULT_FILE, RUN_FILE, sha256
from fpmtools.runs.part import opened, same
from fpmtools.runs.spec import DataSpec, Outputs, RunSpec, read_json

ABOUT = ("status", "reason", "z_um", "stored_bytes", "steps", "total_steps", "metrics", "peak_memory_mb")


def spec_of(slide: RunSpec, box: Box, z_um: tuple[float, ...], calibration: Path, **grids: Any) -> RunSpec:
    """The run of the tile in ``box`` of a slide's region, seen with the slide's ``calibration``.

    ``grids``: what all tiles have in common, ``upsample``, ``margin``, ``threads`` and ``device``.
    """
    y, x, height, width = box
    top, left = slide.data.roi[:2] if slide.data.roi else (0, 0)
    data: DataSpec = replace(slide.data, roi=(top + y, left + x, height, width), digest=None)
    outputs = Outputs(track=False, measures=slide.outputs.measures, pictures=())
    return replace(
        slide,
        data=data,
        z_um=z_um,
        calibration=str(calibration),
        calibrate="none",
        outputs=outputs,
        tiles=None,
        curved=True,
        **grids,
    )


def solve_tile(spec: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Solve, or go on with, the tile that ``spec`` (:meth:`RunSpec.to_dict`) describes, in ``folder``.

    All that it needs is in files, and so is all that it leaves: it may be called in any process that sees them.

    Returns
    -------
    dict
        JSON-ready: how the run ended, see :func:`look`; ``status`` "interrupted" where Ctrl-C ended it.

    Raises
    ------
    FpmError
        As :func:`fpmtools.runs.running.resume`.
    """
    wanted, path = RunSpec.from_dict(dict(spec)), Path(folder)
    with opened(path, wanted) as place:
        return _about(running.carry_on(place))


def look(spec: RunSpec, folder: Path) -> dict[str, Any] | None:
    """What a finished and sound tile is: ``status``, ``sha256``, numbers; None where it is yet to be solved."""
    try:
        document = read_json(folder / RUN_FILE)
        alike = same(RunSpec.from_dict(document["spec"]), spec)
        ended = document.get("status") in FINISHED
        sound = ended and alike and sha256(folder / RESULT_FILE) == document["result_sha256"]
        return _about(document) if sound else None
    except (FpmError, OSError, KeyError, TypeError):
        return None


def _about(document: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: document[name] for name in ABOUT if name in document}
    return {**known, "sha256": document.get("result_sha256"), "seconds": document.get("times", {}).get("solve_s", 0.0)}
