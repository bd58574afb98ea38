"""What is gathered about a finished run, as named steps, and where each of its parts is kept.

A comparison plans the steps; a run's own process takes them when its solve is over, or ``fpmtools gather`` later.
"""

from __future__ import annotations

from dataclasses import dataclass

MEASURING = "measuring"  # the event when one begins

RESULT = "result"  # it can be opened
FIELD = "field"  # it can be rendered
ESSENTIAL = (RESULT, FIELD)  # without which nothing else can be had
METRIC = "metric "
RINGS_TRUTH = "ring correlation with the truth"
RINGS_HALVES = "ring correlation of two halves"
PICTURES = "pictures"  # what the report draws
FILES = "files"  # the pictures in the run's own folder

HELD_OUT = "held-out"
HALVES = ("half-1", "half-2")
HELD_OUT_METRIC, HALVES_METRIC = "held_out", "ring_resolution_um"


@dataclass(frozen=True)
class Part:
    """A solve of some of the LEDs: the folder in the run's own that it is kept in, and what it is called."""

    name: str
    leds: tuple[int, ...]

    @property
    def phase(self) -> str:
        """For progress."""
        return "without held-out LEDs" if self.name == HELD_OUT else f"{self.name.replace('-', ' ')} of the LEDs"


def metric_step(name: str) -> str:
    """The step that computes a metric."""
    return METRIC + name


def metric_name(step: str) -> str | None:
    """The metric that a step computes; None where it does something else."""
    return step.removeprefix(METRIC) if step.startswith(METRIC) else None
