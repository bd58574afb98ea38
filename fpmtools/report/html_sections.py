"""The sections of the report as HTML. Where something is missing, its section says why."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from fpmtools.report import html_images, html_table
from fpmtools.report.contrast import length_label, scale_bar_um
from fpmtools.report.html_charts import Axis, Series, chart, pareto_edge, thinned
from fpmtools.report.html_folder import Curve, Entry, Evidence, number
from fpmtools.runs.folder import FINISHED

_RINGS = {
    "halves": (
        "Fourier ring correlation of two halves",
        "Of two solves, each from half of the LEDs, with the half-bit threshold.",
    ),
    "truth": ("Fourier ring correlation with the truth", "Of each result and the truth, with the threshold 1/2."),
}
_ENDS = {"stopped": "ended by --budget before its own end", "reached": "ended by --target"}
Draw = Callable[[Evidence, str], str]


def summary(evidence: Evidence) -> str:
    """The table, and how many solvers gave a result."""
    good = sum(entry.status in FINISHED for entry in evidence.entries)
    runs = f"{good} of {len(evidence.entries)} gave a result."
    spread = "Medians over the repeats, with the spread below." if _repeated(evidence) else ""
    statuses = {entry.status for entry in evidence.entries}
    ends = " ".join(f"{status}: {meaning}." for status, meaning in _ENDS.items() if status in statuses)
    note = " ".join(filter(None, [runs, ends, spread, "↑ more is better, ↓ less is better. Click a heading to sort."]))
    return f'{html_table.table(evidence)}<p class="note">{note}</p>{_verdicts(evidence)}'


def per_data_set(evidence: Evidence, draw: Draw) -> str:
    """``draw(evidence, data)`` for every data set, under its name where there are several."""
    several = len(evidence.datasets) > 1
    heads = {data: f"<h3><bdi>{escape(data)}</bdi></h3>" if several else "" for data in evidence.datasets}
    return "".join(head + draw(evidence, data) for data, head in heads.items())


def quality_over_time(evidence: Evidence, data: str) -> str:
    """PSNR and SSIM against seconds."""
    charts = []
    for column in (html_table.column(key, {}) for key in ("psnr", "ssim")):
        curves = _series(evidence, {entry: entry.over_time(column.key) for entry in evidence.of(data)})
        if curves:
            charts.append(chart(f"{column.name} over time", curves, Axis("time (s)", log=True), Axis(column.label)))
    if charts:
        return _charts(*charts, note="The clock stands still while quality is measured; set-up is not in it.")
    if all(entry.number("psnr") is None for entry in evidence.of(data)):
        return none("Quality over time needs a known truth. How the loss fell is shown under Convergence.")
    return none("These runs have not recorded it; the quality they ended with is in the table.")


def storage(evidence: Evidence, data: str) -> str:
    """Stored megabytes against quality, with the Pareto front."""
    found = html_table.storage_against_quality(evidence.of(data))
    if found is None:
        return none("No solver has both a stored size and a quality.")
    column, points = found
    higher = column.better == "higher"
    dots = _series(evidence, {entry: [point] for entry, point in points.items()})
    curves = [Series("Pareto front", pareto_edge(list(points.values()), higher), -1, stairs=True)]
    curves += [replace(one, line=False, markers=True) for one in dots]
    drawn = chart("Storage against quality", curves, Axis("stored (MB)", log=True), Axis(column.label, log=not higher))
    return _charts(drawn, note=f"Better is towards the {'upper' if higher else 'lower'} left.")


def ring_correlation(evidence: Evidence, data: str) -> str:
    """Correlation of two independent halves, or with the truth, against spatial frequency."""
    charts = []
    for of, (title, note) in _RINGS.items():
        curves, limit = evidence.ring_correlations(data, of)
        if curves:
            series = [*_series(evidence, curves), Series("threshold", limit, -1)]
            drawing = chart(title, series, Axis("spatial frequency (cycles/µm)"), Axis("correlation"))
            charts.append(_charts(drawing, note=f"{note} The resolution is where a curve first falls below it."))
    if charts:
        return "".join(charts)
    return none(
        "Without a truth it takes two more solves, each from half of the LEDs: ask for them by --ring-correlation."
    )


def convergence(evidence: Evidence, data: str) -> str:
    """Loss against seconds."""
    curves = _series(evidence, {entry: thinned(entry.over_time("loss")) for entry in evidence.of(data)})
    if not curves:
        return none("These runs have not recorded how their loss fell.")
    drawn = chart("Loss over time", curves, Axis("time (s)", log=True), Axis("loss", log=True))
    return _charts(
        drawn,
        note="Each solver minimises a loss of its own: a curve shows when it has settled, not which is better. Medians "
        "over short times.",
    )


def error_maps(galleries: Sequence[Mapping[str, Any]]) -> str:
    """The error of every solver on every data set that has a truth."""
    parts = []
    for gallery in galleries:
        bar = _scale_bar(gallery["extent_um"][1])
        cards = [
            _map(source["name"], source["focus"]["error"], bar)
            for source in gallery["sources"]
            if source["focus"] and "error" in source["focus"]
        ]
        if cards:
            head = f"<h3><bdi>{escape(gallery['data'])}</bdi></h3>" if len(galleries) > 1 else ""
            stops = ", ".join(html_images.palette(html_images.ERROR_MAP)[::9])
            bar = f'<span>0</span><i style="background:linear-gradient(to right,{stops})"></i>'
            bar += f"<span>{gallery['error_max']:.2g}</span><span>|error|</span>"
            parts.append(f'{head}<div class="maps">{"".join(cards)}</div><div class="bar">{bar}</div>')
    if not parts:
        return none("Error maps need a known truth and a result; only simulated data have a truth.")
    return "".join(parts) + _note(
        "Modulus of the complex difference from the truth, every pixel taken at its true depth, after one complex "
        "gain; the truth is limited to the band that the LEDs cover. One scale for all solvers."
    )


def _map(name: str, uri: str, bar: str) -> str:
    return (
        f'<figure><div class="map"><img src="{uri}" alt="error map of {escape(name)}">{bar}</div>'
        f"<figcaption><bdi>{escape(name)}</bdi></figcaption></figure>"
    )


def _scale_bar(width_um: float) -> str:
    """A scale bar over an image that is ``width_um`` wide."""
    length = scale_bar_um(width_um)
    return f'<span class="scale" style="width:{100 * length / width_um:.3f}%">{length_label(length)}</span>'


def failures(evidence: Evidence) -> str:
    """Every row that is not a full result, with its reason."""
    bad = [entry for entry in evidence.entries if entry.status not in FINISHED or entry.reason or entry.missing]
    if not bad:
        return none("None: every solver gave a result in every run.")
    items = []
    for entry in bad:
        kind = "good" if entry.status in FINISHED else "bad"
        why = [entry.reason, f"not measured: {entry.missing}" if entry.missing else ""]
        items.append(
            f"<li><b><bdi>{escape(entry.name)}</bdi></b> on <bdi>{escape(entry.data)}</bdi> "
            f'<span class="status {kind}">{escape(entry.status)}</span> '
            f"<bdi>{escape('; '.join(filter(None, why)))}</bdi></li>"
        )
    return f'<ul class="failures">{"".join(items)}</ul>'


def reproduce(evidence: Evidence) -> str:
    """The command, and what it was run with."""
    words = evidence.document.get("command")
    command = shlex.join(map(str, words)) if isinstance(words, list) else str(words or "")
    if command:
        parts = [f'<div class="command"><pre id="command">{escape(command)}</pre>']
        parts.append('<button type="button" data-copy="command">Copy</button></div>')
    else:
        parts = [none("The command was not recorded; the options of each run are in results.json.")]
    for title, facts in _facts(evidence).items():
        rows = (
            f'<tr><th scope="row"><bdi>{escape(name)}</bdi></th><td><bdi>{escape(_plain(value))}</bdi></td></tr>'
            for name, value in facts.items()
            if value not in (None, "", {}, [])
        )
        parts.append(f"<details><summary>{title}</summary><table class='facts'>{''.join(rows)}</table></details>")
    return "".join(parts)


def none(reason: str) -> str:
    """A section's place where there is nothing to show."""
    return f'<p class="none">{escape(reason)}</p>'


def _verdicts(evidence: Evidence) -> str:
    """Which solver is best by what, and where the difference is no more than noise."""
    items = []
    for verdict in evidence.document.get("verdicts") or ():
        if not isinstance(verdict, dict):
            continue
        by = html_table.column(str(verdict.get("number", "")), evidence.columns)
        on = f" on <bdi>{escape(str(verdict.get('data', '')))}</bdi>" if len(evidence.datasets) > 1 else ""
        winner = str(verdict.get("winner") or "")
        found = f"<b><bdi>{escape(winner)}</bdi></b>" if winner else "no winner named:"
        reason = f" <bdi>{escape(str(verdict.get('reason') or ''))}</bdi>" if verdict.get("reason") else ""
        sizes = [
            f"{name} {size:.3g} {by.unit}".strip()
            for name, key in (("the best two differ by", "difference"), ("noise floor", "noise_floor"))
            if (size := number(verdict.get(key))) is not None
        ]
        items.append(f"<li>Best by {escape(by.name)}{on}: {found}{reason} ({escape(', '.join(sizes))})</li>")
    return f'<ul class="note">{"".join(items)}</ul>' if items else ""


def _facts(evidence: Evidence) -> dict[str, dict[str, Any]]:
    versions: dict[str, Any] = {}
    hardware: dict[str, Any] = {}
    data: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for entry in evidence.entries:
        versions = versions or _mapping(entry.recorded("versions"))
        hardware = hardware or _mapping(entry.recorded("hardware"))
        about = _mapping(entry.recorded("data"))
        data.setdefault(f"{entry.data}, SHA-256", about.get("digest"))
        data.setdefault(f"{entry.data}, optics", about.get("optics"))
        options.setdefault(entry.name, entry.recorded("options"))
    return {"Versions": versions, "Hardware": hardware, "Data": data, "Options of the solvers": options}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_plain(part)}" for key, part in value.items())
    return str(value)


def _repeated(evidence: Evidence) -> bool:
    return any((entry.number("repeats") or 1) > 1 for entry in evidence.entries)


def _series(evidence: Evidence, curves: Mapping[Entry, Curve]) -> list[Series]:
    """The curves that are not empty, in their solvers' colours."""
    return [
        Series(entry.name, curve, evidence.solvers.index(entry.name), markers=len(curve) < 40)
        for entry, curve in curves.items()
        if curve
    ]


def _charts(*charts: str, note: str) -> str:
    return f'<div class="charts">{"".join(charts)}</div>{_note(note)}'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
