"""Deliberate mistakes on measured and simulated data: does `fpmtools inspect` name the cause, and only then?

One row per mistake, one column per data set: ✓ the cause is named (as the first warning), ~ among others, ✗ it is not,
– it cannot be made or seen in these data. What is warned of in a data set as it is, is a false alarm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import common
import numpy as np

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


def simulated(seed: int) -> Iterator[tuple[str, Dataset]]:
    """Six samples and microscopes."""
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
    """A mark, and the names of what was said."""
    broken = mistake.make(data)
    if broken is None:
        return "–", []
    names = said(broken)
    return ("✓" if names and names[0] in mistake.names else "~" if set(names) & set(mistake.names) else "✗"), names


def main() -> None:
    """Try all, write ``mistakes.json``, print the table."""
    parser = common.parser(__doc__.splitlines()[0], repeats=2)
    common.measured_option(parser)
    args = parser.parse_args()
    if args.quick:
        sets, tried = [next(simulated(0))], MISTAKES[:2]
    else:
        sets = [*common.measured(args.measured), *(entry for seed in range(args.repeats) for entry in simulated(seed))]
        tried = MISTAKES
    found: common.Record = {}
    for name, data in sets:
        rows = {mistake.label: dict(zip(("mark", "said"), judge(mistake, data), strict=True)) for mistake in tried}
        found[name] = {"mistakes": rows, "alarms": [finding.name for finding in inspection.inspect(data).warnings]}
        print(f"{name}: named {_named(found[name])}", file=sys.stderr, flush=True)
    print(section(common.keep("mistakes", args, {"sets": found})))


def _named(entry: common.Record) -> str:
    marks = [row["mark"] for row in entry["mistakes"].values()]
    return f"{marks.count('✓') + marks.count('~')} of {len(marks) - marks.count('–')}"


def section(record: common.Record) -> str:
    """The record as Markdown."""
    sets = record["sets"]
    labels = next(iter(sets.values()))["mistakes"]
    rows = [(label, *(entry["mistakes"][label]["mark"] for entry in sets.values())) for label in labels]
    rows += [
        ("named", *(_named(entry) for entry in sets.values())),
        ("false alarms", *(", ".join(entry["alarms"]) or "none" for entry in sets.values())),
    ]
    return "\n\n".join(
        (
            "✓ the cause is the first thing that `fpmtools inspect` warns of, ~ it is among others, ✗ it is not named, "
            "– it cannot be made or seen in these data. Simulated sets have the number of their seed.",
            common.table(("mistake", *sets), rows),
        )
    )


if __name__ == "__main__":
    common.to_the_end(main)
