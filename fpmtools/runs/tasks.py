"""What is left to do when a run is solved, task by task: numbers, curves, pictures; parts that are solved again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fpmtools.errors import FpmError
from fpmtools.runs.journal import Journal
from fpmtools.runs.spec import Outputs

MEASURING = "measuring"  # the event when one begins

RESULT = "result"  # it can be opened
FIELD = "field"  # it can be rendered
ESSENTIAL = (RESULT, FIELD)  # without which nothing else can be had
METRIC = "metric "
RINGS_TRUTH = "ring correlation with the truth"
RINGS_HALVES = "ring correlation of two halves"
CURVES = (RINGS_TRUTH, RINGS_HALVES)
FIT = "fit"  # whether the images are explained: a line of words, and χ² of each
PICTURES = "pictures"  # what a report draws
FILES = "files"  # the pictures in the run's own folder

HELD_OUT = "held-out"
HALVES = ("half-1", "half-2")
HELD_OUT_METRIC, HALVES_METRIC = "held_out", "ring_resolution_um"

# What draws: functions of (folder, reconstruction, dataset, document) that return the names of the files they wrote.
# They are named and not imported, like a plugin's: drawing comes after running.
DRAWN = {PICTURES: "fpmtools.report.pictures:render", FILES: "fpmtools.report.pictures:draw"}

WITH_TRUTH = (
    "psnr", "ssim", "ssim_gaussian", "rmse", "relative_l2", "complex_nrmse", "complex_nrmse_detilted",
    "phase_rmse_rad", "phase_rmse_detilted_rad", "in_band_db",
)  # fmt: skip
WITHOUT_TRUTH = ("chi2", "chi2_bright", "chi2_dark", "residual", "residual_bright", "residual_dark")


@dataclass(frozen=True)
class Part:
    """A solve of some of the LEDs: the folder in the run's own that it is kept in, and what it is called."""

    name: str
    leds: tuple[int, ...]

    @property
    def phase(self) -> str:
        """For progress."""
        return "without held-out LEDs" if self.name == HELD_OUT else f"{self.name.replace('-', ' ')} of the LEDs"


def metric_task(name: str) -> str:
    """The task that is a metric."""
    return METRIC + name


def metric_name(task: str) -> str | None:
    """The metric that a task is; None where it is something else."""
    return task.removeprefix(METRIC) if task.startswith(METRIC) else None


def planned(outputs: Outputs, *, truth: bool) -> list[str]:
    """The tasks that ``outputs`` ask for, in order, of data with a ``truth`` or without."""
    wanted = outputs.measures
    if wanted is None:
        wanted = (*(WITH_TRUTH if truth else ()), *WITHOUT_TRUTH, FIT)
    numbers = [name if name in (*CURVES, FIT) else metric_task(name) for name in wanted]
    first = [PICTURES] if "report" in outputs.pictures else []
    last = [FILES] if "files" in outputs.pictures else []
    return [*ESSENTIAL, *first, *numbers, *last] if first or numbers or last else []


def todo(folder: Path, journal: Journal, wanted: Sequence[str]) -> list[str]:
    """Which of the tasks ``wanted`` are still to be done; pictures that are gone are drawn again."""
    ended = journal.read().ended
    if any(ended[task].reason for task in ESSENTIAL if task in ended):
        return []
    gone = {
        task
        for task in DRAWN
        if task in ended and not all((folder / str(name)).is_file() for name in ended[task].value or ())
    }
    return [task for task in wanted if task not in ended or task in gone]


def one_line(error: BaseException) -> str:
    """What went wrong, whoever's exception it is."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:  # whose class is a plugin's too
        text = ""
    return text if isinstance(error, FpmError) else f"{type(error).__name__}: {text}".rstrip(": ")
