"""``fpmtools run``: one data set, one solver, a folder with everything that came out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli import _complete, _inputs
from fpmtools.cli._groups import Grouped
from fpmtools.cli._output import echo, number, print_event, print_json
from fpmtools.cli._progress import Progress
from fpmtools.columns import size
from fpmtools.errors import EXIT_INTERRUPTED, EXIT_PARTIAL, FpmError, OptionError, SolverError
from fpmtools.processes import private_stdout

if TYPE_CHECKING:
    from fpmtools.runs.folder import RunFolder
    from fpmtools.runs.spec import RunSpec

# Where a parameter's value is in a RunSpec. A budget may be another one when a run is resumed.
SPELLED = {
    "data": "data.source",
    **{name: f"data.{name}" for name in _inputs.READING},
    "name": "solver",
    "options": "options",
    "preset": "preset",
    "z_um": "z_um",
    "loss": "loss",
    "seed": "seed",
    "calibration": "calibration",
    "calibrate": "calibrate",
    "trust_leds": "calibration",
    "device": "device",
    "dtype": "dtype",
    "upsample": "upsample",
    "critical_grid": "critical_grid",
    "subpixel": "subpixel",
    "margin": "margin",
    "exact": "exact",
    "threads": "threads",
    "targets": "limits.targets",
    "tiles": "tiles.size",
    "channels": "channels",
    "overlap": "tiles.overlap",
    "budget_s": "limits.budget_s",
    "track": "outputs.track",
}


@click.command(cls=Grouped, short_help="Reconstruct a data set with one solver.")
@_inputs.data_options
@click.option(
    "--solver",
    "name",
    metavar="NAME",
    default="inr",
    show_default=True,
    shell_complete=_complete.solver,
    is_eager=True,  # before its options, for these to be completed
    help="Solver ('fpmtools solvers' lists them).",
)
@click.option(
    "-o",
    "--option",
    "options",
    type=_inputs.key_value,
    metavar="KEY=VALUE",
    multiple=True,
    shell_complete=_complete.option,
    help="Solver option ('fpmtools solvers NAME').",
)
@click.option("--preset", metavar="NAME", shell_complete=_complete.preset, help="Preset of the solver, such as paper.")
@_inputs.solving_options
@click.option(
    "--channels",
    type=_inputs.channels,
    metavar="NAME[:DATA][=µM],…",
    help="Solve several colours, and show them as one: r=0.632,g=0.53,b=0.47, or of a data set each.",
)
@click.option(
    "--tiles",
    callback=_inputs.tiles,
    metavar="N|auto",
    help="Solve in tiles of N × N camera pixels, and join them (auto: as the optics ask for).",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=1),
    metavar="N",
    help="Camera pixels that neighbouring tiles share (default: as the optics ask for).",
)
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Processes that solve tiles (default: one per core)."
)
@click.option(
    "--scheduler",
    metavar="local|tcp://…|FILE",
    help="Have tiles solved by dask: by --workers processes here, or by a scheduler that runs (docs/slides.md).",
)
@click.option("--preview", is_flag=True, help="Write preview.png into the folder every few seconds.")
@_inputs.result_options
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="DIR",
    help="Go on with the run in DIR, which was stopped; nothing else need be given.",
)
@click.option(
    "--from", "from_file", type=click.Path(path_type=Path), metavar="FILE", help="Repeat the run of this run.json."
)
def run(out: Path | None, force: bool, resume: str | None, from_file: Path | None, **choices: Any) -> int:
    """Reconstruct one data set with one solver, in one piece or in tiles."""
    quiet, verbose, progress, as_json = (choices.pop(name) for name in ("quiet", "verbose", "progress", "as_json"))
    preview, tiled = choices.pop("preview"), {name: choices.pop(name) for name in ("workers", "scheduler")}
    alone = next((_inputs.flag(name) for name, value in tiled.items() if value), "")
    if tiled["workers"] and tiled["scheduler"] not in (None, "local"):
        raise OptionError("--workers: a scheduler that runs has workers of its own; leave it out")
    given = [name for name in _inputs.given() if name in SPELLED]
    if resume is not None and from_file is not None:
        raise OptionError("--resume goes on with a run, --from repeats one: give one of them")
    if from_file is not None and given:
        raise OptionError(f"{_inputs.flag(given[0])}: --from repeats a run as it was; leave it out")
    if resume == "" and out is None:
        raise OptionError("--resume needs the folder of the run to continue: --resume DIR")
    with _told(progress):
        place = (
            _new(choices, from_file, out, force, alone)
            if resume is None
            else _again(Path(resume or out or ""), choices, given)
        )
        with place:
            _need_tiles(place.spec, alone)
            shown = Progress(place.spec.solver, style="none" if quiet else progress, verbose=verbose)
            how = {} if place.spec.tiles is None else tiled
            document, heard = _run(place, resume is not None, shown, preview=preview, **how)
    if as_json:
        print_json({**document, "folder": str(place.path)})
    elif place.spec.channels and document["status"] == "interrupted":
        begun = [name for name in document["channels"] if (place.path / "channels" / name).is_dir()]
        echo(f"interrupted in channel {begun[-1]}; fpmtools run --resume {place.path} goes on")
    elif how and document["status"] == "interrupted":
        done, count = len(document["tiles"].get("state", {})), document["tiles"]["count"]
        echo(f"interrupted: {done} of {count} tiles are done; fpmtools run --resume {place.path} goes on")
    else:
        _summarise(document, place.path)
        if not heard:
            echo("finished already; nothing is left to do")
    return {"interrupted": EXIT_INTERRUPTED, "partial": EXIT_PARTIAL}.get(document["status"], 0)


def _need_tiles(spec: RunSpec, word: str) -> None:
    if word and spec.tiles is None:
        raise OptionError(f"{word} is for a run in tiles: give --tiles too")


def _new(choices: dict[str, Any], from_file: Path | None, out: Path | None, force: bool, alone: str) -> RunFolder:
    """The folder of a new run; mistakes in names are found before anything heavy is imported."""
    from fpmtools import registry
    from fpmtools.runs.folder import RunFolder, name_for
    from fpmtools.runs.spec import RunSpec

    spec = _spec(choices) if from_file is None else RunSpec.read(from_file)
    _need_tiles(spec, alone)
    registry.find(spec.solver)
    command = ["fpmtools", *click.get_current_context().obj]
    if out is None:
        return RunFolder.create_numbered(name_for(spec.solver, spec.data.source), spec, command=command)
    return RunFolder.create(out, spec, force=force, command=command)


def _again(folder: Path, choices: dict[str, Any], given: list[str]) -> RunFolder:
    """The folder of a run to go on with; of what is asked for now only the budget may be another."""
    from fpmtools.runs.folder import RunFolder

    asked = _spec(choices) if given else None
    place = RunFolder.reopen(folder)
    try:
        if asked is not None:
            _check_same(place, asked, given)
        if "budget_s" in given:
            place.give_budget(choices["budget_s"])
    except BaseException:
        place.close()
        raise
    return place


def _spec(choices: dict[str, Any]) -> RunSpec:
    """What the words ask for; a path is taken from where the user is."""
    from fpmtools.runs.spec import AUTO, DataSpec, Limits, Outputs, RunSpec, TilesSpec

    values = dict(choices)
    channels = values.pop("channels") or ()
    if channels and values["channel"] is not None:
        raise OptionError("--channel takes one colour of the images, --channels several: give one of them")
    if channels and all(one.source for one in channels):
        if "data" in _inputs.given():
            raise OptionError("--data: each of the --channels names data of its own; leave one of them out")
        values["data"] = channels[0].source
    size, overlap = values.pop("tiles"), values.pop("overlap")
    if overlap is not None and size is None:
        raise OptionError("--overlap is of tiles: give --tiles too")
    tiles = None if size is None else TilesSpec(None if size == AUTO else size, overlap)
    data = DataSpec(_inputs.absolute(values.pop("data")), **_inputs.take_reading(values))
    limits = Limits(values.pop("budget_s"), values.pop("targets"))
    return RunSpec(
        data,
        values.pop("name"),
        dict(values.pop("options")),
        calibration=_inputs.take_calibration(values),
        limits=limits,
        outputs=Outputs(track=values.pop("track")),
        tiles=tiles,
        channels=channels,
        **values,
    )


def _check_same(place: RunFolder, asked: RunSpec, given: list[str]) -> None:
    """Raise :class:`OptionError` when a word says something else than what the run was started with."""
    differing = asked.differences(place.spec)
    for name in given:
        where = SPELLED[name]
        if where in differing and where != "limits.budget_s":
            shown = _shown(place.spec, where) or "without it"
            raise OptionError(
                f"{_inputs.flag(name)}: the run in {place.path} was started with {shown}, not {_shown(asked, where)}; "
                "leave it out to go on, or choose another folder"
            )


def _shown(spec: RunSpec, where: str) -> str:
    from fpmtools.runs.spec import value_of

    value = value_of(spec, where)
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return "" if value is None else str(value)


def _run(place: RunFolder, resumed: bool, shown: Progress, **how: Any) -> tuple[dict[str, Any], bool]:
    """What ``run.json`` says in the end, and whether there was anything left to do."""
    from fpmtools.runs import running

    heard = False

    def on_event(event: dict[str, Any]) -> None:
        nonlocal heard
        heard = heard or event["event"] not in ("warning", "log")
        if event["event"] == "warning" and not shown.verbose:  # else it stands in the log's lines
            echo(f"warning: {event['text']}", err=True)
        else:
            shown.show(event)

    # What a plugin prints must not mix with the results.
    with private_stdout():
        try:
            go = running.carry_on if resumed else running.start
            document = go(place, on_event=on_event, **how)
        finally:
            shown.finish()
    return document, heard


@contextlib.contextmanager
def _told(progress: str) -> Iterator[None]:
    """Who reads JSON lines is told of an error in one of them as well."""
    try:
        yield
    except FpmError as error:
        if progress == "json":
            status = error.status if isinstance(error, SolverError) else "failed"
            print_event({"event": "error", "status": status, "message": " ".join(str(error).split())})
        raise


def _summarise(document: dict[str, Any], folder: Path) -> None:
    from fpmtools import columns, registry

    times, found, status = document["times"], document["metrics"], document["status"]
    words = {"stopped": "stopped by the budget", "reached": "target reached", "partial": "done, with holes,"}
    echo(
        f"{document['solver']} on {document['data']['name']}: {words.get(status, status)} after {document['steps']} of "
        f"{document['total_steps']} steps, {times['solve_s']:.1f} s (set-up {times['setup_s']:.1f} s), "
        f"{document['peak_memory_mb']:.0f} MB"
    )
    for name, about in document.get("channels", {}).items():
        (y, x), z_um = about["shift_px"], ", ".join(f"{z:.3g}" for z in about["z_um"][:3])
        moved = "" if name == document["reference"] else f", moved by {x:.2f}, {y:.2f} pixels (x, y)"
        moved += f", {1 + about['scale']:.4f} × as large" if about["scale"] else ""
        echo(f"{name} ({1e3 * about['wavelength_um']:.0f} nm): z = {z_um} µm{moved}")
    if tiles := document.get("tiles"):
        side, missing = " × ".join(map(str, tiles["size"])), sum("reason" in about for about in tiles["state"].values())
        joined = f"{tiles['count']} tiles of {side} camera pixels, {tiles['overlap']} or more shared by neighbours"
        echo(f"{joined}{f'; {missing} missing' if missing else ''}")
    shape = " × ".join(str(n) for n in document["grid"]["output_shape"])
    echo(
        f"{shape} pixels at {len(document['z_um'])} z; stored in {size(document['stored_bytes'])}, "
        f"{document['dense_ratio']:.3g} times less than dense planes"
    )
    if None not in map(found.get, ("psnr", "ssim", "rmse", "relative_l2", "phase_rmse_rad")):
        echo(
            f"against the truth: PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}, RMSE {found['rmse']:.4g}, "
            f"relative L2 {found['relative_l2']:.4g}, phase RMSE {found['phase_rmse_rad']:.3g} rad"
        )
    if "target" in document and document["seconds_to_target"] is None:
        echo(f"not reached: {', '.join(f'{name} {least:g}' for name, least in document['target'].items())}")
    known = columns.of(supplied.record for supplied in registry.built_in_metrics())
    for key, remark in (("chi2", " (1: all but noise is explained)"), ("residual", "")):
        names = {"all": key, "bright": f"{key}_bright", "dark": f"{key}_dark"}
        parts = (f"{lights} {number(found.get(name))}" for lights, name in names.items())
        if found.get(key) is not None:
            echo(f"{known[key].label}{remark}: {', '.join(parts)}")
    if bad := document.get("fit", {}).get("bad"):
        echo(f"warning: {bad}", err=True)
    for name, reason in document["missing"].items():
        echo(f"not measured: {name}: {reason}")
    echo(f"{folder}: {', '.join(document['files'])}")
