"""The forward-and-gradient pass over the time of its FFTs alone, and where a step of each solver spends its time.

    python benchmarks/roofline.py

"FFTs alone" are one inverse and one forward two-dimensional transform of every low-resolution image, on arrays that
lie ready, in batches of the size that the pass works in. The pass leaves out the columns outside the pupil, so it can
take less. For the solvers, a profiled step is compared with the FFTs and matrix products inside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import common
import torch

import fpmtools
from fpmtools import registry
from fpmtools.problem import Problem, prepare

SHAPES, QUICK_SHAPES = ((64, 64), (128, 128), (256, 256), (512, 512)), ((24, 32),)
BATCHES = ((1, 1), (1, 8), (1, 68), (8, 8))  # planes, LEDs
SOLVED, QUICK_SOLVED = (256, 256), (24, 32)
FLOOR_S = 0.3  # each case is repeated for at least this long
USEFUL = ("fft", "mm", "linear")  # what an operator's name holds if it is a Fourier transform or a matrix product
TOP = 8


def main() -> None:
    """Measure, write ``roofline.json``, print the tables."""
    args = common.parser(__doc__.splitlines()[0]).parse_args()
    measured = {"passes": passes(args), "profiles": profiles(args)}
    print(section(common.keep("roofline", args, measured)))


def passes(args: argparse.Namespace) -> list[common.Record]:
    """Forward-and-gradient pass and its FFTs, for several shapes, batches and numbers of threads."""
    rows = []
    for shape in QUICK_SHAPES if args.quick else SHAPES:
        problem = prepare(fpmtools.load(common.simulated(args.cache, shape)), device="cpu")
        for planes, leds in BATCHES:
            calls = pass_and_transforms(problem, planes, leds)
            for threads in sorted({1, args.threads}):
                torch.set_num_threads(threads)
                times, bare, ratios = together(*calls, 0.02 if args.quick else FLOOR_S)
                rows.append(
                    {
                        "raw": shape,
                        "image": problem.forward.image_shape,
                        "planes": planes,
                        "leds": leds,
                        "threads": threads,
                        "seconds": times,
                        "fft_seconds": bare,
                        "ratio": ratios["median"],
                    }
                )
    return rows


def pass_and_transforms(problem: Problem, planes: int, count: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The pass over ``planes`` × ``count`` low-resolution images, and the bare transforms of as many."""
    forward, leds = problem.forward, problem.order[:count]
    z_um = [0.5 * i for i in range(planes)]
    spectra = problem.first_guess().repeat(planes, 1, 1)
    amplitudes = problem.amplitudes[leds]
    images = torch.randn(planes, count, *forward.image_shape, dtype=forward.dtype)

    def transform(z: slice, batch: slice) -> None:
        torch.fft.fft2(torch.fft.ifft2(images[z, batch], dim=(-2, -1)), dim=(-2, -1))

    def whole() -> object:
        return forward.loss_and_gradient(spectra, amplitudes, z_um, leds)

    def transforms() -> None:
        forward.in_batches(planes, leds, transform)

    return whole, transforms


def together(
    first: Callable[[], object], second: Callable[[], object], floor_s: float
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Times of two calls in turn, A B A B, for at least ``floor_s`` seconds, and their ratios pair by pair."""
    times: tuple[list[float], list[float]] = ([], [])
    first(), second()
    begun = time.perf_counter()
    while time.perf_counter() - begun < floor_s or len(times[0]) < 3:
        for call, into in zip((first, second), times, strict=True):
            now = time.perf_counter()
            call()
            into.append(time.perf_counter() - now)
    ratios = [whole / bare for whole, bare in zip(*times, strict=True)]
    return common.spread(times[0]), common.spread(times[1]), common.spread(ratios)


def profiles(args: argparse.Namespace) -> list[common.Record]:
    """Operators of a step of each solver, by their own time, on one thread."""
    torch.set_num_threads(1)
    data = fpmtools.load(common.simulated(args.cache, QUICK_SOLVED if args.quick else SOLVED))
    rows = []
    for name, z_um in {"inr": (-20.0, 20.0), "ap": None, "adam": None}.items():
        kind = registry.solver_class(name)
        solver = kind(kind.Options())
        state = solver.start(prepare(data, solver, z_um=z_um, device="cpu"))
        count = 3 if args.quick else 20
        advance(solver, state, 3)
        plain = statistics.median(advance(solver, state, count))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            advance(solver, state, count)
        own = {event.key: event.self_cpu_time_total / 1e6 / count for event in profiler.key_averages()}
        useful = sum(seconds for key, seconds in own.items() if any(word in key for word in USEFUL))
        top = sorted(own.items(), key=lambda item: -item[1])[:TOP]
        rows.append(
            {"solver": name, "step_seconds": plain, "useful_seconds": useful, "ratio": plain / useful, "top": top}
        )
    return rows


def advance(solver: fpmtools.Solver[Any], state: Any, count: int) -> list[float]:
    """Take up to ``count`` steps on the CPU and return the seconds of each."""
    seconds: list[float] = []
    done = False
    while not done and len(seconds) < count:
        begun = time.perf_counter()
        done = solver.step(state).done
        seconds.append(time.perf_counter() - begun)
    return seconds


def section(record: common.Record) -> str:
    """The record as Markdown."""
    passes = [
        (
            "×".join(map(str, row["raw"])),
            "×".join(map(str, row["image"])),
            row["planes"],
            row["leds"],
            row["threads"],
            1e3 * row["seconds"]["median"],
            1e3 * row["fft_seconds"]["median"],
            f"{row['ratio']:.2f}",
        )
        for row in record["passes"]
    ]
    ratios = sorted(row["ratio"] for row in record["passes"])
    steps = [
        (f"`{row['solver']}`", 1e3 * row["step_seconds"], 1e3 * row["useful_seconds"], f"{row['ratio']:.2f}")
        for row in record["profiles"]
    ]
    shares = [
        (
            f"`{row['solver']}`",
            ", ".join(
                f"{key.removeprefix('aten::')} {seconds / row['step_seconds']:.0%}" for key, seconds in row["top"]
            ),
        )
        for row in record["profiles"]
    ]
    return "\n\n".join(
        [
            "Forward-and-gradient pass (`ForwardModel.loss_and_gradient`) over the time of its FFTs alone, in pairs: "
            f"median {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}.",
            common.table(("raw", "image grid", "planes", "LEDs", "threads", "pass, ms", "FFTs, ms", "ratio"), passes),
            "A solver's step over the FFTs and matrix products inside it, one thread:",
            common.table(("solver", "step, ms", "FFTs and products, ms", "ratio"), steps),
            "The operators that take most of it, as shares of the step:",
            "\n".join(f"- {solver}: {text}" for solver, text in shares),
        ]
    )


if __name__ == "__main__":
    common.to_the_end(main)
