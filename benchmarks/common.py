"""What the benchmark scripts share: their arguments, cached data, child processes, spread, tables, records."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Threads that spin while they wait make a step up to 60 times slower as soon as another process wants a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
CACHE = HERE.parent / "out" / "bench-cache"

Record = dict[str, Any]


def parser(description: str, *, repeats: int = 3) -> argparse.ArgumentParser:
    """The arguments that every script has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    made.add_argument("--repeats", type=int, default=repeats, help="runs of each case, interleaved")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all cores)")
    made.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON records")
    made.add_argument("--cache", type=Path, default=CACHE, help="folder for simulated data")
    return made


def shape(text: str) -> tuple[int, int]:
    """An argument such as 256,256."""
    height, width = (int(part) for part in text.split(","))
    return height, width


def simulated(cache: Path, image_shape: tuple[int, int], **arguments: Any) -> Path:
    """File of a simulated data set (arguments of :func:`fpmtools.simulate`), made once and kept."""
    path = cache / data_name(image_shape, **arguments)
    if not path.is_file():
        import fpmtools
        from fpmtools.formats import native

        print(f"simulating {image_shape[0]}×{image_shape[1]} …", file=sys.stderr)
        native.save(fpmtools.simulate(image_shape=image_shape, **arguments), path)
    return path


def data_name(image_shape: tuple[int, int], **arguments: Any) -> str:
    """Name of that file: it changes with the arguments, and with the code that simulates."""
    key = hashlib.sha256(json.dumps([image_shape, arguments], sort_keys=True, default=np.ndarray.tolist).encode())
    for module in ("simulation", "phantom", "leds"):
        key.update((HERE.parent / "fpmtools" / f"{module}.py").read_bytes())
    return f"sim-{image_shape[0]}x{image_shape[1]}-{key.hexdigest()[:12]}.safetensors"


def paper_run(results: Path, image_shape: tuple[int, int]) -> Record | None:
    """The recorded full run of the paper preset on the tilted sample; none if it was on other data."""
    record = kept(results, paper_name(image_shape))
    return record if record is not None and record["data"] == data_name(image_shape) else None


def paper_name(image_shape: tuple[int, int]) -> str:
    """Name of that record."""
    return f"paper-{image_shape[0]}x{image_shape[1]}"


def child(job: Mapping[str, Any], threads: int) -> Record:
    """Do one job (see ``one.py``) in a process of its own, so that memory and caches are its alone."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, str(HERE / "one.py"), json.dumps({**job, "threads": threads})]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **limits})
    if done.returncode:
        raise SystemExit(f"{job} failed:\n{done.stderr}")
    made: Record = json.loads(done.stdout)
    return made


def work(job: Mapping[str, Any], args: argparse.Namespace, threads: int | None = None) -> Record:
    """A job's record; quick runs stay in this process, because starting another takes longer than they do."""
    threads = threads or args.threads
    if args.quick:
        import one

        return one.main({**job, "threads": threads})
    return child(job, threads)


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
    import fpmtools
    from fpmtools.optics import synthetic_support
    from fpmtools.sampling import SamplingPlan

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


def about(threads: int, device: str = "cpu") -> Record:
    """Hardware, versions, command and date of a measurement."""
    import torch

    from fpmtools.runs import environment

    torch.set_num_threads(threads)
    return {
        "hardware": environment.hardware(torch.device(device)),
        "versions": environment.versions(),
        "command": _command(),
        "threads": threads,
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
        if word in ("--results", "--cache", "--data"):
            next(words, None)
        elif not word.startswith(("--results=", "--cache=", "--data=")):
            shown.append(word)
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown])


def keep(name: str, arguments: argparse.Namespace, measured: Mapping[str, Any], *, device: str = "cpu") -> Record:
    """Write ``<name>.json`` with the measurement and what it was measured on; returns it."""
    from fpmtools import storage

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
