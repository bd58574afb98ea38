"""The benchmark: several solvers on one or more data sets, each run in a process of its own.

Each data set is saved once in the comparison's folder; every run is a :class:`fpmtools.runs.spec.RunSpec` on that file
and has processes of its own, so that a crash, a memory leak or a changed global setting of one solver cannot reach the
numbers of another.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import signal
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpmtools import columns, storage, threads
from fpmtools.calibrate import NOMINAL, NONE, improve, resolve
from fpmtools.calibrate import warnings as said_of
from fpmtools.columns import Column
from fpmtools.comparison import evidence
from fpmtools.comparison.driving import Allowance, Driver, OnEvent
from fpmtools.comparison.pace import Pace
from fpmtools.comparison.rows import Verdict, row, verdicts
from fpmtools.comparison.spec import Spec, check_solvers, in_each_way, slug
from fpmtools.comparison.trials import Source, Trial, interleaved
from fpmtools.dataset import Dataset
from fpmtools.display import Shown, fitting, table
from fpmtools.errors import OptionError, Terminated, expect, printable
from fpmtools.interrupts import TERMINATING, handled
from fpmtools.processes import resident_bytes
from fpmtools.progress import bar, of_runs
from fpmtools.reconstruction import Reconstruction
from fpmtools.records import MetricRecord
from fpmtools.results import open_result
from fpmtools.runs import log
from fpmtools.runs.folder import FINISHED, claim, locked
from fpmtools.runs.spec import Limits, ways

if TYPE_CHECKING:
    import pandas

__all__ = ["Comparison", "Spec", "Verdict", "check_solvers", "compare"]

MOST_ROWS = 12  # of the table that a comparison shows itself as in a terminal
SOLVERS = ("inr", "ap", "adam")
DATA_FOLDER = "data"
SCHEMA = 1  # of results.json
HOPELESS = frozenset({"timed out", "out of memory"})  # another repeat would cost as much and end the same way
DEFAULT_TIMEOUT = (10.0, 600.0)  # times the budget, plus seconds for everything that is not solving
Data = Dataset | str | Path


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """What a comparison gave.

    ``rows`` holds one dict per solver, data set and seed: medians over the repeats of every number of ``columns`` (key
    → unit, better, summary), the spread of some, and where something went wrong a ``reason``. ``verdicts`` say which
    solver is best by what, where the difference is more than noise. ``runs`` are the complete records of all runs.
    ``reconstructions`` has the first result of each row that has one, read from its file when it is asked for, under
    the solver's label, followed by data set and seed where there are several (:meth:`title`). ``command`` are the
    words that make it again.
    """

    data: Sequence[Mapping[str, Any]]
    rows: list[dict[str, Any]]
    verdicts: list[Verdict]
    runs: list[dict[str, Any]]
    reconstructions: Mapping[str, Reconstruction]
    columns: Mapping[str, Column] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: Sequence[str] = ()
    drawn_by = "fpmtools.report.notebook:comparison"

    def heading(self) -> str:
        """How many solvers, and of what."""
        names = ", ".join(str(one["name"]) for one in self.data)
        return f"Comparison of {len({row['solver'] for row in self.rows})} solvers on {names}"

    def __repr__(self) -> str:
        heads, *rows = fitting(self.table())
        left = [f"and {len(rows) - MOST_ROWS} more"] if len(rows) > MOST_ROWS else []
        return "\n".join([printable(self.heading()), table([heads, *rows[:MOST_ROWS]]), *left])

    def table(self) -> list[list[str]]:
        """Heads, then a row per solver, data set and seed, as text: the main numbers that any row has."""
        shown = [c for c in self.columns.values() if c.main and any(row.get(c.key) is not None for row in self.rows)]
        rows = [[self.title(row), row["status"], *(c.text(row.get(c.key)) for c in shown)] for row in self.rows]
        return [["solver", "status", *(column.title for column in shown)], *rows]

    @property
    def complete(self) -> bool:
        """Whether every solver gave a result in every repeat."""
        return all(row["status"] in FINISHED for row in self.rows)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C, or another signal, ended it early."""
        return any("signal" in run for run in self.runs)

    def title(self, row: Mapping[str, Any]) -> str:
        """What the row is called in ``reconstructions``, and in what is printed."""
        return next(
            str(run["title"])
            for run in self.runs
            if (run["label"], run["data"]["name"], run["seed"]) == (row["solver"], row["data"], row["seed"])
        )

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame."""
        import pandas

        return pandas.DataFrame(self.rows, columns=list(self.rows[0]))

    def save(self, folder: str | Path) -> list[Path]:
        """Write the rows as ``results.csv`` (and ``.parquet`` where pyarrow is installed), all as ``results.json``."""
        folder = Path(folder)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        document = {
            "schema": SCHEMA,
            "command": list(self.command),
            "settings": self.settings,
            "data": self.data,
            "columns": {key: column.to_dict() for key, column in self.columns.items()},
            "rows": self.rows,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "runs": self.runs,
        }
        written = [
            storage.write_bytes(folder / "results.csv", text.getvalue().encode()),
            storage.write_json(folder / "results.json", document),
        ]
        with contextlib.suppress(ImportError):
            table = self.to_pandas().to_parquet(None, index=False)
            written.append(storage.write_bytes(folder / "results.parquet", table))
        return written


def compare(
    data: Data | Sequence[Data] = "sim:tilted",
    solvers: Iterable[str] = SOLVERS,
    *,
    z_um: Sequence[float] | float | None = None,
    seeds: Sequence[int] = (0,),
    repeats: int = 1,
    budget_s: float | None = None,
    targets: Mapping[str, float] | None = None,
    timeout_s: float | None = None,
    memory_bytes: float | None = None,
    track: bool = True,
    held_out: bool | None = None,
    ring_correlation: bool = False,
    device: str = "auto",
    dtype: str = "complex64",
    threads: int | None = None,
    upsample: float | None = None,
    critical_grid: bool | None = None,
    subpixel: bool | None = None,
    margin: int | str | None = None,
    exact: bool = False,
    calibration: str = "auto",
    calibrate: str = "auto",
    loss: str | None = None,
    warm_up: bool = True,
    out: str | Path | None = None,
    pictures: bool = True,
    resume: bool = False,
    on_event: OnEvent | None = None,
    progress: bool = True,
    command: Sequence[str] = (),
) -> Comparison:
    """Run several solvers and compare time, memory, storage and quality.

    When a solve has ended, its process goes on to compute every installed metric and to render its pictures. Ctrl-C
    lets the running solver keep what it has and skips the others; SIGTERM and SIGHUP let it write a checkpoint, keep
    what there is and then end this process as they do.

    Parameters
    ----------
    data
        A data set, anything that ``fpmtools.load`` takes, or several of them, with different names.
    solvers
        Each ``"name"`` or ``"name:key=value:key=value"``, for example ``"inr:preset=paper"``.
    z_um
        Planes to reconstruct at, µm; default: where the sample is known to be (``dataset.planes_um``).
    seeds, repeats
        Every solver runs on every data set with every seed, this often; repeats are interleaved.
    budget_s
        Seconds of solving that each run has: comparison at equal time.
    targets
        ``{"psnr": 25}``: a run ends when all are reached; comparison of the time to a quality. Needs a truth.
    timeout_s, memory_bytes
        A run that takes longer, or that has more in memory, is killed and becomes a row that says so. Default: no
        limits, but with a budget ten times as long and ten minutes.
    track
        Measure quality on the way where there is a truth; the clock stands still meanwhile.
    held_out
        Solve again without a tenth of the LEDs, after the clock has stopped, and measure how well their images are
        predicted. Default: where there is no truth.
    ring_correlation
        Solve twice more, from half of the LEDs each, for the Fourier ring correlation of the two. Where there is a
        truth the correlation with it is measured in any case.
    threads
        CPU threads of each run.
    device, dtype, upsample, critical_grid, subpixel, margin, loss, exact
        As for ``fpmtools.reconstruct``.
    calibration
        "auto" (what the images say of the instrument), "nominal" (what the data say), or a file.
    calibrate
        What is fitted of the instrument, once for all solvers: "auto" for what left-out images confirm, "none", or
        names with commas between them (:class:`fpmtools.runs.spec.RunSpec`). With "none,auto" every solver runs twice,
        with the instrument as it is given and as it is found.
    warm_up
        Let each run take a few steps that are thrown away before its clock starts: what is loaded and planned only
        once is no part of any solver's time.
    out
        Folder to keep everything in: tables, the data sets, and each run's own folder. Without one it is a temporary
        folder that goes with the comparison.
    pictures
        Render those of each run, where there is ``out``; a report needs them.
    resume
        Keep the results of runs with the same measurements and options that are in ``out``, go on with those that were
        stopped, and run the others.
    on_event
        Called as ``on_event(title, event)`` for what a run says: dicts with ``event``, which is "log" (text),
        "calibrating" (step, total), "start", "progress", "looking", "quality", "line" (other output), "error",
        "measuring" or "end". Events of a solve have its ``number`` and the ``count`` of all, progress also
        ``all_remaining_s``. What comes after the solve itself has a ``phase``: a solve on part of the LEDs, or
        "measuring".
    progress
        Whether there is a bar, in a terminal and in a notebook, where ``on_event`` is not given.
    command
        What makes this comparison again, for the record.

    Returns
    -------
    Comparison
        A row per solver, data set and seed; a solver that fails is a row with its reason.

    Raises
    ------
    OptionError
        An unknown solver, option or target, a value of the wrong kind or out of range, something named twice, a target
        without a truth.
    DataError
        Data that cannot be read or used.

    Examples
    --------
    >>> data = fpmtools.simulate("thin", image_shape=(16, 24))
    >>> found = fpmtools.compare(data, ["ap:sweeps=2"], calibrate="none", track=False)
    >>> found.rows[0]["solver"], found.rows[0]["status"], found.complete
    ('ap:sweeps=2', 'done', True)
    >>> found.reconstructions["ap:sweeps=2"].field().shape
    (32, 48)
    """
    from fpmtools.runs.tracking import check_targets

    words = "a list of names with options, such as ['ap', 'inr:preset=paper']"
    expect(solvers, Iterable if not isinstance(solvers, str) else (), "compare: solvers", words)
    expect(repeats, int, "compare: repeats", "a whole number")
    expect(seeds, Iterable, "compare: seeds", "whole numbers, such as (0, 1, 2)")
    expect(targets or {}, Mapping, "compare: targets", "names with numbers, such as {'psnr': 25}")
    expect(calibrate, str, "compare: calibrate", "auto, none, or names with commas between them")
    how = ways(calibrate)
    contenders = in_each_way(check_solvers(solvers), how)
    if repeats < 1:
        raise OptionError(f"repeats must be at least 1, got {repeats}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise OptionError("give at least one seed, and each only once")
    if resume and out is None:
        raise OptionError("resume needs out: the folder of the comparison to continue")
    if memory_bytes is not None and not resident_bytes(os.getpid()):
        raise OptionError("a memory limit needs a system that tells what a process has in memory (Linux)")
    with bar("comparison", progress and on_event is None) as show:
        tell = on_event or of_runs(show)
        given = _load(data)
        for dataset in given:
            check_targets(targets or {}, dataset)
        datasets = [(way, _calibrated(dataset, calibration, way, z_um, tell)) for dataset in given for way in how]
        if timeout_s is None and budget_s is not None:
            timeout_s = DEFAULT_TIMEOUT[0] * budget_s + DEFAULT_TIMEOUT[1]
        for _, dataset in datasets:
            for warning in [*dataset.check(upsample=upsample), *said_of(dataset.calibration)]:
                tell(dataset.name, {"event": "line", "text": f"warning: {warning}"})
        known, trouble = evidence.installed_metrics()
        if trouble:
            tell("compare", {"event": "line", "text": f"plugins whose metrics may be missing: {trouble}"})
        common = {
            "limits": Limits(budget_s, dict(targets or {})),
            "device": device,
            "dtype": dtype,
            "threads": threads,
            "calibration": NOMINAL,  # each data set has the one that was found, and so have its parts
            "calibrate": NONE,
            "loss": loss,
            "upsample": upsample,
            "critical_grid": critical_grid,
            "subpixel": subpixel,
            "margin": margin,
            "exact": exact,
        }
        with _ends_cleanly(), _folder(out) as root, locked(root):
            sources = [
                _save(dataset, root / DATA_FOLDER, z_um, way if way != how[-1] else "") for way, dataset in datasets
            ]
            sources = [replace(source, calibrate=way) for source, (way, _) in zip(sources, datasets, strict=True)]
            wanted = {
                source: _wanted(dataset, source, known, held_out, ring_correlation, pictures and out is not None)
                for source, (_, dataset) in zip(sources, datasets, strict=True)
            }
            outputs = {source: replace(found.outputs, track=track, warm_up=warm_up) for source, found in wanted.items()}
            trials = interleaved(contenders, sources, seeds, repeats, outputs, **common)
            parts = [trial.title for trial in trials for _ in wanted[trial.source].parts]
            pace = Pace([*(trial.title for trial in trials), *parts])
            driver = Driver(root, Allowance(timeout_s, memory_bytes), tell, resume, pace=pace)
            records = evidence.gather(trials, _run_all(trials, driver), wanted, driver)
            titles = list(dict.fromkeys(trial.title for trial in trials))
            about = columns.of(known)
            comparison = Comparison(
                [
                    {"name": s.name, "digest": s.digest, "optics": d.optics.to_dict(), "z_um": list(s.z_um)}
                    for s, (way, d) in zip(sources, datasets, strict=True)
                    if way == how[-1]
                ],
                [row([record for record in records if record["title"] == title], about.values()) for title in titles],
                verdicts(records, [about[key] for key in _deciding(budget_s, targets)]),
                records,
                _Results(records, root, kept=out is not None),
                about,
                {
                    "repeats": repeats,
                    "seeds": list(seeds),
                    "budget_s": budget_s,
                    "targets": dict(targets or {}),
                    "timeout_s": timeout_s,
                    "memory_bytes": memory_bytes,
                },
                command,
            )
            if out is not None:
                comparison.save(root)
            for name in {record.get("signal", "SIGINT") for record in records} - {"SIGINT"}:
                raise Terminated("", signal.Signals[name])
        return comparison


@contextlib.contextmanager
def _ends_cleanly() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind what is under way, and then end this process as they would have done at once."""

    def leave(number: int, usual: Any) -> None:
        raise Terminated(f"ended by {signal.Signals(number).name}", number)

    try:
        with handled(TERMINATING, leave):
            yield
    except Terminated as error:
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(error.exit_code - 128)
        raise


@contextlib.contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """Where everything is kept; absolute, for a solver may change the folder that it works in."""
    if out is not None:
        yield claim(out, force=True).absolute()
        return
    root = Path(tempfile.mkdtemp(prefix="fpmtools-")).absolute()
    try:
        yield root
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise


def _run_all(trials: Sequence[Trial], driver: Driver) -> list[dict[str, Any]]:
    """Run all trials; the record of each: what its ``run.json`` says, or for a failure ``status`` and ``reason``."""
    records: list[dict[str, Any]] = []
    hopeless: dict[str, str] = {}
    interrupted = False
    for trial in trials:
        reason = "interrupted before its turn" if interrupted else hopeless.get(trial.title) or trial.unable
        if reason:
            driver.pace.pass_over()
        found: dict[str, Any] = {"status": "skipped", "reason": reason} if reason else driver.drive(trial)
        interrupted = interrupted or "signal" in found
        if found["status"] in HOPELESS:
            hopeless[trial.title] = f"an earlier repeat ended as {found['status']}"
        data: dict[str, Any] = {**found.get("data", {}), **trial.identity["data"]}
        records.append({**found, **trial.identity, "data": data})
    return records


class _Results(Mapping[str, Reconstruction]):
    """The first result of each title, opened when it is asked for: that may run a plugin's code."""

    def __init__(self, records: Sequence[Mapping[str, Any]], root: Path, *, kept: bool) -> None:
        good = [record for record in reversed(records) if "times" in record and record["status"] != "failed"]
        places = {record["title"]: root / record["folder"] for record in good}
        self._places = {record["title"]: places[record["title"]] for record in records if record["title"] in places}
        if not kept:
            weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)

    def __getitem__(self, title: str) -> Reconstruction:
        return open_result(self._places[title])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _calibrated(
    dataset: Dataset, calibration: str, groups: str, z_um: Sequence[float] | float | None, tell: OnEvent
) -> Dataset:
    """With the instrument that all solvers are given."""
    planes = None if z_um is None else [z_um] if isinstance(z_um, float | int) else list(z_um)
    with threads.limited(1):
        found = improve(
            dataset,
            resolve(dataset, calibration),
            groups,
            z_um=planes,
            on_step=lambda step, steps: tell(dataset.name, {"event": "calibrating", "step": step, "total": steps}),
        )
    for text in log.of_calibration(found):
        tell(dataset.name, {"event": log.LOG, "text": log.line_of(text)})
    return replace(dataset, calibration=found)


def _load(data: Data | Sequence[Data]) -> list[Dataset]:
    from fpmtools import formats

    several = [data] if isinstance(data, Dataset | str | Path) or not isinstance(data, Iterable) else list(data)
    for one in several:
        expect(one, (Dataset, str, Path), "compare: data", "a Dataset, what fpmtools.load takes, or a list of them")
    datasets = [one if isinstance(one, Dataset) else formats.load(one) for one in several]
    if not datasets:
        raise OptionError("name at least one data set")
    seen: set[str] = set()
    for name in (slug(dataset.name) for dataset in datasets):
        if name in seen:
            raise OptionError(f"two data sets are called {name!r}; give them different names")
        seen.add(name)
    return datasets


def _save(dataset: Dataset, folder: Path, z_um: Sequence[float] | float | None, apart: str) -> Source:
    """As a file, with ``apart`` in its name."""
    from fpmtools.formats import native

    planes = dataset.planes_um if z_um is None else tuple([z_um] if isinstance(z_um, int | float) else z_um)
    name = f"{slug(dataset.name)}+{apart}" if apart else slug(dataset.name)
    file = native.save(dataset, folder / f"{name}.safetensors")
    truth = dataset.truth.digest if dataset.truth is not None else None
    return Source(dataset.name, dataset.digest, file, planes, truth)


def _wanted(
    dataset: Dataset,
    source: Source,
    known: Sequence[MetricRecord],
    held_out: bool | None,
    ring_correlation: bool,
    pictures: bool,
) -> evidence.Wanted:
    from fpmtools.formats import native

    found, parts = evidence.wanted(
        dataset, source, known, held_out=held_out, ring_correlation=ring_correlation, pictures=pictures
    )
    for part, selected in parts.items():
        native.save(selected, found.parts[part].file)
    return found


def _deciding(budget_s: float | None, targets: Mapping[str, float] | None) -> list[str]:
    """The numbers that decide, by what the comparison holds equal: the time, the quality, or neither."""
    if targets:
        return ["seconds_to_target"]
    quality = ["psnr", "ssim", "held_out"]
    return quality if budget_s is not None else ["seconds", *quality]
