"""What can be found about the instrument from the images alone, each finder giving a :class:`Calibration`."""

from __future__ import annotations

from pathlib import Path

from fpmtools.calibrate.board import find_board
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset

__all__ = ["AUTO", "NOMINAL", "find_board", "resolve", "warnings"]

AUTO, NOMINAL = "auto", "nominal"


def resolve(dataset: Dataset, how: str | Path | Calibration = AUTO) -> Calibration:
    """The instrument as a run takes it to be.

    ``how``: "auto" looks at the images, once, and leaves what was found before as it is; "nominal" is what the data set
    says; a calibration, or the file of one, is taken for the images of ``dataset``.
    """
    if isinstance(how, Calibration):
        return how
    if how == NOMINAL:
        return dataset.calibration
    if how == AUTO:
        return dataset.calibration if "board" in dataset.calibration.found else find_board(dataset)
    return Calibration.load(how, dataset.optics, dataset.n_images)


def warnings(calibration: Calibration) -> list[str]:
    """What was found and what was done about it, in plain words; empty when all is as the data set says."""
    board, said = calibration.found.get("board", {}), []
    if count := board.get("contradicted", 0):
        fate = f"the positions are taken as they are; {board['cause']}"
        if any(board["shift_na"]):
            x, y = board["shift_na"]
            left = len(board["left_out"])
            rest = f", {left} of them left out" if left else ""
            fate = f"all are moved by NA ({x:+.4f}, {y:+.4f}){rest} (the nominal calibration leaves them)"
        said.append(
            f"{count} of {calibration.images} LEDs near the edge of the pupil are dark where their positions say "
            f"bright, or the reverse: {fate}; check LED positions, NA and wavelength"
        )
    elif board.get("cause"):
        said.append(f"{board['cause']}: check the order of the files and of the LED positions")
    if board.get("dead"):
        dead = ", ".join(map(str, board["dead"][:5]))
        said.append(f"the image of LED {dead} is black although its light passes the objective: left out")
    return said
