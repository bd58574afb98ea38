"""What a graphics card makes of it: the published stack, a board of 361 LEDs, every size; synchronised, with memory.

    python benchmarks/gpu.py --prepare      # only simulate what is kept in files, which takes no card
    python benchmarks/gpu.py                # on the card, or on the CPU where there is none

Three tables within eight minutes, the most telling first: 1024² × 68 LEDs over z ±20 µm, 361 LEDs in one plane, every
solver at several sizes. The record is written after each row, and a row is not begun when the time of its table is up.
All runs are in this process, which has the card already.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from paper import PUBLISHED_HARDWARE, PUBLISHED_MINUTES

import fpmtools
from fpmtools import Dataset, ForwardModel, Optics, Problem, Solver, engine, registry
from fpmtools.options import make_options
from fpmtools.problem import choose_device, prepare
from fpmtools.runs.spec import RunSpec
from fpmtools.sampling import SamplingPlan

UNTIL_S = {"stack": 180.0, "board": 340.0, "rows": 460.0}  # from the start on, no row of a table is begun after that
SIDES, QUICK_SIDES = (256, 512, 1024), (32,)
SCORED = 256  # quality over time is noted at this size only; scoring is slow beside a GPU
Z_UM = (-20.0, 20.0)
STACK, QUICK_STACK = (1024, 161), (32, 5)  # side, planes
BRIEF = 100  # steps that stand for a published schedule, after as many that warm up
PROFILED = 4  # steps whose kernels are counted
BOARD, QUICK_BOARD = ((512, 1024, 2048), 19), ((16, 24), 5)  # sides, LEDs along each side
BOARD_NA, BOARD_STEP, PHOTONS = 0.1, 0.03, 500.0
CUFPM_S = {512: 1.38, 2048: 22.3}  # cuFPM v3, THUHoloLab, 2026: 361 LEDs to eight times as many pixels, with the pupil
CUFPM_HARDWARE = "RTX 3090"


def main() -> None:
    """Measure, write ``gpu.json``, print the tables."""
    parser = common.parser(__doc__.splitlines()[0], repeats=1)
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu")
    parser.add_argument("--prepare", action="store_true", help="only simulate what is kept in files")
    parser.add_argument("--only", metavar="TABLE,…", help=f"some of {', '.join(UNTIL_S)}")
    args = parser.parse_args()
    if args.prepare:
        for side in QUICK_SIDES if args.quick else SIDES:
            common.simulated(args.cache, (side, side))
        return
    torch.set_num_threads(args.threads)
    begun, device = time.perf_counter(), choose_device(args.device)
    measured: common.Record = {name: [] for name in UNTIL_S}
    record = common.keep("gpu", args, {**measured, "wall_seconds": 0.0}, device=str(device))
    for name, rows in (("stack", stack), ("board", board), ("rows", table)):
        if args.only and name not in args.only.split(","):
            continue
        for row in rows(args, device, begun + UNTIL_S[name]):
            measured[name].append(row)
            print(row, file=sys.stderr, flush=True)
            # After each, for the machine may be taken back.
            wall = {"wall_seconds": time.perf_counter() - begun}
            record = common.keep("gpu", args, {**measured, **wall}, device=str(device))
    print(section(record))


def stack(args: argparse.Namespace, device: torch.device, until: float) -> Iterator[common.Record]:
    """The published blood smear's size, LEDs and depths."""
    side, planes = QUICK_STACK if args.quick else STACK
    small = {"inr": {"steps": 20}, "ap": {"sweeps": 2}} if args.quick else {}
    brief = 2 if args.quick else BRIEF
    z_um = {"inr": Z_UM, "ap": tuple(np.linspace(*Z_UM, planes).tolist())}
    dataset = fpmtools.load(common.simulated(args.cache, (side, side)))
    problems: dict[bool, Problem] = {}  # on the critical grid, or on the camera's
    for label in ("inr", "ap", "inr:preset=paper", "ap:preset=paper"):
        name, _, published = label.partition(":")
        if late(until, f"{label} of the stack"):
            continue
        solver = made(name, {} if published else small.get(name, {}), "paper" if published else None)
        critical = solver.grid().get("critical_grid", True)
        if critical not in problems:
            problems[critical] = prepare(dataset, solver, device=str(device))
        problem = replace(problems[critical], z_um=z_um[name])
        found = some_steps(problem, solver, brief) if published else to_the_end(problem, solver)[0]
        yield {"label": label, "side": side, "planes": planes, **found}


def board(args: argparse.Namespace, device: torch.device, until: float) -> Iterator[common.Record]:
    """Many LEDs, a camera that samples the intensity at Nyquist, one plane."""
    sides, across = QUICK_BOARD if args.quick else BOARD
    for side in sides:
        if late(until, f"the board at {side}²"):
            continue
        problem, truth = on_a_board(side, across, device)
        begun, noise = time.perf_counter(), problem.noise
        known = {"side": side, "leds": len(noise), "object_shape": list(problem.forward.object_shape)}
        known["noise_seconds"] = time.perf_counter() - begun
        for name in ("ap", "epry"):
            if late(until, f"{name} at {side}²"):
                continue
            solver = made(name, {"sweeps": 3} if args.quick else {})
            row, result = to_the_end(problem, solver)
            if result is not None:
                found = torch.from_numpy(result.field(0.0, shape=problem.forward.object_shape)).to(device)
                row["in_band_db"] = in_band_db(problem.forward.spectrum(found), truth)
            yield {"label": name, **known, **row}
        del problem, truth


class OnDevice:
    """Intensities [image, y, x] that are read from the squares' roots on a device, an image at a time."""

    def __init__(self, amplitudes: torch.Tensor) -> None:
        self.amplitudes, self.shape = amplitudes, tuple(amplitudes.shape)

    def __getitem__(self, key: Any) -> Any:
        return self.amplitudes[key].square().cpu().numpy()


def on_a_board(side: int, across: int, device: torch.device) -> tuple[Problem, torch.Tensor]:
    """Noisy images of a texture, made by the forward model on the device, and the texture's spectrum in its band."""
    optics = Optics(wavelength_um=0.532, na=BOARD_NA, magnification=1, camera_pixel_um=0.532 / (4 * BOARD_NA))
    steps = BOARD_STEP * (np.arange(across) - across // 2)
    na = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    blank = Dataset.from_arrays(np.broadcast_to(np.float32(1), (len(na), side, side)), na, optics)
    plan = SamplingPlan.choose(blank)
    forward = ForwardModel(optics, blank.calibration, plan, device=device)
    truth = forward.spectrum(texture(forward.object_shape, device))
    truth *= torch.from_numpy(forward.synthetic_support()).to(device)
    field, amplitudes = forward.field(truth), torch.empty(len(na), *plan.image_shape, device=device)
    for first in range(0, len(na), 8):
        chosen = range(first, min(first + 8, len(na)))
        amplitudes[chosen.start : chosen.stop] = forward.amplitude(field, 0.0, chosen)[0]
    bright = torch.from_numpy(blank.calibration.bright_field(optics)).to(device)
    scale = float(amplitudes[bright].square().mean())
    generator = torch.Generator(device).manual_seed(1)
    for image in amplitudes:
        image.copy_((torch.poisson(image.square() * (PHOTONS / scale), generator) / PHOTONS).sqrt())
    dataset = Dataset.from_arrays(OnDevice(amplitudes), na, optics, name=f"board:{across}x{across}@{side}")  # type: ignore[arg-type]
    return Problem(dataset, forward, amplitudes, (0.0,), dataset.calibration), truth


def texture(shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Transmission [y, x] with grains of many sizes; amplitude 0.6 to 1, phase 0 to 1.4 rad."""
    generator = torch.Generator(device).manual_seed(0)
    fy, fx = (torch.fft.fftfreq(n, device=device) for n in shape)
    falloff = 1 / (0.01 + torch.hypot(fy[:, None], fx))
    noise = torch.randn(2, *shape, generator=generator, device=device)
    grains = torch.fft.ifft2(torch.fft.fft2(noise, dim=(-2, -1)) * falloff, dim=(-2, -1)).real
    first, second = torch.sigmoid(2 * grains / grains.std())
    return torch.polar(1 - 0.4 * first, 1.4 * second)


def in_band_db(found: torch.Tensor, truth: torch.Tensor) -> float:
    """How well a spectrum is the truth times a constant, where the truth has light."""
    found = torch.where(truth != 0, found, 0)
    alike = torch.linalg.vecdot(found.flatten(), truth.flatten()).abs() / (found.norm() * truth.norm())
    return -10 * math.log10(max(1 - float(alike) ** 2, 1e-12))


def made(name: str, options: Mapping[str, Any], preset: str | None = None) -> Solver[Any]:
    """A solver with options."""
    cls = registry.solver_class(name)
    return cls(make_options(cls, options, preset))


def late(until: float, what: str) -> bool:
    """Whether the time is up, which is said."""
    if time.perf_counter() > until:
        print(f"time is up: {what} left out", file=sys.stderr)
    return time.perf_counter() > until


def to_the_end(problem: Problem, solver: Solver[Any]) -> tuple[common.Record, fpmtools.Reconstruction | None]:
    """A run after a short warm-up, and what it gives."""
    fresh(problem.device)
    try:
        engine.warm_up(problem, type(solver)(solver.options))
        found = engine.solve(problem, solver)
        memory = peak_mb(problem.device)
        kernels = kernels_per_step(problem, solver)
    except (fpmtools.FpmError, RuntimeError) as error:
        return {"failed": " ".join(str(error).split())[:300]}, None
    row = {"seconds": found.setup_seconds + found.seconds, "setup_seconds": found.setup_seconds, "steps": found.steps}
    rate = {"steps_per_second": found.steps / found.seconds, "kernels_per_step": kernels}
    return {**row, **rate, "device_memory_mb": memory}, found.reconstruction


def some_steps(problem: Problem, solver: Solver[Any], steps: int) -> common.Record:
    """What a whole run takes by some of its first steps."""
    fresh(problem.device)
    try:
        begun = time.perf_counter()
        state = solver.start(problem)
        synchronise(problem.device)
        setup = time.perf_counter() - begun
        for _ in range(steps):
            solver.step(state)
        synchronise(problem.device)
        begun = time.perf_counter()
        for _ in range(steps):
            progress = solver.step(state)
        synchronise(problem.device)
        step = (time.perf_counter() - begun) / steps
    except (fpmtools.FpmError, RuntimeError) as error:
        return {"failed": " ".join(str(error).split())[:300]}
    row = {"seconds": setup + step * progress.total, "setup_seconds": setup, "steps": progress.total, "brief": True}
    return {**row, "steps_per_second": 1 / step, "device_memory_mb": peak_mb(problem.device)}


def kernels_per_step(problem: Problem, solver: Solver[Any]) -> float | None:
    """Kernels that a step launches on a card, of the first few; None elsewhere, and where they cannot be counted."""
    if problem.device.type != "cuda":
        return None
    state = solver.start(problem)
    solver.step(state)
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            for _ in range(PROFILED):
                solver.step(state)
            synchronise(problem.device)
    except Exception as error:  # a profiler that fails, in whatever way, must not cost the row
        print(f"no kernels counted: {error}", file=sys.stderr)
        return None
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in seen.events()) / PROFILED


def fresh(device: torch.device) -> None:
    """Nothing of an earlier run in the card's memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mb(device: torch.device) -> float | None:
    """Most that was allocated on a card since it was :func:`fresh`."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def synchronise(device: torch.device) -> None:
    """Wait for a card."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(args: argparse.Namespace, device: torch.device, until: float) -> Iterator[common.Record]:
    """Every solver at several sizes, scored."""
    for side in QUICK_SIDES if args.quick else SIDES:
        for solver in ("inr", "ap", "adam"):
            if not late(until, f"{solver} at {side}²"):
                file = common.simulated(args.cache, (side, side))
                yield {"side": side, "solver": solver, **measure(args, file, side, solver, device)}


def measure(args: argparse.Namespace, file: Path, side: int, name: str, device: torch.device) -> common.Record:
    """One run to its end after a short warm-up; at :data:`SCORED` also the time to the paper preset's quality."""
    small: dict[str, dict[str, Any]] = {"inr": {"steps": 20}, "ap": {"sweeps": 2}, "adam": {"sweeps": 2}}
    options, z_um = small[name] if args.quick else {}, Z_UM if name == "inr" else None
    whole = replace(common.spec(args, file, name, options, z_um), device=str(device))
    paper = common.paper_run(args.results, (side, side)) if side == SCORED else None
    try:
        plain = run(whole, args, device)
        goal = {key: paper["run"]["quality"][key] for key in ("psnr", "ssim")} if paper else None
        reached = run(common.until(whole, goal), args, device)["seconds_to_target"] if goal else None
    except common.RunFailed as error:
        return {"failed": str(error)}
    return {
        "seconds": plain["seconds"],
        "steps_per_second": plain["steps"] / plain["seconds"],
        "to_paper_quality_s": reached,
        "device_memory_mb": plain["device_memory_mb"],
        "quality": plain["quality"],
    }


def run(wanted: RunSpec, args: argparse.Namespace, device: torch.device) -> common.Record:
    """A run in this process, alone in the GPU's memory."""
    fresh(device)
    return common.work(wanted, args, alone=False)


def section(record: common.Record) -> str:
    """The record as Markdown."""
    card = common.hardware_name(record["about"]["hardware"])
    parts = [f"On {card}, {common.show(record['wall_seconds'])} s in all, synchronised, each run once after a warm-up."]
    writers = {"stack": _stack_section, "board": _board_section, "rows": _rows_section}
    for name, write in writers.items():
        parts += write(record[name]) if record[name] else []
    return "\n\n".join(parts)


def _stack_section(rows: list[common.Record]) -> list[str]:
    side, planes = rows[0]["side"], rows[0]["planes"]
    published = dict(zip(("ap", "inr"), PUBLISHED_MINUTES.get(side, (None, None)), strict=True))
    lines = []
    for row in rows:
        theirs, seconds = published[row["label"].partition(":")[0]], row.get("seconds")
        about = "≈ " if row.get("brief") else ""
        lines.append(
            (
                f"`{row['label']}`", row.get("failed") or about + common.show(seconds), theirs and 60 * theirs,
                theirs and seconds and f"{60 * theirs / seconds:.0f}×", *_rates(row),
            )
        )  # fmt: skip
    head = ("", "whole run, s", f"published, {PUBLISHED_HARDWARE}, s", "faster", *RATES)
    return [
        f"The published stack's size, {side}² × 68 LEDs, z {Z_UM[0]:g} … {Z_UM[1]:g} µm: `ap` solves {planes} planes, "
        f"`inr` covers the range. ≈: by {BRIEF} steps of the published schedule.",
        common.table(head, lines),
    ]


def _board_section(rows: list[common.Record]) -> list[str]:
    lines = []
    for row in rows:
        shape = "×".join(str(n) for n in row["object_shape"])
        quality = f"{row['in_band_db']:.1f}" if "in_band_db" in row else None
        seconds, theirs = row.get("seconds", row.get("failed")), CUFPM_S.get(row["side"])
        lines.append((f"`{row['label']}` {row['side']}²", shape, seconds, theirs, quality, *_rates(row)))
    head = ("", "spectrum", "whole run, s", f"cuFPM v3, {CUFPM_HARDWARE}, s", "in band, dB", *RATES)
    return [
        f"{rows[0]['leds']} LEDs in one plane, images at the intensity's Nyquist rate with {PHOTONS:g} photons per "
        "pixel, simulated by the forward model on the device. cuFPM's time is as published, for as many LEDs and "
        "pixels on other data: it finds the pupil as well (so does `epry`) and draws on eight times as many pixels "
        "along each side, where the spectra here are as large as the synthetic aperture. The noise is measured before "
        "the clock starts.",
        common.table(head, lines),
    ]


def _rows_section(rows: list[common.Record]) -> list[str]:
    lines = [
        (
            f"`{row['solver']}` {row['side']}²",
            row.get("seconds", row.get("failed")),
            row.get("to_paper_quality_s"),
            row.get("steps_per_second"),
            row.get("device_memory_mb"),
            f"{row['quality']['psnr']:.2f}" if "quality" in row else None,
            f"{row['quality']['ssim']:.3f}" if "quality" in row else None,
        )
        for row in rows
    ]
    head = ("", "whole run, s", "to paper's quality, s", "steps/s", "GPU memory, MB", "PSNR, dB", "SSIM")
    return ["Tilted smear, `inr` over z ±20 µm, the others 21 planes.", common.table(head, lines)]


RATES = ("steps/s", "kernels/step", "GPU memory, MB")


def _rates(row: common.Record) -> tuple[Any, ...]:
    return row.get("steps_per_second"), row.get("kernels_per_step"), row.get("device_memory_mb")


if __name__ == "__main__":
    common.to_the_end(main)
