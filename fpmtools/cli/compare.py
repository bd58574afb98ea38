"""``fpmtools compare``: several solvers on one data set, as a table, a picture and a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _inputs
from fpmtools.cli._output import Progress, number, print_event, print_json, print_table, size
from fpmtools.errors import EXIT_INTERRUPTED, EXIT_PARTIAL, OptionError

if TYPE_CHECKING:
    from fpmtools.comparison import Comparison, Verdict
    from fpmtools.dataset import Dataset

TABLES = ("results.csv", "results.json", "results.parquet")
PICTURE = "comparison.png"


@click.command(short_help="Compare several solvers on one or more data sets.")
@click.option(
    "--data",
    "data_names",
    type=_inputs.several,
    metavar="A,B,…",
    multiple=True,
    default=[_inputs.BUILT_IN],
    show_default=True,
    help="Data sets, names or paths; may be repeated.",
)
@_inputs.reading_options
@click.option(
    "--solvers",
    default="inr,ap,adam",
    show_default=True,
    metavar="A,B,…",
    help="Solvers, each NAME or NAME:key=value:key=value, such as inr:preset=paper.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each, interleaved.")
@click.option("--seeds", type=_inputs.seeds, metavar="N,N,…", help="Several random seeds, in place of --seed.")
@click.option(
    "--timeout",
    "timeout_s",
    type=_inputs.quantity("--timeout", _inputs.DURATIONS, "10m"),
    metavar="TIME",
    help="Kill a run that takes longer than this, all in all (default with --budget: 10 times that + 10m).",
)
@click.option(
    "--memory",
    "memory_bytes",
    type=_inputs.quantity("--memory", _inputs.SIZES, "4GB"),
    metavar="SIZE",
    help="Kill a run that has more than this in memory, such as 4GB (Linux).",
)
@click.option(
    "--resume", is_flag=True, help="Keep the results in --out that still hold; run what is missing or failed."
)
@_inputs.solving_options
@_inputs.result_options
def compare(
    data_names: tuple[list[str], ...],
    solvers: str,
    seeds: tuple[int, ...] | None,
    seed: int,
    targets: tuple[str, ...],
    out: Path | None,
    force: bool,
    resume: bool,
    quiet: bool,
    progress: str,
    as_json: bool,
    **choices: Any,
) -> int:
    """Run several solvers, each in its own process, and compare time, memory, storage and quality."""
    if resume and out is None:
        raise OptionError("--resume needs --out: the folder of the comparison to continue")
    from fpmtools import comparison, engine
    from fpmtools.comparison import tracking
    from fpmtools.report import html_page, run_folder

    reading = _inputs.take_reading(choices)
    engine.choose_device(choices["device"])
    wanted = tracking.parse_targets(targets)
    names = [name for name in solvers.split(",") if name.strip()]
    comparison.check_solvers(names)
    places = [name for group in data_names for name in group]
    folder = out or _inputs.new_folder("compare", places[0] if len(places) == 1 else f"{len(places)}-data-sets")
    run_folder.claim_folder(folder, force or resume)
    datasets = [_inputs.load(place, reading) for place in places]
    result = comparison.compare(
        datasets,
        names,
        seeds=(seed,) if seeds is None else seeds,
        targets=wanted,
        out=folder,
        resume=resume,
        on_event=_Shown("none" if quiet else progress),
        command=["fpmtools", *click.get_current_context().obj],
        **choices,
    )
    pictures = [picture for dataset in datasets if (picture := _draw(result, dataset, folder))]
    page = html_page.write(folder, datasets)
    if as_json:
        tables = [name for name in TABLES if (folder / name).is_file()]
        files = [*tables, *(picture.name for picture in pictures), page.name]
        print_json(
            {
                "data": result.data,
                "rows": result.rows,
                "verdicts": [verdict.to_dict() for verdict in result.verdicts],
                "folder": str(folder),
                "files": files,
            }
        )
    else:
        _print(result, folder, pictures)
        click.echo(f"report   {page}")
    if result.interrupted:
        return EXIT_INTERRUPTED
    return 0 if result.complete else EXIT_PARTIAL


class _Shown:
    """What the runs say, on stderr: one bar after the other, or JSON lines that name the run."""

    def __init__(self, style: str) -> None:
        self.style = style
        self.bar = Progress("", style=style)

    def __call__(self, title: str, event: Mapping[str, Any]) -> None:
        if self.style == "json":
            print_event({"run": title, **event})
            return
        if event["event"] in ("start", "end"):
            self.bar.finish()
            self.bar = Progress(title, style=self.style)
        self.bar.show(event)


def _print(result: Comparison, folder: Path, pictures: list[Path]) -> None:
    timed = any("target" in run for run in result.runs)
    header = ["solver", "status", *(["to target"] if timed else []), "seconds", "memory", "stored", "dense/stored"]
    header += ["PSNR dB", "SSIM", "RMSE", "rel. L2", "residual", "bright", "dark"]
    rows = [
        [
            result.title(row),
            row["status"],
            *([number(row["seconds_to_target"])] if timed else []),
            number(row["seconds"]),
            size(None if row["peak_memory_mb"] is None else row["peak_memory_mb"] * 1e6),
            size(row["stored_bytes"]),
            number(row["dense_ratio"]),
            number(row["psnr"], 4),
            number(row["ssim"]),
            *(number(row[key]) for key in ("rmse", "relative_l2", "residual", "residual_bright", "residual_dark")),
        ]
        for row in result.rows
    ]
    print_table(header, rows, right=header[2:])
    for row in result.rows:
        if row["reason"]:
            click.echo(f"{result.title(row)}: {row['reason']}")
    if result.verdicts:
        click.echo("")
    for verdict in result.verdicts:
        where = f"{verdict.data}, " if len(result.data) > 1 else ""
        click.echo(f"best by {where}{verdict.number.replace('_', ' ')}: {_say(verdict)}")
    click.echo(f"\ntable    {', '.join(str(folder / name) for name in TABLES if (folder / name).is_file())}")
    for picture in pictures:
        click.echo(f"picture  {picture}")


def _say(verdict: Verdict) -> str:
    if verdict.noise_floor is None:
        return f"no winner named, {verdict.reason} (--repeats 3 measures it)"
    numbers = f"difference {number(verdict.difference)}, noise floor {number(verdict.noise_floor)}"
    return f"{verdict.winner} ({numbers})" if verdict.winner else f"no winner named, {verdict.reason} ({numbers})"


def _draw(result: Comparison, dataset: Dataset, folder: Path) -> Path | None:
    """One panel per solver: each pixel at its true depth where that is known, else the middle plane."""
    from fpmtools import metrics
    from fpmtools.comparison.spec import slug
    from fpmtools.report import figures

    rows = [row for row in result.rows if row["data"] == dataset.name and row["seed"] == result.rows[0]["seed"]]
    results = [result.reconstructions.get(result.title(row)) for row in rows]
    extents = [found.grid.extent_um for found in results if found is not None]
    if not extents:
        return None
    planes = next(data["z_um"] for data in result.data if data["name"] == dataset.name)
    z_um = planes[len(planes) // 2]
    truth, where = None, f"z = {z_um:g} µm"
    if dataset.truth is not None:
        field = dataset.truth.field
        pixel_um = dataset.image_shape[1] * dataset.optics.pixel_um / field.shape[1]
        truth = metrics.band_limit(field, dataset.optics, dataset.na, pixel_um)
        where = "each pixel at its true depth; the truth is limited to the synthetic aperture"
    columns = []
    for row, reconstruction in zip(rows, results, strict=True):
        if reconstruction is None:
            columns.append(figures.Column(row["solver"], None, row["reason"]))
            continue
        quality = "" if row["psnr"] is None else f"{row['psnr']:.1f} dB · "
        if dataset.truth is None:
            field = reconstruction.field(z_um)
        else:
            field = metrics.composite(reconstruction, dataset.truth.depth_um)
        columns.append(figures.Column(row["solver"], field, f"{quality}{number(row['seconds'])} s"))
    figure = figures.side_by_side(columns, extents[0], truth=truth, title=f"{dataset.name}, {where}")
    name = PICTURE if len(result.data) == 1 else f"comparison-{slug(dataset.name)}.png"
    return figures.save(figure, folder / name)
