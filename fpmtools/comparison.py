"""The benchmark: several solvers on one data set, each run in a process of its own.

The data set is saved once; every run is ``python -m fpmtools run`` on that file, so that a crash, a memory leak or a
changed global setting of one solver cannot reach the numbers of another. Repeats are interleaved (A B A B), so that a
machine that slows down does not slow down only the last solver.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpmtools import storage
from fpmtools.dataset import Dataset
from fpmtools.errors import EXIT_INTERRUPTED, OptionError, SolverError
from fpmtools.reconstruction import Reconstruction

if TYPE_CHECKING:
    import pandas

SOLVERS = ("inr", "ap", "adam")
RUN_FILE = "run.json"
OnEvent = Callable[[str, str], None]

# Row key → where run.json keeps the number. A row holds the median over the repeats.
MEASURED = {
    "seconds": ("times", "solve_s"),
    "setup_seconds": ("times", "setup_s"),
    "peak_memory_mb": ("peak_memory_mb",),
    "stored_bytes": ("stored_bytes",),
    "dense_ratio": ("dense_ratio",),
    "psnr": ("metrics", "psnr"),
    "ssim": ("metrics", "ssim"),
    "rmse": ("metrics", "rmse"),
    "relative_l2": ("metrics", "relative_l2"),
    "phase_rmse_rad": ("metrics", "phase_rmse_rad"),
    "residual": ("metrics", "residual", "all"),
    "residual_bright": ("metrics", "residual", "bright"),
    "residual_dark": ("metrics", "residual", "dark"),
}
WITH_SPREAD = ("seconds", "peak_memory_mb", "psnr")
COLUMNS = (
    "solver",
    "status",
    "reason",
    "repeats",
    *MEASURED,
    *(f"{name}_{end}" for name in WITH_SPREAD for end in ("min", "max")),
)


@dataclass(frozen=True)
class Spec:
    """A solver with options, written ``name`` or ``name:key=value:key=value``."""

    label: str
    solver: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read ``inr:preset=paper:epochs=5``; raises :class:`OptionError` when it is not of this form."""
        solver, *parts = (part.strip() for part in text.split(":"))
        pairs = [tuple(part.partition("=")[::2]) for part in parts]
        if "=" in solver:
            raise OptionError(
                f"{text!r} names no solver; options follow it after colons, as in inr:preset=paper:epochs=5"
            )
        if not solver or not all(key and "=" in part for part, (key, _) in zip(parts, pairs, strict=True)):
            raise OptionError(f"{text!r} is not NAME or NAME:key=value:key=value")
        return cls(text.strip(), solver, tuple((key, value) for key, value in pairs))

    @property
    def folder(self) -> str:
        """The label as a file name."""
        return re.sub(r"[^A-Za-z0-9._=-]+", "_", self.label)


@dataclass(frozen=True)
class Comparison:
    """What a comparison gave.

    ``rows`` holds one dict per solver with the keys :data:`COLUMNS`: medians over the repeats, the spread of times,
    memory and PSNR, and where a solver did not finish a ``reason``. ``runs`` are the complete records of all runs
    (``run.json``), ``reconstructions`` the first result of each solver that has one, ``command`` the words that make
    it again.
    """

    data: Mapping[str, Any]
    rows: list[dict[str, Any]]
    runs: list[dict[str, Any]] = field(repr=False)
    reconstructions: dict[str, Reconstruction] = field(repr=False)
    command: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether every solver gave a result in every repeat."""
        return all(row["status"] in {"done", "stopped"} for row in self.rows)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it early."""
        return any(row["status"] in {"interrupted", "not run"} for row in self.rows)

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame."""
        import pandas

        return pandas.DataFrame(self.rows, columns=list(COLUMNS))

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``results.csv`` (the rows) and ``results.json`` (rows, data set, and every run's record)."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        document = {"command": list(self.command), "data": self.data, "rows": self.rows, "runs": self.runs}
        return [
            storage.write_bytes(Path(folder) / "results.csv", text.getvalue().encode()),
            storage.write_json(Path(folder) / "results.json", document),
        ]


def compare(
    data: Dataset | str | Path = "sim:tilted",
    solvers: Iterable[str] = SOLVERS,
    *,
    z_um: Sequence[float] | float | None = None,
    repeats: int = 1,
    device: str = "auto",
    dtype: str = "complex64",
    threads: int | None = None,
    seed: int = 0,
    budget_s: float | None = None,
    upsample: float | None = None,
    critical_grid: bool | None = None,
    subpixel: bool | None = None,
    out: str | Path | None = None,
    on_event: OnEvent | None = None,
    command: Sequence[str] = (),
) -> Comparison:
    """Run several solvers on one data set and compare time, memory, storage and quality.

    Parameters
    ----------
    data
        A data set, or anything that ``fpmtools.load`` takes.
    solvers
        Each ``"name"`` or ``"name:key=value:key=value"``, for example ``"inr:preset=paper"``.
    z_um
        Planes to reconstruct at, µm; default: where the sample is known to be (``dataset.planes_um``).
    repeats
        Runs of each solver, interleaved; the rows hold medians.
    threads
        CPU threads of each run.
    out
        Folder to keep everything in: ``results.csv``, ``results.json`` and each run's own folder.
    on_event
        Called as ``on_event(solver, line)`` for each line of progress.
    command
        What makes this comparison again, for the record.

    Other arguments are those of ``fpmtools.reconstruct``. Ctrl-C lets the running solver keep what it has and skips
    the others.

    Raises
    ------
    OptionError
        Unknown solver or option, a value out of range, or a solver named twice. A solver that fails is a row instead.
    """
    specs = check_solvers(solvers)
    if repeats < 1:
        raise OptionError(f"repeats must be at least 1, got {repeats}")
    if not isinstance(data, Dataset):
        from fpmtools import formats

        data = formats.load(data)
    planes = data.planes_um if z_um is None else tuple([z_um] if isinstance(z_um, int | float) else z_um)
    common = [f"--z={','.join(repr(float(z)) for z in planes)}", "--device", device, "--dtype", dtype]
    common += ["--seed", str(seed), "--force", "--json"]
    for flag, value in {"--threads": threads, "--budget": budget_s, "--upsample": upsample}.items():
        common += [] if value is None else [flag, str(value)]
    common += ["--no-critical-grid"] if critical_grid is False else []
    common += ["--pixel-rounding"] if subpixel is False else []
    with tempfile.TemporaryDirectory(prefix="fpmtools-") as scratch:
        source = _save(data, Path(scratch))
        records = _run_all(specs, repeats, source, Path(out or scratch), common, on_event or (lambda label, line: None))
    reconstructions = {r["label"]: r.pop("reconstruction") for r in reversed(records) if "reconstruction" in r}
    rows = [_row(spec.label, [r for r in records if r["label"] == spec.label]) for spec in specs]
    about = {"name": data.name, "digest": data.digest, "optics": data.optics.to_dict(), "z_um": list(planes)}
    ordered = {spec.label: reconstructions[spec.label] for spec in specs if spec.label in reconstructions}
    comparison = Comparison(about, rows, records, ordered, command)
    if out is not None:
        comparison.save(out)
    return comparison


def check_solvers(solvers: Iterable[str]) -> list[Spec]:
    """Parse the solvers and check their names and options; a plugin that is broken is left for its run to report."""
    from fpmtools import registry
    from fpmtools.solver import make_options

    specs = [Spec.parse(text) for text in solvers]
    if not specs:
        raise OptionError("name at least one solver to compare")
    seen: set[str] = set()
    for spec in specs:
        if spec.folder in seen:
            raise OptionError(f"solver {spec.label!r} is named twice; for several runs of each use repeats")
        seen.add(spec.folder)
        try:
            make_options(registry.solver_class(spec.solver), dict(spec.options))
        except SolverError:
            continue
    return specs


def _save(data: Dataset, folder: Path) -> Path:
    from fpmtools.formats import native

    return native.save(data, folder / "data.safetensors")


def _run_all(
    specs: Sequence[Spec], repeats: int, source: Path, folder: Path, common: Sequence[str], on_event: OnEvent
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    interrupted = False
    for repeat in range(repeats):
        for spec in specs:
            identity = {"label": spec.label, "repeat": repeat}
            if interrupted:
                records.append({**identity, "status": "not run", "reason": "interrupted before its turn"})
                continue
            place = folder / (spec.folder if repeats == 1 else f"{spec.folder}-{repeat + 1}")
            command = [sys.executable, "-m", "fpmtools", "run", "--data", str(source), "--solver", spec.solver]
            for key, value in spec.options:
                command += ["-o", f"{key}={value}"]
            (place / RUN_FILE).unlink(missing_ok=True)  # an earlier comparison's must not pass for this one's
            on_line = functools.partial(on_event, spec.label)
            code, said = _execute([*command, "--out", str(place), *common], on_line)
            records.append({**identity, **_record(place, code, said)})
            interrupted = code == EXIT_INTERRUPTED
    return records


def _execute(command: Sequence[str], on_line: Callable[[str], None]) -> tuple[int, str]:
    """Run to the end; exit code and the last line on stderr. Ctrl-C is passed on, once each time, and waited for."""
    last = ""
    # In a session of its own the terminal's Ctrl-C does not reach it directly; it would arrive twice otherwise.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        try:
            while process.poll() is None:
                try:
                    for line in process.stderr:
                        last = line.strip() or last
                        on_line(line.rstrip())
                    process.wait()
                except KeyboardInterrupt:
                    process.send_signal(signal.SIGINT)
        finally:
            process.kill()
    return process.returncode, last


def _record(folder: Path, code: int, said: str) -> dict[str, Any]:
    """One run's record: its run.json and reconstruction, or why there are none."""
    if code in (0, EXIT_INTERRUPTED) and (folder / RUN_FILE).is_file():
        record: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        return {**record, "reason": "", "reconstruction": Reconstruction.load(folder)}
    if code == EXIT_INTERRUPTED:
        return {"status": "interrupted", "reason": "interrupted before it had a result"}
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return {"status": "failed", "reason": f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")}
    return {"status": "failed", "reason": said.removeprefix("error: ") or f"ended with exit code {code}"}


def _row(label: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over the repeats that have numbers; the first status that is not "done", with its reason."""
    worst = next((r for r in records if r["status"] != "done"), records[0])
    row: dict[str, Any] = {
        "solver": label,
        "status": worst["status"],
        "reason": worst["reason"],
        "repeats": len(records),
    }
    for name, path in MEASURED.items():
        values = [value for record in records if (value := _dig(record, path)) is not None]
        row[name] = statistics.median(values) if values else None
        if name in WITH_SPREAD:
            row[f"{name}_min"], row[f"{name}_max"] = (min(values), max(values)) if values else (None, None)
    return {name: row[name] for name in COLUMNS}


def _dig(record: Any, path: Sequence[str]) -> float | None:
    for key in path:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record if isinstance(record, int | float) else None
