"""From the records of runs to the table: medians with their spread, and which differences are more than noise."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fpmtools.comparison.runs import GOOD

# Row key → where run.json keeps the number. A row holds the median over the repeats.
MEASURED = {
    "seconds": ("times", "solve_s"),
    "seconds_to_target": ("seconds_to_target",),
    "setup_seconds": ("times", "setup_s"),
    "first_step_seconds": ("times", "first_step_s"),
    "step_seconds": ("times", "step_s"),
    "peak_memory_mb": ("peak_memory_mb",),
    "stored_bytes": ("stored_bytes",),
    "dense_ratio": ("dense_ratio",),
    "psnr": ("metrics", "psnr"),
    "ssim": ("metrics", "ssim"),
    "rmse": ("metrics", "rmse"),
    "relative_l2": ("metrics", "relative_l2"),
    "phase_rmse_rad": ("metrics", "phase_rmse_rad"),
    "residual": ("metrics", "residual", "all"),
    "residual_bright": ("metrics", "residual", "bright"),
    "residual_dark": ("metrics", "residual", "dark"),
}
WITH_SPREAD = ("seconds", "seconds_to_target", "setup_seconds", "step_seconds", "peak_memory_mb", "psnr", "ssim")
COLUMNS = (
    "solver",
    "data",
    "seed",
    "status",
    "reason",
    "repeats",
    *MEASURED,
    *(f"{name}_{end}" for name in WITH_SPREAD for end in ("min", "max")),
)
ENOUGH_RUNS = 3  # fewer say too little about how much runs differ


def row(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over the repeats that have numbers; the status that needs attention most, with its reason."""
    bad = (record for record in records if record["status"] not in GOOD)
    unusual = (record for record in records if record["status"] != "done" or record["reason"])
    worst = next(bad, None) or next(unusual, records[0])
    found: dict[str, Any] = {
        "solver": worst["label"],
        "data": worst["data"]["name"],
        "seed": worst["seed"],
        "status": worst["status"],
        "reason": worst["reason"],
        "repeats": len(records),
    }
    for name in MEASURED:
        values = numbers(records, name)
        if name == "seconds_to_target" and len(values) < len(records):
            values = []  # the median of those that reached it would flatter
        found[name] = statistics.median(values) if values else None
        if name in WITH_SPREAD:
            found[f"{name}_min"], found[f"{name}_max"] = (min(values), max(values)) if values else (None, None)
    return {name: found[name] for name in COLUMNS}


def numbers(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """What the runs have measured under a row's key."""
    return [value for record in records if (value := _dig(record, MEASURED[name])) is not None]


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
                label: numbers([r for r in own if r["label"] == label and r["status"] in GOOD], name)
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
