"""What the sections of the report show, for their templates. Where something is missing, its section says why."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fpmtools.report import curves, html_images, html_table
from fpmtools.report.charts import Chart
from fpmtools.report.contrast import length_label, scale_bar_um
from fpmtools.report.html_folder import Folder, Row, number

_ENDS = {"stopped": "ended by its budget before its own end", "reached": "ended by its target"}


@dataclass(frozen=True)
class Section:
    """A section of the page: a template and what it shows, or why there is nothing to show."""

    title: str
    template: str = ""
    content: Any = None
    none: str = ""

    @property
    def id(self) -> str:
        """Its place on the page."""
        return self.title.lower().replace(" ", "-")


def all_of(folder: Folder, galleries: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Every section, in order."""
    return [
        _summary(folder),
        _images(folder, galleries),
        _error_maps(galleries),
        _residual(folder),
        Section("Quality over time", "charts.html", list(_parts(folder, _quality_over_time))),
        Section("Storage", "charts.html", list(_parts(folder, _sizes))),
        Section("Ring correlation", "charts.html", list(_parts(folder, _ring_correlation))),
        Section("Convergence", "charts.html", list(_parts(folder, _convergence))),
        _failures(folder),
        _reproduce(folder),
    ]


def _summary(folder: Folder) -> Section:
    """The table, how many solvers gave a result, and the verdicts."""
    table = html_table.table(folder)
    good = sum(row.good for row in folder.rows)
    statuses = {row.status for row in folder.rows}
    words = [
        f"{good} of {len(folder.rows)} gave a result.",
        *(f"{status}: {meaning}." for status, meaning in _ENDS.items() if status in statuses),
        "Medians over the repeats, with the spread below." if table["repeated"] else "",
        "↑ more is better, ↓ less is better. Click a heading to sort.",
    ]
    return Section(
        "Summary",
        "summary.html",
        table | {"note": " ".join(filter(None, words)), "verdicts": list(_verdicts(folder))},
    )


def _verdicts(folder: Folder) -> Iterator[dict[str, str]]:
    """Which solver is best by what, and where the difference is no more than noise."""
    for verdict in folder.document.get("verdicts") or ():
        if not isinstance(verdict, dict):
            continue
        by = folder.column(str(verdict.get("number", "")))
        sizes = [
            f"{name} {size:.3g} {by.unit}".strip()
            for name, key in (("the best two differ by", "difference"), ("noise floor", "noise_floor"))
            if (size := number(verdict.get(key))) is not None
        ]
        yield {
            "by": by.label,
            "data": str(verdict.get("data", "")) if len(folder.datasets) > 1 else "",
            "winner": str(verdict.get("winner") or ""),
            "reason": str(verdict.get("reason") or ""),
            "sizes": ", ".join(sizes),
        }


def _images(folder: Folder, galleries: Sequence[Mapping[str, Any]]) -> Section:
    if galleries:
        return Section("Images", "viewer.html")
    reasons = "; ".join(f"{row.name}: {row.rendered}" for row in folder.rows)
    return Section("Images", none=f"No solver has a result that can be shown. {reasons}")


def _error_maps(galleries: Sequence[Mapping[str, Any]]) -> Section:
    """The error of every solver on every data set that has a truth."""
    content = [_maps(gallery) for gallery in galleries]
    content = [shown for shown in content if shown["maps"]]
    none = "" if content else "Error maps need a known truth and a result; only simulated data have a truth."
    return Section("Error maps", "error_maps.html", content, none)


def _residual(folder: Folder) -> Section:
    """What the images of each result have in common that it does not explain."""
    content = []
    for row in folder.rows:
        fit = _mapping(row.recorded("fit"))
        if shown := html_images.singular_pictures(_mapping(fit.get("residual"))):
            name = f"{row.name} · {row.data}" if len(folder.datasets) > 1 else row.name
            content.append({"name": name, "pictures": shown})
    none = "" if content else "It is measured where images have noise and a result has one plane."
    return Section("Residual", "residual.html", content, none)


def _maps(gallery: Mapping[str, Any]) -> dict[str, Any]:
    width_um = gallery["extent_um"][1]
    length_um = scale_bar_um(width_um)
    return {
        "data": gallery["data"],
        "maps": [
            {"name": source["name"], "uri": source["focus"]["error"]}
            for source in gallery["sources"]
            if source["focus"] and "error" in source["focus"]
        ],
        "bar": length_label(length_um),
        "bar_percent": 100 * length_um / width_um,
        "colours": html_images.palette(html_images.ERROR_MAP)[::9],
        "error_max": gallery["error_max"],
    }


def _failures(folder: Folder) -> Section:
    """Every row that is not a full result, with its reason."""
    content = [
        {"name": row.name, "data": row.data, "status": row.status, "kind": html_table.kind(row), "why": _why(row)}
        for row in folder.rows
        if not row.good or row.reason or row.missing
    ]
    none = "" if content else "None: every solver gave a result in every run."
    return Section("Failures", "failures.html", content, none)


def _why(row: Row) -> str:
    return "; ".join(filter(None, [row.reason, f"not measured: {row.missing}" if row.missing else ""]))


def _reproduce(folder: Folder) -> Section:
    """The command, and what it was run with."""
    words = folder.document.get("command")
    command = shlex.join(map(str, words)) if isinstance(words, list) else str(words or "")
    facts = {
        title: {name: _plain(value) for name, value in about.items() if value not in (None, "", {}, [])}
        for title, about in _facts(folder).items()
    }
    return Section("Reproduce", "reproduce.html", {"command": command, "facts": facts})


def _facts(folder: Folder) -> dict[str, dict[str, Any]]:
    versions: dict[str, Any] = {}
    hardware: dict[str, Any] = {}
    data: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for row in folder.rows:
        versions = versions or _mapping(row.recorded("versions"))
        hardware = hardware or _mapping(row.recorded("hardware"))
        about = _mapping(row.recorded("data"))
        data.setdefault(f"{row.data}, SHA-256", about.get("digest"))
        data.setdefault(f"{row.data}, optics", about.get("optics"))
        options.setdefault(row.name, row.recorded("options"))
    return {"Versions": versions, "Hardware": hardware, "Data": data, "Options of the solvers": options}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_plain(part)}" for key, part in value.items())
    return str(value)


@dataclass(frozen=True)
class _Group:
    """Charts side by side, and what is to be said of them."""

    charts: Sequence[Chart]
    note: str


@dataclass(frozen=True)
class _Part:
    """The charts of one data set, or why there are none; ``data`` is its name where there are several."""

    data: str
    groups: Sequence[_Group]
    none: str


def _parts(folder: Folder, draw: Callable[[Folder, str], tuple[list[_Group], str]]) -> Iterator[_Part]:
    """``draw(folder, data)``, the groups and why there may be none, for every data set."""
    for data in folder.datasets:
        groups, none = draw(folder, data)
        groups = [group for group in groups if group.charts]
        yield _Part(data if len(folder.datasets) > 1 else "", groups, "" if groups else none)


def _quality_over_time(folder: Folder, data: str) -> tuple[list[_Group], str]:
    note = "The clock stands still while quality is measured; set-up is not in it."
    none = "These runs have not recorded it; the quality they ended with is in the table."
    if all(row.number("psnr") is None for row in folder.of(data)):
        none = "Quality over time needs a known truth. How the loss fell is shown under Convergence."
    return [_Group(curves.quality_over_time(folder, data), note)], none


def _sizes(folder: Folder, data: str) -> tuple[list[_Group], str]:
    drawn = curves.size_against_quality(folder, data)
    return [_Group([chart], chart.note) for chart in drawn], "No solver has both a stored size and a quality."


def _ring_correlation(folder: Folder, data: str) -> tuple[list[_Group], str]:
    none = "Without a truth it takes two more solves, each from half of the LEDs: ask the comparison for it."
    return [_Group([chart], chart.note) for chart in curves.ring_correlation(folder, data)], none


def _convergence(folder: Folder, data: str) -> tuple[list[_Group], str]:
    note = (
        "Each solver minimises a loss of its own: a curve shows when it has settled, not which is better. Medians over "
        "short times."
    )
    return [_Group(curves.loss_over_time(folder, data), note)], "These runs have not recorded how their loss fell."
