"""From the records of runs to the table: medians with their spread, and which differences are more than noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fpmtools.columns import ENDS, Column
from fpmtools.runs.folder import FINISHED

ENOUGH_RUNS = 3  # fewer say too little about how much runs differ


def row(records: Sequence[Mapping[str, Any]], columns: Iterable[Column]) -> dict[str, Any]:
    """One row with the numbers of ``columns``: medians over the repeats that have them.

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
    for column in columns:
        values = numbers(records, column)
        if column.key == "seconds_to_target" and len(values) < len(records):
            values = []  # the median of those that reached it would flatter
        found[column.key] = statistics.median(values) if values else None
        if column.spread:
            ends = (min(values), max(values)) if values else (None, None)
            spread |= {f"{column.key}_{end}": value for end, value in zip(ENDS, ends, strict=True)}
    return found | spread


def numbers(records: Sequence[Mapping[str, Any]], column: Column) -> list[float]:
    """What the runs have measured of a column."""
    return [value for record in records if (value := column.read(record)) is not None]


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


def verdicts(records: Sequence[Mapping[str, Any]], columns: Iterable[Column]) -> list[Verdict]:
    """One verdict for each data set and each of ``columns``."""
    columns = list(columns)
    found = []
    for data in dict.fromkeys(record["data"]["name"] for record in records):
        own = [record for record in records if record["data"]["name"] == data]
        for column in columns:
            values = {
                label: numbers([r for r in own if r["label"] == label and r["status"] in FINISHED], column)
                for label in dict.fromkeys(record["label"] for record in own)
            }
            values = {label: runs for label, runs in values.items() if runs}
            if len(values) > 1:
                found.append(_verdict(data, column, values))
    return found


def _verdict(data: str, column: Column, values: Mapping[str, Sequence[float]]) -> Verdict:
    name = column.key
    medians = {label: statistics.median(runs) for label, runs in values.items()}
    best, second, *_ = sorted(medians, key=lambda label: medians[label], reverse=column.better == "higher")
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
