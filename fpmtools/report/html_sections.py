"""What the sections of the report show, for their templates. Where something is missing, its section says why."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fpmtools.report import curves, html_images, html_instrument, html_table
from fpmtools.report.charts import Chart
from fpmtools.report.contrast import length_label, scale_bar_um
from fpmtools.report.html_folder import Folder, Row, number

_ENDS = {"stopped": "ended by its budget before its own end", "reached": "ended by its target"}


@dataclass(frozen=True)
class Section:
    """A section of the page: a template and what it shows, or why there is nothing to show, and so no section.

    ``half``: on a wide page it stands beside another one.
    """

    title: str
    template: str = ""
    content: Any = None
    none: str = ""
    half: bool = False

    @property
    def id(self) -> str:
        """Its place on the page."""
        return self.title.lower().replace(" ", "-")

    @property
    def small(self) -> bool:
        """Whether half of a wide page is enough for it."""
        if self.template == "charts.html":
            return all(len(group.charts) == 1 for part in self.content for group in part.groups)
        alone = {
            "leds.html": lambda: [len(group["maps"]) for group in self.content["maps"]] == [1],
            "coverage.html": lambda: len(self.content["spectra"]) == 1,
            "residual.html": lambda: len(self.content) == 1,
        }
        return self.template == "failures.html" or alone.get(self.template, bool)()


def all_of(folder: Folder, galleries: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Every section that has something to show, in order; the last one says why others are not there."""
    found = [
        _summary(folder),
        _colour(folder),
        _images(folder, galleries),
        _error_maps(galleries),
        _leds(folder),
        _coverage(folder),
        _instrument(folder),
        _residual(folder),
        _charts(folder, "Quality over time", _quality_over_time),
        _charts(folder, "Storage", _sizes),
        _charts(folder, "Ring correlation", _ring_correlation),
        _charts(folder, "Convergence", _convergence),
        _failures(folder),
    ]
    left_out = {section.title: section.none for section in found if section.none}
    shown = [section for section in found if section.template and not section.none]
    return [*beside(shown), _reproduce(folder, left_out)]


def beside(sections: Sequence[Section]) -> list[Section]:
    """The same with small ones in pairs; one that has no neighbour left takes all of the width."""
    found: list[Section] = []
    while len(found) < len(sections):
        pair = sections[len(found) : len(found) + 2]
        together = len(pair) == 2 and all(section.small for section in pair)
        found += [replace(section, half=True) for section in pair] if together else pair[:1]
    return found


def _summary(folder: Folder) -> Section:
    """The table, how many solvers gave a result, and the verdicts."""
    table, verdicts = html_table.table(folder), _verdicts(folder)
    why = dict.fromkeys(verdict["reason"] for verdict in verdicts if verdict["reason"])
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
        table | {"note": " ".join(filter(None, words)), "verdicts": verdicts, "undecided": "; ".join(why)},
    )


def _verdicts(folder: Folder) -> list[dict[str, str]]:
    """Which solver is best by what, and where the difference is no more than noise; a line each."""
    said = [verdict for verdict in folder.document.get("verdicts") or () if isinstance(verdict, dict)]
    return [_verdict(folder, verdict) for verdict in said]


def _verdict(folder: Folder, verdict: Mapping[str, Any]) -> dict[str, str]:
    by = folder.column(str(verdict.get("number", "")))
    difference, floor = (
        "" if (size := number(verdict.get(key))) is None else f"{size:.3g} {by.unit}".strip()
        for key in ("difference", "noise_floor")
    )
    winner, reason = str(verdict.get("winner") or ""), str(verdict.get("reason") or "")
    if winner:
        words = f"best by {difference}, noise floor {floor}" if difference and floor else "best"
    elif floor:
        words = f"no winner: {reason} ({difference}, noise floor {floor})"
    else:
        words = f"no winner: the best two differ by {difference}, noise floor not known" if difference else reason
    data = str(verdict.get("data", "")) if len(folder.datasets) > 1 else ""
    return {"by": by.label, "data": data, "winner": winner, "words": words, "reason": "" if winner or floor else reason}


def _colour(folder: Folder) -> Section:
    """The picture of several colours; nothing of it is said where there is one."""
    return Section("Colour", "colour.html" if folder.picture else "", folder.picture)


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
            {"name": source["name"], "uri": source["error_map"]}
            for source in gallery["sources"]
            if "error_map" in source
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
    none = "" if content else "Every solver gave a result in every run."
    title = "Remarks" if all(row.good for row in folder.rows) else "Failures"
    return Section(title, "failures.html", content, none)


def _why(row: Row) -> str:
    return "; ".join(filter(None, [row.reason, f"not measured: {row.missing}" if row.missing else ""]))


def _leds(folder: Folder) -> Section:
    """How well each LED's image is explained."""
    maps = html_instrument.led_maps(folder)
    none = "" if maps else "χ² is measured where images have noise and a result has one plane."
    return Section("LEDs", "leds.html", {"maps": maps, "several": len(folder.datasets) > 1}, none)


def _coverage(folder: Folder) -> Section:
    """Which part of the spectrum was measured."""
    spectra = html_instrument.coverage(folder)
    none = "" if spectra else "It needs a result with the instrument that it was solved with."
    return Section("Spectrum", "coverage.html", {"spectra": spectra, "several": len(folder.datasets) > 1}, none)


def _instrument(folder: Folder) -> Section:
    """Pupil and board as they were found."""
    found = html_instrument.instruments(folder)
    none = "" if found else "All was taken as the data say: nothing else was found, or looked for."
    return Section("Instrument", "instrument.html", {"found": found, "several": len(folder.datasets) > 1}, none)


def _charts(folder: Folder, title: str, draw: Callable[[Folder, str], tuple[list[_Group], str]]) -> Section:
    """Charts of every data set that there are some of."""
    parts, none = [], ""
    for data in folder.datasets:
        groups, why = draw(folder, data)
        none = none or why
        if groups := [group for group in groups if group.charts]:
            parts.append(_Part(data if len(folder.datasets) > 1 else "", groups))
    return Section(title, "charts.html", parts, "" if parts else none)


def _reproduce(folder: Folder, left_out: Mapping[str, str]) -> Section:
    """The command, and what it was run with."""
    words = folder.document.get("command")
    command = shlex.join(map(str, words)) if isinstance(words, list) else str(words or "")
    facts = {
        title: {name: _plain(value) for name, value in about.items() if value not in (None, "", {}, [])}
        for title, about in {**_facts(folder), "Not in this report": left_out}.items()
        if about
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
        name = f"{row.data} · {row.name}" if folder.picture else row.data
        data.setdefault(f"{name}, SHA-256", about.get("digest"))
        data.setdefault(f"{name}, optics", about.get("optics"))
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
    """The charts of one data set; ``data`` is its name where there are several."""

    data: str
    groups: Sequence[_Group]


def _quality_over_time(folder: Folder, data: str) -> tuple[list[_Group], str]:
    note = "The clock stands still while quality is measured; set-up is not in it."
    none = "These runs have not recorded it; the quality they ended with is in the table."
    if all(row.number("psnr") is None for row in folder.of(data)):
        none = "Quality over time needs a known truth. How the loss fell is shown under Convergence."
    return [_Group(curves.quality_over_time(folder, data), note)], none


def _sizes(folder: Folder, data: str) -> tuple[list[_Group], str]:
    drawn = curves.size_against_quality(folder, data) if len(folder.of(data)) > 1 else []
    return [
        _Group([chart], chart.note) for chart in drawn
    ], "It takes two results with both a stored size and a quality."


def _ring_correlation(folder: Folder, data: str) -> tuple[list[_Group], str]:
    none = "Without a truth it takes two more solves, each from half of the LEDs: ask the comparison for it."
    return [_Group([chart], chart.note) for chart in curves.ring_correlation(folder, data)], none


def _convergence(folder: Folder, data: str) -> tuple[list[_Group], str]:
    note = (
        "Each solver minimises a loss of its own: a curve shows when it has settled, not which is better. Medians over "
        "short times."
    )
    return [_Group(curves.loss_over_time(folder, data), note)], "These runs have not recorded how their loss fell."
