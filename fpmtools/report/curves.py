"""The charts of a comparison, the same on the page and in the figures for papers."""

from __future__ import annotations

from collections.abc import Mapping

from fpmtools.columns import Column
from fpmtools.report import html_folder
from fpmtools.report.charts import Axis, Chart, Series, pareto_edge, thinned
from fpmtools.report.html_folder import Curve, Folder, Row

QUALITIES = ("psnr", "held_out", "residual")  # with a truth, and without
FLOORS, LEAST_SHARE = 2.0, 0.02  # noise floors, and share of the values, that an axis spans at least
_TIME = Axis("time (s)", log=True)
_RINGS = {
    "halves": (
        "Fourier ring correlation of two halves",
        "Of two solves, each from half of the LEDs, with the half-bit threshold.",
    ),
    "truth": ("Fourier ring correlation with the truth", "Of each result and the truth, with the threshold 1/2."),
}


def all_of(folder: Folder, data: str) -> list[Chart]:
    """Every chart that there are numbers for."""
    return [
        *quality_over_time(folder, data),
        *size_against_quality(folder, data),
        *ring_correlation(folder, data),
        *loss_over_time(folder, data),
    ]


def quality_over_time(folder: Folder, data: str) -> list[Chart]:
    """PSNR and SSIM against seconds."""
    drawn = []
    for column in map(folder.column, ("psnr", "ssim")):
        curves = _series(folder, {row: row.over_time(column.key) for row in folder.of(data)})
        title = f"{column.label} over time"
        axis = Axis(column.title, least=_least(folder, data, column))
        drawn.append(Chart(f"{column.key}_over_time", title, curves, _TIME, axis))
    return [chart for chart in drawn if chart.series]


def size_against_quality(folder: Folder, data: str) -> list[Chart]:
    """Stored megabytes against the first of :data:`QUALITIES` that there is, with the Pareto front."""
    for column in map(folder.column, QUALITIES):
        pairs = {row: (row.number("stored_bytes"), row.number(column.key)) for row in folder.of(data)}
        points = {row: (stored / 1e6, value) for row, (stored, value) in pairs.items() if stored and value is not None}
        if points:
            return [_sizes(folder, column, points, _least(folder, data, column))]
    return []


def _least(folder: Folder, data: str, column: Column) -> float:
    """What an axis of this number spans at least: twice its noise floor, and a fiftieth of its largest value."""
    said = (verdict for verdict in folder.document.get("verdicts") or () if isinstance(verdict, Mapping))
    here = (one for one in said if one.get("number") == column.key and one.get("data") in (data, None))
    floors = [floor for one in here if (floor := html_folder.number(one.get("noise_floor"))) is not None]
    values = [abs(value) for row in folder.of(data) if (value := row.number(column.key)) is not None]
    return max(FLOORS * max(floors, default=0.0), LEAST_SHARE * max(values, default=0.0))


def ring_correlation(folder: Folder, data: str) -> list[Chart]:
    """Correlation of two independent halves, and with the truth, against spatial frequency."""
    drawn = []
    for of in html_folder.RING_KINDS:
        curves, limit = folder.ring_correlations(data, of)
        if curves:
            title, note = _RINGS[of]
            series = [*_series(folder, curves), Series("threshold", limit, -1)]
            x, y = Axis("spatial frequency (cycles/µm)"), Axis("Fourier ring correlation")
            note += " The resolution is where a curve first falls below it."
            drawn.append(Chart(f"ring_correlation_{of}", title, series, x, y, note))
    return drawn


def loss_over_time(folder: Folder, data: str) -> list[Chart]:
    """Loss against seconds, medians over short times."""
    curves = _series(folder, {row: thinned(row.over_time("loss")) for row in folder.of(data)})
    chart = Chart("loss_over_time", "Loss over time", curves, _TIME, Axis("loss", log=True))
    return [chart] if chart.series else []


def _sizes(folder: Folder, column: Column, points: Mapping[Row, tuple[float, float]], least: float) -> Chart:
    higher = column.better == "higher"
    dots = [
        Series(row.name, [point], folder.solvers.index(row.name), line=False, markers=True)
        for row, point in points.items()
    ]
    front = Series("Pareto front", pareto_edge(list(points.values()), higher), -1, stairs=True)
    x, y = Axis("stored (MB)", log=True), Axis(column.title, not higher, least)
    note = f"Better is towards the {'upper' if higher else 'lower'} left."
    return Chart("storage_quality", "Storage against quality", [front, *dots], x, y, note)


def _series(folder: Folder, curves: Mapping[Row, Curve]) -> list[Series]:
    """The curves in their solvers' colours."""
    return [
        Series(row.name, curve, folder.solvers.index(row.name), markers=len(curve) < 40)
        for row, curve in curves.items()
    ]
