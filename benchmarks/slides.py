"""Whole slides in tiles: quality at seams, time per megapixel, what scheduling costs, two workers against one.

    python benchmarks/slides.py

Slides are simulated with spherical waves and an exact truth (`fpmtools.simulate_slide`), noiseless, and solved by `ap`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import numpy as np

import fpmtools
from fpmtools.optics import Optics, fast_length, resample
from fpmtools.runs.folder import RunFolder
from fpmtools.runs.spec import DataSpec, Outputs, RunSpec, TilesSpec
from fpmtools.slide import simulate_slide
from fpmtools.tiling import running
from fpmtools.tiling.mosaic import Mosaic
from fpmtools.tiling.plan import Plan, choose
from fpmtools.tiling.preparing import height_of
from fpmtools.tiling.queue import Slide
from fpmtools.tiling.workers import Workers

SHAPE, SIZE = (384, 448), 180
QUICK = {"image_shape": (96, 120), "leds": 5, "pitch_mm": 1.9, "height_mm": 50.0}
CASES = {  # what a slide has, how it is calibrated, and whether z is given
    "flat, no aberrations, nothing looked for": (0.0, 0.0, "none"),
    "flat, pupil that changes (0.5 rad), one for all": (0.5, 0.0, "none"),
    "the same, pupil found over the field": (0.5, 0.0, "auto"),
    "tilt 10 µm, bow 5 µm, the same pupil, all found": (0.5, 10.0, "auto"),
}
BORDER = 8  # camera pixels of the frame's border that do not count
NEAR, FAR = 8, 48  # camera pixels from the middle of a seam: at it, and away from it
SIDES, MORE, QUICK_SIDES, QUICK_MORE, QUICK_TILE = (512, 1024, 2048), 4096, (64, 128), 192, 48
SWEEPS, QUICK_SWEEPS = 8, 2  # of each tile where only time counts
TILES, QUICK_TILES = 10_000, 400
QUIET = Outputs(track=False, measures=(), pictures=())


def main() -> None:
    """Measure, write ``slides.json``, print the tables."""
    args = common.parser(__doc__.splitlines()[0], repeats=1).parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    cases = list(CASES)[: 1 if args.quick else None]
    with tempfile.TemporaryDirectory(prefix="slides-", dir=args.cache) as scratch:
        folder = Path(scratch)
        measured = {
            "quality": [quality_of(args, folder / f"q{i}", name) for i, name in enumerate(cases)],
            "time": times(args, folder),
            "scheduling": scheduling(args, folder),
        }
    print(section(common.keep("slides", args, measured)))


def quality_of(args: argparse.Namespace, folder: Path, case: str) -> common.Record:
    """A slide of one kind, solved, against its truth."""
    aberration, tilt, calibrate = CASES[case]
    print(case, file=sys.stderr, flush=True)
    how: dict[str, Any] = QUICK if args.quick else {"image_shape": SHAPE}
    simulate_slide(
        folder / "slide", aberration_rad=aberration, tilt_um=tilt, bow_um=tilt / 2, progress=False, **how
    )  # fmt: skip
    calibrate = "none" if args.quick else calibrate
    z_um = None if tilt and calibrate != "none" else 0.0
    few = {"sweeps": 10} if args.quick else {}
    wanted = spec(folder / "slide", 48 if args.quick else SIZE, calibrate, z_um, **few)
    seconds, mosaic = solved(wanted, folder / "run", 1 if args.quick else 2)
    return {"case": case, "seconds": seconds, **quality(mosaic, in_band(folder / "slide", mosaic.grid.shape))}


def spec(slide: Path, size: int | None, calibrate: str, z_um: float | None, **options: Any) -> RunSpec:
    """The tiled run of a simulated slide by ``ap``."""
    data = DataSpec(str(slide / "images.npy"), **described(slide))
    return RunSpec(
        data, "ap", options, calibration="nominal", calibrate=calibrate, z_um=None if z_um is None else (z_um,),
        device="cpu", threads=1, outputs=QUIET, tiles=TilesSpec(size),
    )  # fmt: skip


def described(slide: Path) -> dict[str, Any]:
    """Optics and LEDs of a simulated slide."""
    return {"optics": json.loads((slide / "slide.json").read_text())["optics"], "leds": str(slide / "leds.csv")}


def solved(wanted: RunSpec, folder: Path, workers: int) -> tuple[float, Mosaic]:
    """Seconds that a run takes, and its mosaic."""
    begun = time.perf_counter()
    with RunFolder.create(folder, wanted) as place:
        running.carry_on(place, workers=workers)
    seconds = time.perf_counter() - begun
    mosaic = fpmtools.open_result(folder)
    assert isinstance(mosaic, Mosaic)
    return seconds, mosaic


def in_band(slide: Path, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """What the LEDs show of a slide's truth, [y, x] at ``shape``."""
    about = json.loads((slide / "slide.json").read_text())
    optics, truth = Optics(**about["optics"]), np.load(slide / "truth_field.npy")
    x, y, height = np.loadtxt(slide / "leds.csv", delimiter=",", skiprows=1).T
    na = np.stack([x, y], axis=1) / np.sqrt(x**2 + y**2 + height**2)[:, None]
    fy, fx = (np.fft.fftfreq(n, optics.pixel_um / about["upsample"]) for n in truth.shape)
    seen = np.zeros(truth.shape, bool)
    for led_x, led_y in na / optics.wavelength_um:
        seen |= np.hypot(fy[:, None] - led_y, fx - led_x) < optics.cutoff
    field = np.fft.ifft2(np.fft.fft2(truth, axes=(0, 1)) * seen, axes=(0, 1))
    return np.asarray(resample(field.astype(np.complex64), shape))


def quality(mosaic: Mosaic, truth: np.ndarray[Any, Any]) -> common.Record:
    """Errors of the tiles, each at a complex gain of its own, and of the mosaic, at one gain and one ramp."""
    z, factor, light = mosaic.planes_um[0], mosaic.factor, float(np.mean(np.abs(truth) ** 2))
    inner = np.s_[BORDER * factor : -BORDER * factor, BORDER * factor : -BORDER * factor]
    own = np.zeros(truth.shape, np.complex64)
    for index, where, window in mosaic.windows():
        field = mosaic.tile_field(index, z)
        own[where] += window * field * gain(field, truth[where], window)
    left = [part - truth for part in (own, levelled(mosaic.native_field(z), truth))]
    away, alone = from_seams(mosaic), np.zeros(truth.shape, bool)
    for _, where, window in mosaic.windows():
        alone[where] |= window > 1 - 1e-9
    power = [np.abs(part[inner]) ** 2 for part in left]
    phase = np.angle((left[1] + truth) * truth.conj())[inner]
    near, far = away[inner] < NEAR, away[inner] > FAR
    return {
        "tiles_db": -10 * np.log10(power[0].mean() / light),
        "mosaic_db": -10 * np.log10(power[1].mean() / light),
        "seams_db": -10 * np.log10(power[1][~alone[inner]].mean() / light),
        "inside_db": -10 * np.log10(power[1][alone[inner]].mean() / light),
        "phase_seams_rad": float(np.sqrt(np.square(phase[near]).mean())),
        "phase_inside_rad": float(np.sqrt(np.square(phase[far]).mean())) if far.any() else None,
        "line": max(lines(mosaic, left[1][inner])),
    }


def gain(field: Any, truth: Any, weight: Any) -> Any:
    """The complex gain by which a field is nearest to the truth."""
    return (weight * truth * field.conj()).sum() / (weight * np.abs(field) ** 2).sum()


def levelled(field: Any, truth: Any) -> Any:
    """A field at the one gain and ramp by which it is nearest to the truth."""
    y, x = (np.arange(n) / n - 0.5 for n in field.shape)
    at = np.stack([np.ones(field.shape), y[:, None] + 0 * x, x + 0 * y[:, None]])
    for _ in range(3):
        field = field * gain(field, truth, 1.0)
        product = truth * field.conj()
        weight = np.abs(product)
        normal = np.einsum("iyx,jyx,yx->ij", at, at, weight)
        plane = np.linalg.solve(normal, np.einsum("iyx,yx->i", at, weight * np.angle(product)))
        field = field * np.exp(1j * np.tensordot(plane, at, 1))
    return field * gain(field, truth, 1.0)


def from_seams(mosaic: Mosaic) -> np.ndarray[Any, Any]:
    """Distance of each pixel from the middle of the nearest seam, camera pixels."""
    axes = []
    for starts, size, count in zip(
        (mosaic.plan.rows, mosaic.plan.columns), mosaic.plan.size, mosaic.grid.shape, strict=True
    ):
        middles = np.array([(a + size + b) / 2 for a, b in itertools.pairwise(starts)] or [np.inf])
        axes.append(np.abs((np.arange(count) + 0.5)[:, None] / mosaic.factor - middles).min(axis=1))
    return np.minimum(axes[0][:, None], axes[1])


def lines(mosaic: Mosaic, error: Any) -> list[float]:
    """What the error's spectrum has at once, twice and three times the tiles' pitch, over what is beside it."""
    found = []
    for axis, starts in enumerate((mosaic.plan.rows, mosaic.plan.columns)):
        if len(starts) < 2:
            continue
        along = np.moveaxis(error, axis, 0)
        length, padded = len(along) / mosaic.factor, 8 * len(along)
        window = np.hanning(len(along))[:, None]
        power = (np.abs(np.fft.fft((along - along.mean()) * window, padded, axis=0)) ** 2).mean(axis=1)
        at = np.fft.fftfreq(padded) * mosaic.factor * length  # in samples of the spectrum without padding
        for order in (1, 2, 3):
            away = at - order * length / float(np.diff(starts).mean())
            here, below, above = (power[np.abs(away - k) < 0.5].mean() for k in (0, -2, 2))
            found.append(float(here / np.sqrt(below * above)))
    return found


def times(args: argparse.Namespace, folder: Path) -> common.Record:
    """Seconds per megapixel of frames that are copies of one, of two rows of tiles of a larger one, by two workers."""
    sweeps = QUICK_SWEEPS if args.quick else SWEEPS
    sides, more = (QUICK_SIDES, QUICK_MORE) if args.quick else (SIDES, MORE)
    how: dict[str, Any] = QUICK if args.quick else {"leds": 5}
    first = simulate_slide(folder / "first", progress=False, **{**how, "image_shape": (sides[0], sides[0])})
    images, rows, workers = np.load(first / "images.npy"), [], {}
    data = fpmtools.load(first / "images.npy", **described(first))
    for side in (*sides, more):
        print(f"frames of {side}²", file=sys.stderr, flush=True)
        size = QUICK_TILE if args.quick else None
        plan = choose((side, side), data.optics, data.na, (0.0,), size, None, height_of(data.calibration))
        part = side == more
        height = plan.rows[1] + plan.size[0] if part else side
        source = folder / f"frame-{side}.npy"
        np.save(source, np.tile(images, (1, side // sides[0], side // sides[0]))[:, :height])
        wanted = spec(first, plan.size[0], "none", 0.0, sweeps=sweeps, stop_below=0.0)
        wanted = replace(
            wanted, data=replace(wanted.data, source=str(source)), tiles=TilesSpec(plan.size[0], plan.overlap)
        )
        taken, mosaic = solved(wanted, folder / f"run-{side}", 1)
        covered = len(plan.tiles) * math.prod(plan.size) / side**2
        per_solved = taken / (len(mosaic.parts) * math.prod(mosaic.plan.size) / 1e6)
        rows.append(
            {
                "side": side,
                "part": part,
                "tiles": len(mosaic.parts),
                "tile": plan.size[0],
                "covered": covered,
                "per_megapixel_s": covered * per_solved,
                "per_solved_s": per_solved,
                "tile_s": taken / len(mosaic.parts),
            }
        )
        if side == sides[-1]:
            both, _ = solved(wanted, folder / "two", 2)
            one, two = ((folder / name / "reconstruction.safetensors") for name in (f"run-{side}", "two"))
            same = one.read_bytes() == two.read_bytes()
            workers = {"side": side, "one_s": taken, "two_s": both, "speedup": taken / both, "identical": same}
        source.unlink()
    return {"sweeps": sweeps, "leds": len(images), "rows": rows, "workers": workers}


@dataclass
class Empty:
    """Tiles that are done as soon as they are given away."""

    at_once: int = 1

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Nothing is called."""
        future: Future[Any] = Future()
        future.set_result({"status": "done", "sha256": "0" * 64, "stored_bytes": 0, "seconds": 0.0})
        return future


def scheduling(args: argparse.Namespace, folder: Path) -> common.Record:
    """What the one that gives out tiles needs for each, and what a call of a worker takes; both without any work."""
    side = int(np.sqrt(QUICK_TILES if args.quick else TILES))
    plan = Plan.of((40 + 216 * side, 40 + 216 * side), 256, 40)
    wanted = RunSpec(DataSpec("slide.npy"), "ap", z_um=(0.0,), tiles=TilesSpec(256))
    grids = {"upsample": 2, "margin": 32, "threads": 1, "device": "cpu"}
    with RunFolder.create(folder / "empty", wanted) as place:
        place.update(tiles={})
        data: Any = None  # no tile reads it
        slide = Slide(place, data, plan, data, [(0.0,)] * len(plan.tiles), grids)
        begun = time.perf_counter()
        running.work(slide, list(range(len(plan.tiles))), Empty(), lambda event: None, None)
        each = (time.perf_counter() - begun) / len(plan.tiles)
    calls = 200
    with Workers(1) as workers:
        workers.submit(fast_length, 100).result()  # until it has started
        begun = time.perf_counter()
        for _ in range(calls):
            workers.submit(fast_length, 100).result()
        call = (time.perf_counter() - begun) / calls
    return {"tiles": len(plan.tiles), "each_s": each, "call_s": call}


def section(record: common.Record) -> str:
    """The record as Markdown."""
    quality_rows = [
        (
            row["case"], *(f"{row[name]:.1f}" for name in ("tiles_db", "mosaic_db", "seams_db", "inside_db")),
            *(common.show(row[name]) for name in ("phase_seams_rad", "phase_inside_rad", "line", "seconds")),
        )
        for row in record["quality"]
    ]  # fmt: skip
    timed, planned = record["time"], record["scheduling"]
    time_rows = [
        (
            f"{row['side']}²" + (f", from {row['tiles']} tiles of it" if row["part"] else f", {row['tiles']} tiles"),
            f"{row['tile']}²",
            f"{row['covered']:.2f}",
            f"{row['per_megapixel_s']:.1f}",
            f"{row['per_solved_s']:.1f}",
        )
        for row in timed["rows"]
    ]
    both, tile_s = timed["workers"], timed["rows"][-1]["tile_s"]
    return "\n\n".join(
        [
            "Slides with an exact truth, solved in tiles: dB of the light in the band of the LEDs, of *tiles* each at "
            "a complex gain of its own, and of the *mosaic* at one gain and one ramp; *at seams* where several tiles "
            f"are shown; rms phase errors within {NEAR} and beyond {FAR} camera pixels of the middle of a seam; the "
            "error's spectrum at the tiles' pitch, and twice and three times that, at most so many times what is "
            "beside it.",
            common.table(
                ("", "tiles", "mosaic", "at seams", "inside", "phase at seams", "inside, rad", "line", "s, 2 workers"),
                quality_rows,
            ),
            f"Time per megapixel of raw frames, {timed['leds']} LEDs, {timed['sweeps']} sweeps, one worker, everything "
            "included; the last from two rows of its tiles, extrapolated. Overlaps are solved by each tile that has "
            "them: *solved* says how often a frame's pixels are, and small frames have fewer borders inside.",
            common.table(
                ("frame", "tile", "solved, of its pixels", "s per megapixel", "s per megapixel solved"), time_rows
            ),
            f"Two workers solve {both['side']}² {both['speedup']:.2f} times as fast as one ({both['one_s']:.0f} → "
            f"{both['two_s']:.0f} s), {'to the same bytes' if both['identical'] else 'NOT to the same bytes'}. Whoever "
            f"gives tiles out needs {1e3 * planned['each_s']:.2g} ms for each of {planned['tiles']} empty ones, and a "
            f"call of a worker takes {1e3 * planned['call_s']:.2g} ms: tiles of {tile_s:.2g} s keep up to "
            f"{tile_s / planned['each_s']:.0f} workers busy.",
        ]
    )


if __name__ == "__main__":
    common.to_the_end(main)
