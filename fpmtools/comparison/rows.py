"""From the records of runs to the table: medians with their spread, and which differences are more than noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fpmtools.records import MetricRecord
from fpmtools.runs.folder import FINISHED


@dataclass(frozen=True)
class Measured:
    """A number that a run takes down itself: where ``run.json`` keeps it, its unit, and what it is."""

    path: tuple[str, ...]
    unit: str
    summary: str
    better: str = "lower"


# By row key. A row holds the median over the repeats, of these and of the metrics.
MEASURED = {
    "seconds": Measured(("times", "solve_s"), "s", "solving, without set-up, evaluation, reading and writing"),
    "seconds_to_target": Measured(("seconds_to_target",), "s", "solving until the quality that was asked for"),
    "setup_seconds": Measured(("times", "setup_s"), "s", "before the first step"),
    "first_step_seconds": Measured(("times", "first_step_s"), "s", "the first step, with what is compiled in it"),
    "step_seconds": Measured(("times", "step_s"), "s", "the mean of the steps after the first"),
    "peak_memory_mb": Measured(("peak_memory_mb",), "MB", "largest resident memory of the run's own process"),
    "stored_bytes": Measured(("stored_bytes",), "bytes", "of the arrays in the saved result"),
    "dense_ratio": Measured(("dense_ratio",), "", "complex64 planes of the full size over what is stored", "higher"),
}
WORDS = ("solver", "data", "seed", "status", "reason", "missing", "repeats")
WITH_SPREAD = (
    "seconds", "seconds_to_target", "setup_seconds", "step_seconds", "peak_memory_mb", "psnr", "ssim", "held_out",
)  # fmt: skip
ENOUGH_RUNS = 3  # fewer say too little about how much runs differ


def columns(metrics: Iterable[MetricRecord]) -> dict[str, dict[str, str]]:
    """Every number of a row, in order: its key → ``unit``, ``better`` ("higher", "lower" or ""), ``summary``.

    A metric whose name is a key of something else in the row has no column.
    """
    found = {key: (m.unit, m.better, m.summary) for key, m in MEASURED.items()}
    taken = {*WORDS, *(f"{name}_{end}" for name in WITH_SPREAD for end in ("min", "max"))}
    for record in metrics:
        if record.name not in taken:
            found.setdefault(record.name, (record.unit, record.better, record.summary))
    return {key: dict(zip(("unit", "better", "summary"), about, strict=True)) for key, about in found.items()}


def row(records: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """One row with the numbers ``names``: medians over the repeats that have them.

    Its status is the one that needs attention most, with its reason; ``missing`` says of what could not be measured
    why, in one line.
    """
    bad = (record for record in records if record["status"] not in FINISHED)
    unusual = (record for record in records if record["status"] != "done" or record["reason"])
    worst = next(bad, None) or next(unusual, records[0])
    missing: dict[str, str] = {}
    for record in records:
        missing = {**record.get("missing", {}), **missing}
    found: dict[str, Any] = {
        "solver": worst["label"],
        "data": worst["data"]["name"],
        "seed": worst["seed"],
        "status": worst["status"],
        "reason": worst["reason"],
        "missing": "; ".join(f"{name}: {reason}" for name, reason in missing.items()),
        "repeats": len(records),
    }
    spread: dict[str, Any] = {}
    for name in names:
        values = numbers(records, name)
        if name == "seconds_to_target" and len(values) < len(records):
            values = []  # the median of those that reached it would flatter
        found[name] = statistics.median(values) if values else None
        if name in WITH_SPREAD:
            spread[f"{name}_min"], spread[f"{name}_max"] = (min(values), max(values)) if values else (None, None)
    return found | spread


def numbers(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """What the runs have measured under a row's key."""
    path = MEASURED[name].path if name in MEASURED else ("metrics", name)
    return [value for record in records if (value := _dig(record, path)) is not None]


@dataclass(frozen=True)
class Verdict:
    """Which solver is best on a data set by one number, or why none can be named.

    ``difference`` is between the two best medians; ``noise_floor`` the larger spread (highest − lowest, over repeats
    and seeds) of the two. A winner is named when its distance to every other is larger than the floor of that pair,
    and all have at least :data:`ENOUGH_RUNS` runs.
    """

    data: str
    number: str
    winner: str | None
    reason: str
    difference: float | None = None
    noise_floor: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def verdicts(records: Sequence[Mapping[str, Any]], measures: Mapping[str, str]) -> list[Verdict]:
    """One verdict for each data set and each of ``measures`` (row key → "lower" or "higher" is better)."""
    found = []
    for data in dict.fromkeys(record["data"]["name"] for record in records):
        own = [record for record in records if record["data"]["name"] == data]
        for name, better in measures.items():
            values = {
                label: numbers([r for r in own if r["label"] == label and r["status"] in FINISHED], name)
                for label in dict.fromkeys(record["label"] for record in own)
            }
            values = {label: runs for label, runs in values.items() if runs}
            if len(values) > 1:
                found.append(_verdict(data, name, better, values))
    return found


def _verdict(data: str, name: str, better: str, values: Mapping[str, Sequence[float]]) -> Verdict:
    medians = {label: statistics.median(runs) for label, runs in values.items()}
    best, second, *_ = sorted(medians, key=lambda label: medians[label], reverse=better == "higher")
    spread = {label: max(runs) - min(runs) for label, runs in values.items()}

    def floor(other: str) -> float:
        return max(spread[best], spread[other])

    def difference(other: str) -> float:
        return abs(medians[best] - medians[other])

    if (fewest := min(map(len, values.values()))) < ENOUGH_RUNS:
        runs = "one run" if fewest == 1 else f"{fewest} runs"
        return Verdict(data, name, None, f"{runs} of a solver: too few to know the noise floor", difference(second))
    near = [other for other in medians if other != best and difference(other) <= floor(other)]
    reason = f"the difference from {', '.join(near)} lies inside the noise floor" if near else ""
    closest = near[0] if near else second
    return Verdict(data, name, None if near else best, reason, difference(closest), floor(closest))


def _dig(record: Any, path: Sequence[str]) -> float | None:
    for key in path:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record if isinstance(record, int | float) else None
