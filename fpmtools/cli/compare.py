"""``fpmtools compare``: several solvers on one data set, as a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _inputs
from fpmtools.cli._output import number, print_json, print_table, size
from fpmtools.errors import EXIT_INTERRUPTED, EXIT_PARTIAL

if TYPE_CHECKING:
    from fpmtools.comparison import Comparison
    from fpmtools.dataset import Dataset

PICTURE = "comparison.png"


@click.command(short_help="Compare several solvers on one data set.")
@_inputs.data_options
@click.option(
    "--solvers",
    default="inr,ap,adam",
    show_default=True,
    metavar="A,B,…",
    help="Solvers, each NAME or NAME:key=value:key=value, such as inr:preset=paper.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each, interleaved.")
@_inputs.solving_options
@_inputs.result_options
def compare(
    data: str,
    solvers: str,
    repeats: int,
    z_um: tuple[float, ...] | None,
    threads: int | None,
    budget_s: float | None,
    out: Path | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    **choices: Any,
) -> int:
    """Run several solvers, each in its own process, and compare time, memory, storage and quality."""
    from fpmtools import comparison, engine
    from fpmtools.report import html_page, run_folder

    reading = _inputs.take_reading(choices)
    engine.choose_device(choices["device"])
    names = [name for name in solvers.split(",") if name.strip()]
    comparison.check_solvers(names)
    folder = out or _inputs.new_folder("compare", data)
    run_folder.claim_folder(folder, force)
    dataset = _inputs.load(data, reading)
    result = comparison.compare(
        dataset,
        names,
        z_um=z_um,
        repeats=repeats,
        threads=threads,
        budget_s=budget_s,
        out=folder,
        on_event=None if quiet else lambda solver, line: click.echo(f"[{solver}] {line}", err=True),
        command=["fpmtools", *click.get_current_context().obj],
        **choices,
    )
    picture = _draw(result, dataset, folder) if result.reconstructions else None
    page = html_page.write(folder, [dataset])
    if as_json:
        files = ["results.csv", "results.json", *([PICTURE] if picture else []), page.name]
        print_json({"data": result.data, "rows": result.rows, "folder": str(folder), "files": files})
    else:
        _print(result, folder, picture)
        click.echo(f"report   {page}")
    if result.interrupted:
        return EXIT_INTERRUPTED
    return 0 if result.complete else EXIT_PARTIAL


def _print(result: Comparison, folder: Path, picture: Path | None) -> None:
    header = ["solver", "status", "seconds", "memory", "stored", "dense/stored", "PSNR dB", "SSIM", "RMSE", "rel. L2"]
    header += ["residual", "bright", "dark"]
    rows = [
        [
            row["solver"],
            row["status"],
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
            click.echo(f"{row['solver']}: {row['reason']}")
    click.echo(f"\ntable    {folder / 'results.csv'}, {folder / 'results.json'}")
    if picture:
        click.echo(f"picture  {picture}")


def _draw(result: Comparison, dataset: Dataset, folder: Path) -> Path:
    """One panel per solver: each pixel at its true depth where that is known, else the middle plane."""
    from fpmtools import metrics
    from fpmtools.report import figures

    planes = result.data["z_um"]
    z_um = planes[len(planes) // 2]
    truth, where = None, f"z = {z_um:g} µm"
    if dataset.truth is not None:
        field = dataset.truth.field
        pixel_um = dataset.image_shape[1] * dataset.optics.pixel_um / field.shape[1]
        truth = metrics.band_limit(field, dataset.optics, dataset.na, pixel_um)
        where = "each pixel at its true depth; the truth is limited to the synthetic aperture"
    columns = []
    for row in result.rows:
        reconstruction = result.reconstructions.get(row["solver"])
        if reconstruction is None:
            columns.append(figures.Column(row["solver"], None, row["reason"]))
            continue
        quality = "" if row["psnr"] is None else f"{row['psnr']:.1f} dB · "
        if dataset.truth is None:
            field = reconstruction.field(z_um)
        else:
            field = metrics.composite(reconstruction, dataset.truth.depth_um)
        columns.append(figures.Column(row["solver"], field, f"{quality}{number(row['seconds'])} s"))
    extent = next(iter(result.reconstructions.values())).grid.extent_um
    figure = figures.side_by_side(columns, extent, truth=truth, title=f"{dataset.name}, {where}")
    return figures.save(figure, folder / PICTURE)
