"""What the benchmark scripts share: their arguments, cached data, runs, spread, tables, records.

What is measured is a list of :class:`fpmtools.RunSpec`. Each runs as those of ``fpmtools compare`` do: in a process of
its own, after a warm-up, with the same metrics.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fpmtools
from fpmtools import storage, threads
from fpmtools.errors import EXIT_INTERRUPTED, DataError, FpmError
from fpmtools.formats import native
from fpmtools.optics import synthetic_support
from fpmtools.processes import parse_event, watch
from fpmtools.runs import environment
from fpmtools.runs.document import missed_targets
from fpmtools.runs.folder import INTERRUPTED, RUN_FILE
from fpmtools.runs.spec import DataSpec, Limits, Outputs, RunSpec, read_json
from fpmtools.sampling import SamplingPlan

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
CACHE = HERE.parent / "out" / "bench-cache"
FOLDERS = ("--results", "--cache", "--data", "--measured", "--lab")  # options that are a machine's own
QUALITY = ("psnr", "ssim", "phase_rmse_rad", "in_band_db")
TIMED = Outputs(track=False, measures=(), pictures=(), warm_up=True)
SCORED = replace(TIMED, measures=QUALITY)

Record = dict[str, Any]


class RunFailed(SystemExit):
    """A run without a result: one line that ends the script, unless it is caught."""


def parser(description: str, *, repeats: int = 3) -> argparse.ArgumentParser:
    """The arguments that every script has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    made.add_argument("--repeats", type=int, default=repeats, help="runs of each case, interleaved")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all cores)")
    made.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON records")
    made.add_argument("--cache", type=Path, default=CACHE, help="folder for simulated data")
    return made


def to_the_end(main: Callable[[], None]) -> None:
    """Run a script; Ctrl-C ends it in one line."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def shape(text: str) -> tuple[int, int]:
    """An argument such as 256,256."""
    height, width = (int(part) for part in text.split(","))
    return height, width


def simulated(cache: Path, image_shape: tuple[int, int], **arguments: Any) -> Path:
    """File of a simulated data set (arguments of :func:`fpmtools.simulate`), made once and kept."""
    path = cache / data_name(image_shape, **arguments)
    if not path.is_file():
        print(f"simulating {image_shape[0]}×{image_shape[1]} …", file=sys.stderr)
        native.save(fpmtools.simulate(image_shape=image_shape, **arguments), path)
    return path


def data_name(image_shape: tuple[int, int], **arguments: Any) -> str:
    """Name of that file: it changes with the arguments, and with the code that simulates."""
    key = hashlib.sha256(json.dumps([image_shape, arguments], sort_keys=True, default=np.ndarray.tolist).encode())
    for module in ("simulation", "phantom", "leds/patterns"):
        key.update((HERE.parent / "fpmtools" / f"{module}.py").read_bytes())
    return f"sim-{image_shape[0]}x{image_shape[1]}-{key.hexdigest()[:12]}.safetensors"


def paper_run(results: Path, image_shape: tuple[int, int]) -> Record | None:
    """The recorded full run of the paper preset on the tilted sample; none if it was on other data."""
    record = kept(results, paper_name(image_shape))
    return record if record is not None and record["data"] == data_name(image_shape) else None


def paper_name(image_shape: tuple[int, int]) -> str:
    """Name of that record."""
    return f"paper-{image_shape[0]}x{image_shape[1]}"


def measured_option(made: argparse.ArgumentParser) -> None:
    """``--measured FOLDER``."""
    default = Path(os.environ.get("FPMTOOLS_DATA") or HERE.parents[1] / "shared" / "data")
    made.add_argument("--measured", type=Path, default=default, metavar="FOLDER", help="folder of measured data sets")


def measured(folder: Path) -> Iterator[tuple[str, fpmtools.Dataset]]:
    """Names and data of the measured sets that are there."""
    os.environ["FPMTOOLS_DATA"] = str(folder)
    for name in ("uconn_red", "uconn_green", "uconn_blue", "uconn_aberration", "thu_phase_target"):
        try:
            yield name, fpmtools.load(name)
        except DataError:
            continue
    if (folder / "elfpie_usaf").is_dir():
        numbers = {"wavelength_um": 0.532, "na": 0.1, "magnification": 4, "camera_pixel_um": 4.6}
        yield "elfpie", fpmtools.load(folder / "elfpie_usaf", optics=numbers)


def spec(
    args: argparse.Namespace,
    data: str | Path,
    solver: str,
    options: Mapping[str, Any] | None = None,
    z_um: tuple[float, ...] | None = None,
) -> RunSpec:
    """A run on the CPU to the solver's end, whose quality is measured then."""
    data = DataSpec(str(data))
    return RunSpec(data, solver, options or {}, z_um=z_um, device="cpu", threads=args.threads, outputs=SCORED)


def briefly(whole: RunSpec, budget_s: float) -> RunSpec:
    """The same for a short time only, which tells what a step takes."""
    return replace(whole, limits=Limits(budget_s), outputs=TIMED)


def until(whole: RunSpec, goal: Mapping[str, float]) -> RunSpec:
    """The same until every number of ``goal`` is reached."""
    return replace(whole, limits=Limits(targets=dict(goal)), outputs=TIMED)


def work(wanted: RunSpec, args: argparse.Namespace, *, alone: bool | None = None, render: bool = False) -> Record:
    """A run's record; its result goes again.

    ``alone``: see :func:`run`; quick runs are not, unless it is said, because starting a process takes longer than
    they do. ``render``: with ``render_seconds``, what a plane of the result takes.
    """
    args.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=args.cache) as scratch:
        folder = Path(scratch) / "run"
        found = run(wanted, folder, alone=not args.quick if alone is None else alone)
        return found | ({"render_seconds": render_seconds(folder, args.threads)} if render else {})


def run(wanted: RunSpec, folder: Path, *, alone: bool = True) -> Record:
    """A run's record; the run and its result stay in ``folder``, which is made. Raises :class:`RunFailed`.

    ``alone``: in a process of its own, so that memory and caches are its alone. Set-up is in all times but that of a
    step; ``full_seconds`` is what all steps take at the mean of those that were taken.
    """
    try:
        document = _alone(wanted, folder) if alone else fpmtools.run(wanted, folder)
    except FpmError as error:
        raise RunFailed(f"error: {wanted.solver}: {error}") from error
    if document["status"] == INTERRUPTED:
        raise KeyboardInterrupt
    times, reached = document["times"], document.get("seconds_to_target")
    setup, step = times["setup_s"], times["step_s"] or times["first_step_s"]
    points = document.get("quality_over_time", [])
    same = ("solver", "status", "seed", "steps", "total_steps", "stored_bytes", "peak_memory_mb")
    return {
        **{name: document[name] for name in same},
        "data": {"name": document["data"]["name"]},
        "reason": missed_targets(document),
        "seconds": setup + times["solve_s"],
        "seconds_to_target": None if reached is None else setup + reached,
        "step_seconds": step,
        "full_seconds": step * document["total_steps"],
        "quality": document["metrics"] or None,
        "trajectory": [{**point, "seconds": setup + point["seconds"]} for point in points],
        "device_memory_mb": document["hardware"].get("peak_device_memory_bytes", 0) / 1e6 or None,
    }


def _alone(wanted: RunSpec, folder: Path) -> Record:
    """Run it in a process of its own; what its ``run.json`` says."""
    folder.mkdir(parents=True)
    file = storage.write_json(folder / "spec.json", wanted.to_dict())
    said = ""

    def listen(line: str) -> None:
        nonlocal said
        event = parse_event(line)
        said = event["message"] if event["event"] == "error" else said

    ending = watch([sys.executable, "-m", "fpmtools.runs.worker", str(file), str(os.getpid())], listen)
    if ending.signal:
        raise KeyboardInterrupt if ending.interrupted else SystemExit(128 + ending.signal)
    if ending.code:
        raise RunFailed(f"error: {wanted.solver}: {said or ending.killed_by or ending.last_words}")
    return read_json(folder / RUN_FILE)


def render_seconds(folder: Path, count: int) -> float:
    """Seconds that the middle plane of the result in ``folder`` takes on ``count`` threads, the better of two."""
    result, seconds = fpmtools.open_result(folder), []
    with threads.limited(count):
        for _ in range(2):
            begun = time.perf_counter()
            result.field(sum(result.grid.z_range) / 2)
            seconds.append(time.perf_counter() - begun)
    return min(seconds)


def interleaved(cases: Mapping[str, Callable[[], Record]], repeats: int) -> dict[str, list[Record]]:
    """Run every case once, then every case again, …: a machine that slows down does so for all of them."""
    runs: dict[str, list[Record]] = {name: [] for name in cases}
    for repeat in range(repeats):
        for name, case in cases.items():
            print(f"[{repeat + 1}/{repeats}] {name}", file=sys.stderr, flush=True)
            runs[name].append(case())
    return runs


def stack_bytes(path: str | Path, planes: int) -> dict[str, int]:
    """Bytes of the field of a data set on this many planes, three ways.

    Amplitude, and amplitude and phase, as float32 at the output size; real and imaginary part, 16 bits each, of the
    spectrum inside the synthetic aperture.
    """
    data = fpmtools.load(path)
    plan = SamplingPlan.choose(data)
    height, width = plan.output_shape
    inside = int(synthetic_support(data.optics, data.na, (height, width), plan.extent_um[0] / height).sum())
    pixels = height * width * planes
    return {"amplitude": 4 * pixels, "complex": 8 * pixels, "band_limited_16_bit": 4 * inside * planes}


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    found = sorted(values)
    return {"median": statistics.median(found), "min": found[0], "max": found[-1]}


def about(count: int, device: str = "cpu") -> Record:
    """Hardware, versions, command and date of a measurement on ``count`` threads."""
    import torch

    with threads.limited(count):
        hardware = environment.hardware(torch.device(device))
    return {
        "hardware": hardware,
        "versions": environment.versions(),
        "command": _command(),
        "threads": count,
        "wait_policy": os.environ["OMP_WAIT_POLICY"],
        "date": datetime.date.today().isoformat(),
    }


def hardware_name(hardware: Mapping[str, Any]) -> str:
    """The processor or graphics card that did the work."""
    return str(hardware["device_name"] if hardware["device"] != "cpu" else hardware["cpu"])


def _command() -> str:
    """The command line, without the folders that are this machine's own."""
    shown, words = [], iter(sys.argv[1:])
    for word in words:
        if word in FOLDERS:
            next(words, None)
        elif not word.startswith(tuple(f"{name}=" for name in FOLDERS)):
            shown.append(word)
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown])


def keep(name: str, arguments: argparse.Namespace, measured: Mapping[str, Any], *, device: str = "cpu") -> Record:
    """Write ``<name>.json`` with the measurement and what it was measured on; returns it."""
    document = {"about": about(arguments.threads, device), "quick": arguments.quick, **measured}
    path = storage.write_json(arguments.results / f"{name}.json", document)
    print(f"wrote {path.name}", file=sys.stderr)
    loaded: Record = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def kept(results: Path, name: str) -> Record | None:
    """A record that was written earlier."""
    path = results / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(show(cell) for cell in line) + " |" for line in lines)


def show(value: Any) -> str:
    """A number with three significant digits, a spread as median (min–max), nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        low, high = show(value["min"]), show(value["max"])
        return show(value["median"]) + ("" if low == high else f" ({low}–{high})")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def size(number: float | None) -> str:
    """Bytes, readable."""
    if number is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f} B"
