"""Deliberate mistakes on measured and simulated data: does `fpmtools inspect` name the cause, and only then?

    python benchmarks/mistakes.py [--seeds 0,1] [--measured FOLDER] [--json FILE]

One row per mistake, one column per data set: ✓ the cause is named (as the first warning), ~ among others, ✗ it is not,
– it cannot be seen in these data. What is warned of in a data set as it is, is a false alarm.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import fpmtools
from fpmtools.calibrate import inspection
from fpmtools.dataset import Dataset
from fpmtools.simulation import simulate


@dataclass(frozen=True)
class Mistake:
    """``names``: the findings that name it; ``make``: the data set with it, or None where it cannot be made or seen."""

    label: str
    names: tuple[str, ...]
    make: Callable[[Dataset], Dataset | None]


def na(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Dataset], Dataset]:
    return lambda data: data.with_calibration(na=change(data.na))


def optics(**factors: float) -> Callable[[Dataset], Dataset | None]:
    def make(data: Dataset) -> Dataset | None:
        changed = data.with_optics(**{name: getattr(data.optics, name) * f for name, f in factors.items()})
        return changed if changed.optics.pixel_um * changed.optics.cutoff <= 0.5 else None

    return make


def order(
    change: Callable[[np.ndarray], np.ndarray | None], *, seen: bool = True
) -> Callable[[Dataset], Dataset | None]:
    def make(data: Dataset) -> Dataset | None:
        index = change(np.arange(data.n_images))
        if index is None:
            return None
        # On a board that looks the same from the other side, the reverse order is a board turned by 180°.
        turned = data.na[index]
        if any(np.abs(turned - sign * data.na).max() < 0.02 * data.optics.na for sign in (1, -1)):
            return None
        return replace(data, images=data.images.select(index))

    return make


def transposed(index: np.ndarray) -> np.ndarray | None:
    side = round(len(index) ** 0.5)
    return index.reshape(side, side).T.ravel() if side**2 == len(index) else None


def text(index: np.ndarray) -> np.ndarray:
    return np.array([int(name) - 1 for name in sorted(str(i + 1) for i in index)])


def values(
    change: Callable[[np.ndarray], np.ndarray], *, dark_field: bool = False
) -> Callable[[Dataset], Dataset | None]:
    def make(data: Dataset) -> Dataset | None:
        if dark_field and (~data.bright_field).sum() < 8:
            return None
        return data.with_images(change(np.maximum(data.intensities.astype(np.float64), 0)))

    return make


def offset(share: float) -> Callable[[Dataset], Dataset | None]:
    """A dark level, as a share of the brightest image's mean."""
    return values(lambda images: images + share * images.mean(axis=(1, 2)).max(), dark_field=True)


def shift(x: float, y: float) -> Callable[[Dataset], Dataset]:
    return lambda data: data.with_calibration(na=data.na + np.array([x, y]) * data.optics.na)


ORDER, TURN, LIGHT = ("file order",), ("orientation",), ("values",)
PIXEL = ("pixel size or wavelength",)
MISTAKES = [
    Mistake("sign of x", TURN, na(lambda p: p * [-1, 1])),
    Mistake("sign of y", TURN, na(lambda p: p * [1, -1])),
    Mistake("x and y swapped", TURN, na(lambda p: p[:, ::-1])),
    Mistake("turned by 90°", TURN, na(lambda p: p[:, ::-1] * [1, -1])),
    Mistake("order reversed", ORDER, order(lambda i: i[::-1])),
    Mistake("order transposed", (*ORDER, *TURN), order(transposed)),
    Mistake("order one later", (*ORDER, "board"), order(lambda i: np.roll(i, 1))),
    Mistake("order one earlier", (*ORDER, "board"), order(lambda i: np.roll(i, -1))),
    Mistake("order as text", ORDER, order(text)),
    *(Mistake(f"pixel × {f:g}", PIXEL, optics(camera_pixel_um=f)) for f in (0.5, 0.8, 1.2, 1.5)),
    *(Mistake(f"NA × {f:g}", ("objective's NA",), optics(na=f)) for f in (0.75, 0.8, 1.25)),
    *(Mistake(f"λ × {f:g}", PIXEL, optics(wavelength_um=f)) for f in (0.83, 1.2)),
    *(Mistake(f"height × {f:g}", ("height of the LEDs",), na(lambda p, f=f: p / f)) for f in (0.75, 0.8, 1.25, 1.5)),
    *(Mistake(f"board off {x:g}, {y:g} NA", ("board",), shift(x, y)) for x, y in ((0.2, 0), (-0.3, 0.4), (0.57, 0.1))),
    Mistake("amplitude as intensity", LIGHT, values(np.sqrt, dark_field=True)),
    Mistake("intensity as amplitude", LIGHT, values(np.square, dark_field=True)),
    *(Mistake(f"dark level {f:.0%} forgotten", ("dark level",), offset(f)) for f in (0.02, 0.06)),
]


def measured(folder: Path) -> Iterator[tuple[str, Dataset]]:
    os.environ["FPMTOOLS_DATA"] = str(folder)
    names = ("uconn_red", "uconn_green", "uconn_blue", "uconn_aberration", "thu_phase_target")
    for name in names:
        try:
            yield name, fpmtools.load(name)
        except fpmtools.errors.DataError:
            continue
    if (folder / "elfpie_usaf").is_dir():
        numbers = {"wavelength_um": 0.532, "na": 0.1, "magnification": 4, "camera_pixel_um": 4.6}
        yield "elfpie", fpmtools.load(folder / "elfpie_usaf", optics=numbers)


def simulated(seed: int) -> Iterator[tuple[str, Dataset]]:
    grid = {"leds": "grid", "upsample": 4, "image_shape": (96, 112), "seed": seed}
    yield f"grid {seed}", simulate("thin", photons=500, surround=3, **grid)
    yield f"bars {seed}", simulate("bars", photons=500, **grid)
    yield f"noisy {seed}", simulate("thin", photons=15, read_noise=2, **grid)
    yield f"aberrated {seed}", simulate("phase", photons=200, surround=3, aberration_rad=1.5, defocus_um=30, **grid)
    gains = simulate("thin", photons=500, vignetting=0.3, misaligned_na=0.004, **grid)
    factors = np.exp(0.15 * np.random.default_rng(seed).normal(size=gains.n_images))
    yield f"gains {seed}", gains.with_images(gains.intensities * factors[:, None, None])
    yield f"rings {seed}", simulate("tilted", photons=500, image_shape=(96, 112), seed=seed)


def said(data: Dataset) -> list[str]:
    """Names of the warnings; a dark level counts also where it is only noted."""
    found = inspection.inspect(data).findings
    return [f.name for f in found if f.severity == "warning"] + [
        f.name for f in found if f.severity == "note" and f.name in ("dark level", "values")
    ]


def judge(mistake: Mistake, data: Dataset) -> tuple[str, list[str]]:
    broken = mistake.make(data)
    if broken is None:
        return "–", []
    names = said(broken)
    return ("✓" if names and names[0] in mistake.names else "~" if set(names) & set(mistake.names) else "✗"), names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--measured", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    sets = list(measured(chosen.measured)) if chosen.measured.is_dir() else []
    sets += [entry for seed in map(int, filter(None, chosen.seeds.split(","))) for entry in simulated(seed)]
    rows: dict[str, dict[str, tuple[str, list[str]]]] = {mistake.label: {} for mistake in MISTAKES}
    alarms: dict[str, list[str]] = {}
    for name, data in sets:
        start = time.perf_counter()
        for mistake in MISTAKES:
            rows[mistake.label][name] = judge(mistake, data)
        alarms[name] = [f.name for f in inspection.inspect(data).warnings]
        marks = [rows[m.label][name][0] for m in MISTAKES]
        named, seen = marks.count("✓") + marks.count("~"), len(marks) - marks.count("–")
        false, seconds = ", ".join(alarms[name]) or "none", time.perf_counter() - start
        print(f"{name:<18} named {named} of {seen}; false alarms: {false} ({seconds:.0f} s)", flush=True)
        for mistake in MISTAKES:
            mark, names = rows[mistake.label][name]
            if mark in "✗~":
                print(f"    {mark} {mistake.label}: {', '.join(names) or 'nothing said'}", flush=True)
    width = max(map(len, rows))
    print()
    for label, row in rows.items():
        print(f"{label:<{width}}  {'  '.join(mark for mark, _ in row.values())}")
    if chosen.json:
        chosen.json.write_text(json.dumps({"mistakes": rows, "alarms": alarms}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
