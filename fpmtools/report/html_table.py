"""The summary table: one row per solver and data set, every number that any of them has, sortable by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fpmtools.report.html_folder import Entry, Evidence
from fpmtools.runs.folder import FINISHED

QUALITIES = ("psnr", "held_out", "residual")  # with a truth, and without
_WORDS = frozenset({"solver", "data", "seed", "status", "reason", "missing", "repeats"})
_SPREAD = ("_min", "_max")
_UNITS = {"um": "µm", "rad": "rad", "mb": "MB", "s": "s", "seconds": "s", "bytes": "bytes", "db": "dB"}


@dataclass(frozen=True)
class Column:
    """A column of numbers: its key in the rows, its name, its unit, which way is better, and what it means."""

    key: str
    name: str
    unit: str = ""
    better: str = ""
    meaning: str = ""

    @property
    def label(self) -> str:
        """The name with its unit, for an axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


_KNOWN = (
    Column("seconds", "time", "s", "lower", "solving, without set-up, evaluation, reading and writing"),
    Column("seconds_to_target", "time to target", "s", "lower", "solving until the quality that was asked for"),
    Column("peak_memory_mb", "memory", "MB", "lower", "largest resident memory of the run's own process"),
    Column("stored_bytes", "stored", "bytes", "lower", "bytes of the arrays in the saved result"),
    Column("psnr", "PSNR", "dB", "higher", "amplitude against the truth, each pixel at its true depth"),
    Column("ssim", "SSIM", "", "higher", "structural similarity of the amplitude to the truth"),
    Column("rmse", "RMSE", "", "lower", "of the amplitude against the truth"),
    Column("relative_l2", "relative L2", "", "lower", "Σ(o − p)² / Σo² of the amplitude"),
    Column("phase_rmse_rad", "phase RMSE", "rad", "lower", "wrapped phase difference after one complex gain"),
    Column(
        "truth_resolution_um",
        "resolution",
        "µm",
        "lower",
        "period at which result and truth stop agreeing; the aperture's own where they never do",
    ),
    Column("ring_resolution_um", "half-data resolution", "µm", "lower", "where two solves of half the LEDs part"),
    Column("held_out", "held-out error", "", "lower", "amplitude error of LEDs that a second solve did not see"),
    Column("residual", "residual", "", "lower", "Σ(a − A)² / ΣA² of predicted and measured amplitudes, LEDs in use"),
    Column("setup_seconds", "set‑up", "s", "lower", "before the first step: preparation, warm-up, compilation"),
    Column("first_step_seconds", "first step", "s", "lower", "the part of the time in which solver and device warm up"),
    Column("step_seconds", "step", "s", "lower", "the mean of the steps after the first"),
    Column("dense_ratio", "dense / stored", "", "higher", "complex64 planes of the full size over what is stored"),
    Column("residual_bright", "residual, bright", "", "lower", "the same, bright-field LEDs"),
    Column("residual_dark", "residual, dark", "", "lower", "the same, dark-field LEDs"),
)
_ARROWS = {"higher": "↑", "lower": "↓"}
_MAIN = 13  # of these are always shown, the rest and all further metrics on request


def table(evidence: Evidence) -> str:
    """The ``<table>``; times and other numbers with a spread show it as (lowest–highest)."""
    entries, shown = evidence.entries, columns(evidence)
    main = {column.key for column in _KNOWN[:_MAIN]}
    more = ["" if column.key in main else " more" for column in shown]
    several_data = len({entry.data for entry in entries}) > 1
    several_repeats = any((entry.number("repeats") or 1) > 1 for entry in entries)
    words = ["solver", *(["data"] if several_data else []), "status"]
    head = "".join(_head(word, "", "", "") for word in words)
    head += _head("runs", "", "", "number") if several_repeats else ""
    head += "".join(_head(c.name, _under(c), _hint(c), f"number{extra}") for c, extra in zip(shown, more, strict=True))
    body = []
    for entry in entries:
        cells = [f'<th scope="row"><bdi>{escape(entry.name)}</bdi></th>']
        cells += [f"<td><bdi>{escape(entry.data)}</bdi></td>"] if several_data else []
        kind = "good" if entry.status in FINISHED else "bad"
        title = f' title="{escape(entry.reason)}"' if entry.reason else ""
        cells.append(f'<td><span class="status {kind}"{title}>{escape(entry.status)}</span></td>')
        cells += [_cell(entry.number("repeats"), f"{entry.number('repeats') or 0:g}", "")] if several_repeats else []
        cells += [_number_cell(entry, column, extra) for column, extra in zip(shown, more, strict=True)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    hidden = f'<button type="button" id="more">Show all {len(shown)} numbers</button>' if any(more) else ""
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="summary table"><table id="summary-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{hidden}"
    )


def columns(evidence: Evidence) -> list[Column]:
    """The columns that any entry has a number for: the usual ones first, then the metrics, then whatever else."""
    entries = evidence.entries
    keys = list(dict.fromkeys(key for entry in entries for key in entry.row if entry.number(key) is not None))
    keys = [key for key in keys if key not in _WORDS and not any(_is_spread(key, end, keys) for end in _SPREAD)]
    order = [column.key for column in _KNOWN]
    keys.sort(key=lambda key: order.index(key) if key in order else len(order))
    return [column(key, evidence.columns) for key in keys]


def column(key: str, said: Mapping[str, Mapping[str, str]]) -> Column:
    """What is known about the number called ``key``; what the comparison has ``said`` of it, or its name says."""
    described = {known.key: known for known in _KNOWN}
    if key in described:
        return described[key]
    if key in said:
        unit = said[key].get("unit", "")
        return Column(key, _spoken(key, unit), unit, said[key].get("better", ""), said[key].get("summary", ""))
    unit = _UNITS.get(key.rpartition("_")[2], "")
    return Column(key, _spoken(key, unit), unit)


def storage_against_quality(entries: Sequence[Entry]) -> tuple[Column, dict[Entry, tuple[float, float]]] | None:
    """What quality is (the first of :data:`QUALITIES` there is), and (stored megabytes, quality) of each entry."""
    for measure in (column(key, {}) for key in QUALITIES):
        pairs = {entry: (entry.number("stored_bytes"), entry.number(measure.key)) for entry in entries}
        points = {e: (stored / 1e6, value) for e, (stored, value) in pairs.items() if stored and value is not None}
        if points:
            return measure, points
    return None


def size(n_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.4g} GB"


def _spoken(key: str, unit: str) -> str:
    """``frc_resolution_um`` as ``frc resolution``: the unit has a place of its own."""
    stem, _, last = key.rpartition("_")
    return (stem if stem and unit and _UNITS.get(last) == unit else key).replace("_", " ")


def _is_spread(key: str, end: str, keys: Sequence[str]) -> bool:
    return key.endswith(end) and key.removesuffix(end) in keys


def _hint(column: Column) -> str:
    return f"{column.meaning}; {column.better} is better" if column.better and column.meaning else column.meaning


def _under(column: Column) -> str:
    """The unit (of bytes it stands with the number), and which way is better."""
    unit = "" if column.unit == "bytes" else column.unit
    return f"{unit} {_ARROWS.get(column.better, '')}".strip()


def _head(name: str, under: str, hint: str, kind: str) -> str:
    title = f' title="{escape(hint)}"' if hint else ""
    return (
        f'<th scope="col" aria-sort="none" class="{kind}"{title}><button type="button">{escape(name)}'
        f'<span class="arrow" aria-hidden="true"></span><span class="unit">{escape(under)}</span></button></th>'
    )


def _number_cell(entry: Entry, column: Column, extra: str) -> str:
    value, low, high = (entry.number(column.key + end) for end in ("", *_SPREAD))
    if value is None:
        return _cell(None, "", extra)
    text = _text(column, value)
    if low is not None and high is not None and low != high:
        text += f'<span class="spread">{_text(column, low)}–{_text(column, high)}</span>'
    return _cell(value, text, extra)


def _text(column: Column, value: float) -> str:
    if column.unit == "bytes":
        return size(value)
    if column.unit == "dB":
        return f"{value:.2f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) < 999.5 else f"{value:.0f}"


def _cell(value: float | None, text: str, extra: str) -> str:
    if value is None:
        return f'<td class="number{extra}" data-value="">–</td>'
    return f'<td class="number{extra}" data-value="{float(value)!r}">{text}</td>'
