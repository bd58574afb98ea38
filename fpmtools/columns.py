"""The numbers of a run and of a comparison's tables: one record says of each what it is, and how it is written.

The table in the terminal, the report, the figures, ``results.csv`` and ``results.json`` all take it from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fpmtools.records import LAST, MetricRecord

MAIN = 100  # numbers of a rank below this are always shown, the others on request
WORDS = ("solver", "data", "seed", "status", "reason", "missing", "repeats")  # of a row, beside its numbers
ENDS = ("min", "max")  # of the spread of a number: ``seconds_min``, ``seconds_max``
_UNITS = {"um": "µm", "rad": "rad", "mb": "MB", "s": "s", "seconds": "s", "bytes": "bytes", "db": "dB"}
_ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True)
class Column:
    """A number that runs have.

    Parameters
    ----------
    key
        Its name in rows and files.
    label
        What people call it; made from the key where it is not given.
    unit
        Such as ``dB``, ``s``, ``µm``, ``bytes``; empty for a pure number.
    better
        ``"higher"`` or ``"lower"``; empty where neither is.
    summary
        One line that says what it is.
    rank
        Its place among the numbers; see :data:`MAIN`.
    path
        Where ``run.json`` keeps it.
    spread
        Whether a row has its lowest and highest value over the repeats as well.
    """

    key: str
    label: str = ""
    unit: str = ""
    better: str = ""
    summary: str = ""
    rank: int = LAST
    path: tuple[str, ...] = ()
    spread: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or _spoken(self.key, self.unit))
        object.__setattr__(self, "path", tuple(self.path) or ("metrics", self.key))

    @property
    def main(self) -> bool:
        """Whether it is shown without being asked for."""
        return self.rank < MAIN

    @property
    def unit_in_head(self) -> str:
        """The unit for the head of a column; that of bytes stands with the number."""
        return "" if self.unit == "bytes" else self.unit

    @property
    def title(self) -> str:
        """Label and unit, for the head of a column or an axis."""
        return f"{self.label} ({self.unit_in_head})" if self.unit_in_head else self.label

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return _ARROWS.get(self.better, "")

    @property
    def hint(self) -> str:
        """What it is and which way is better, in words."""
        return "; ".join(filter(None, [self.summary, f"{self.better} is better" if self.better else ""]))

    def text(self, value: float | None, digits: int = 3) -> str:
        """A value for people, without its unit but for bytes; a dash where there is none."""
        if value is None or math.isnan(value):
            return "–"
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        if self.unit == "bytes":
            return size(value)
        if self.unit == "dB":
            return f"{value:.2f}"
        return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 999.5 else f"{value:.0f}"

    def read(self, record: Any) -> float | None:
        """Its value in the record of a run (``run.json``); None where there is none."""
        for key in self.path:
            record = record.get(key) if isinstance(record, Mapping) else None
        return record if isinstance(record, int | float) and not isinstance(record, bool) else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the key."""
        return {name: value for name, value in asdict(self).items() if name != "key"}

    @classmethod
    def from_dict(cls, key: str, said: Mapping[str, Any]) -> Column:
        """What :meth:`to_dict` gave, or as much of it as ``said`` holds in the right form."""
        texts = {name: str(said[name]) for name in ("label", "unit", "better", "summary") if said.get(name)}
        rank = said.get("rank", LAST)
        path = tuple(map(str, said["path"])) if isinstance(said.get("path"), list | tuple) else ()
        return cls(
            key, **texts, rank=rank if isinstance(rank, int) else LAST, path=path, spread=bool(said.get("spread"))
        )


MEASURED = (
    Column("seconds", "time", "s", "lower", "solving, without set-up, evaluation, reading and writing", 10,
           ("times", "solve_s"), True),
    Column("seconds_to_target", "time to target", "s", "lower", "solving until the quality that was asked for", 11,
           ("seconds_to_target",), True),
    Column("peak_memory_mb", "memory", "MB", "lower", "largest resident memory of the run's own process", 12,
           ("peak_memory_mb",), True),
    Column("stored_bytes", "stored", "bytes", "lower", "bytes of the arrays in the saved result", 13,
           ("stored_bytes",)),
    Column("dense_ratio", "dense / stored", "", "higher", "complex64 planes of the full size over what is stored", 14,
           ("dense_ratio",)),
    Column("setup_seconds", "set-up", "s", "lower", "before the first step: preparation, warm-up, compilation", 100,
           ("times", "setup_s"), True),
    Column("first_step_seconds", "first step", "s", "lower", "the part of the time in which solver and device warm up",
           101, ("times", "first_step_s")),
    Column("step_seconds", "step", "s", "lower", "the mean of the steps after the first", 102, ("times", "step_s"),
           True),
)  # fmt: skip


def of(metrics: Iterable[MetricRecord]) -> dict[str, Column]:
    """Every number of a row by its key, by rank: what a run measures itself, and the ``metrics``.

    A metric whose name is a key of something else in the row has no column.
    """
    found = {column.key: column for column in MEASURED}
    for record in metrics:
        own = Column(
            record.name, record.label, record.unit, record.better, record.summary, record.rank, spread=record.spread
        )
        found.setdefault(own.key, own)
    taken = {*WORDS, *(f"{column.key}_{end}" for column in found.values() if column.spread for end in ENDS)}
    ranked = sorted(found.values(), key=lambda column: column.rank)
    return {column.key: column for column in ranked if column.key not in taken}


def size(n_bytes: float | None) -> str:
    """Bytes for people; a dash where there are none."""
    if n_bytes is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.4g} GB"


def unknown(key: str) -> Column:
    """A number of which only the key is known, whose last word may be its unit."""
    return Column(key, unit=unit_of(key))


def unit_of(key: str) -> str:
    """The unit that a key ends with, as ``µm`` for ``frc_resolution_um``; empty where it ends with none."""
    return _UNITS.get(key.rpartition("_")[2], "")


def _spoken(key: str, unit: str) -> str:
    """``frc_resolution_um`` as ``frc resolution``: the unit has a place of its own."""
    stem, _, _ = key.rpartition("_")
    return (stem if stem and unit and unit_of(key) == unit else key).replace("_", " ")
