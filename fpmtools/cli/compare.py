"""``fpmtools compare``: several solvers on one data set, as a table, a picture and a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _complete, _inputs
from fpmtools.cli._groups import Grouped
from fpmtools.cli._output import echo, number, print_event, print_json, print_table
from fpmtools.cli._progress import Progress
from fpmtools.errors import EXIT_INTERRUPTED, EXIT_PARTIAL, OptionError

if TYPE_CHECKING:
    from fpmtools.comparison import Comparison, Verdict
    from fpmtools.dataset import Dataset

TABLES = ("results.csv", "results.json", "results.parquet")
PICTURE = "comparison.png"


@click.command(cls=Grouped, short_help="Compare several solvers on one or more data sets.")
@click.option(
    "--data",
    "data_names",
    type=_inputs.several,
    metavar="A,B,…",
    multiple=True,
    shell_complete=_complete.data,
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
    shell_complete=_complete.solvers,
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
@click.option(
    "--held-out/--no-held-out",
    "held_out",
    default=None,
    help="Solve again without a tenth of the LEDs and predict them (default: where there is no truth).",
)
@click.option(
    "--ring-correlation",
    is_flag=True,
    help="Solve twice more, from half of the LEDs each, for the resolution without a truth.",
)
@_inputs.solving_options
@_inputs.result_options
def compare(
    data_names: tuple[list[str], ...],
    solvers: str,
    seeds: tuple[int, ...] | None,
    seed: int,
    targets: dict[str, float],
    out: Path | None,
    force: bool,
    resume: bool,
    quiet: bool,
    verbose: bool,
    progress: str,
    as_json: bool,
    **choices: Any,
) -> int:
    """Run several solvers, each in its own process, and compare time, memory, storage and quality."""
    if resume and out is None:
        raise OptionError("--resume needs --out: the folder of the comparison to continue")
    from fpmtools.runs.folder import check_free, claim_numbered, name_for

    reading, choices["calibration"] = _inputs.take_reading(choices), _inputs.take_calibration(choices)
    names = [name for name in solvers.split(",") if name.strip()]
    _check_words(names, targets, choices)
    if out is not None:
        check_free(out, force or resume)
    from fpmtools import comparison

    comparison.check_solvers(names)
    places = [name for group in data_names for name in group]
    datasets = [_inputs.load(place, reading) for place in places]
    folder = out or claim_numbered(name_for("compare", places[0] if len(places) == 1 else f"{len(places)}-data-sets"))
    result = comparison.compare(
        datasets,
        names,
        seeds=(seed,) if seeds is None else seeds,
        targets=targets,
        out=folder,
        resume=resume,
        on_event=_Shown("none" if quiet else progress, verbose),
        command=["fpmtools", *click.get_current_context().obj],
        **choices,
    )
    from fpmtools import known
    from fpmtools.comparison.spec import slug
    from fpmtools.report import html_folder, html_page

    for dataset in datasets:
        known.save(dataset, folder / html_folder.TRUTH_FOLDER / f"{slug(dataset.name)}.safetensors")
    page = html_page.write(folder)
    pictures = _draw(page, datasets)
    if as_json:
        tables = [name for name in TABLES if (folder / name).is_file()]
        files = [*tables, *(picture.name for picture in pictures), page.name]
        print_json(
            {
                "data": result.data,
                "columns": {key: column.to_dict() for key, column in result.columns.items()},
                "rows": result.rows,
                "verdicts": [verdict.to_dict() for verdict in result.verdicts],
                "folder": str(folder),
                "files": files,
            }
        )
    else:
        _print(result, folder, pictures)
        echo(f"report   {page}")
    if result.interrupted:
        return EXIT_INTERRUPTED
    return 0 if result.complete else EXIT_PARTIAL


def _check_words(names: list[str], targets: dict[str, float], choices: dict[str, Any]) -> None:
    """Find mistakes in words before anything heavy is imported."""
    from fpmtools.runs.spec import Limits, RunSpec, ways

    same = (
        "calibration",
        "loss",
        "device",
        "dtype",
        "upsample",
        "critical_grid",
        "subpixel",
        "margin",
        "exact",
        "threads",
    )
    words = {name: choices[name] for name in same}
    for name in names:
        for way in ways(choices["calibrate"]):
            RunSpec("data", name, limits=Limits(choices["budget_s"], targets), calibrate=way, **words)  # type: ignore[arg-type]


class _Shown:
    """What the runs say, on stderr: one bar after the other, or JSON lines that name the run."""

    def __init__(self, style: str, verbose: bool) -> None:
        self.style, self.verbose = style, verbose
        self.bar = Progress("", style=style)
        self._told: set[str] = set()

    def __call__(self, title: str, event: Mapping[str, Any]) -> None:
        if event["event"] == "log":
            self._log(title, event)
            return
        if self.style == "json":
            print_event({"run": title, **event})
            return
        if event["event"] in ("line", "warning"):
            if event["text"].startswith("warning: ") or event["event"] == "warning":
                said = event["text"].removeprefix("warning: ")
                if said in self._told:  # of the data, and so by every run
                    return
                self._told.add(said)
            if not self.bar.label:
                self.bar = Progress(title, style=self.style)
        if event["event"] == "calibrating" and self.bar.label != title:
            self.bar.finish()
            self.bar = Progress(title, style=self.style)
        if event["event"] in ("start", "end"):
            self.bar.finish()
            phase = f", {event['phase']}" if "phase" in event else ""
            number = f"run {event['number']} of {event['count']}: " if "number" in event else ""
            self.bar = Progress(number + title + phase, style=self.style)
        self.bar.show(event)

    def _log(self, title: str, event: Mapping[str, Any]) -> None:
        if self.verbose and self.style == "json":
            print_event({"run": title, **event})
        elif self.verbose:
            self.bar.finish()
            echo(f"[{title}] {event['text']}", err=True)


def _print(result: Comparison, folder: Path, pictures: list[Path]) -> None:
    header, *rows = result.table()
    print_table(header, rows, right=header[2:])
    for row in result.rows:
        for why in (row["reason"], row["missing"] and f"not measured: {row['missing']}"):
            if why:
                echo(f"{result.title(row)}: {why}")
    if result.verdicts:
        echo("")
    for verdict in result.verdicts:
        where = f"{verdict.data}, " if len(result.data) > 1 else ""
        echo(f"best by {where}{result.columns[verdict.number].label}: {_say(verdict)}")
    echo(f"\ntable    {', '.join(str(folder / name) for name in TABLES if (folder / name).is_file())}")
    for picture in pictures:
        echo(f"picture  {picture}")


def _say(verdict: Verdict) -> str:
    if verdict.noise_floor is None:
        return f"no winner named, {verdict.reason} (--repeats 3 measures it)"
    numbers = f"difference {number(verdict.difference)}, noise floor {number(verdict.noise_floor)}"
    return f"{verdict.winner} ({numbers})" if verdict.winner else f"no winner named, {verdict.reason} ({numbers})"


def _draw(page: Path, datasets: list[Dataset]) -> list[Path]:
    """``comparison.png``, or one for each of several data sets."""
    from fpmtools.comparison.spec import slug
    from fpmtools.report import figures, html_folder, publication

    found, drawn = html_folder.read(page.parent), []
    for dataset in datasets:
        figure = publication.side_by_side(found, dataset.name)
        if figure is not None:
            name = PICTURE if len(datasets) == 1 else f"comparison-{slug(dataset.name)}.png"
            drawn.append(figures.save(figure, page.parent / name))
    return drawn
