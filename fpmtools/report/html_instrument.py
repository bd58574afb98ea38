"""What the report shows of the instrument: each LED's χ², the spectrum that they cover, pupil, board, what was kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibrate import NAMES
from fpmtools.calibration import JOINT, Calibration
from fpmtools.display import number as short
from fpmtools.optics import Optics, to_spectrum
from fpmtools.pupil import Pupil, polynomial_phase
from fpmtools.report.html_folder import Folder, Row, number
from fpmtools.report.html_images import coloured, gray, palette
from fpmtools.report.rendering import Rendered

MOST_LEDS = 2000
CHI2_MAP, PUPIL_MAP = "viridis", "coolwarm"
SPECTRUM_SIDE, PUPIL_SIDE = 360, 180  # pixels
DECADES = 4.0  # of a spectrum's power that are shown
MODES = {
    4: "defocus", 5: "astigmatism, oblique", 6: "astigmatism, vertical", 7: "coma, y", 8: "coma, x", 9: "trefoil, y",
    10: "trefoil, x", 11: "spherical", 12: "2nd astigmatism, vertical", 13: "2nd astigmatism, oblique",
    14: "quadrafoil, vertical", 15: "quadrafoil, oblique",
}  # fmt: skip
UNSEEN = 3  # modes: piston and tilt
LEAST_WAVES, LEAST_NA = 5e-4, 1e-6


def led_maps(folder: Folder) -> list[dict[str, Any]]:
    """For each data set whose images' χ² is known: a map of every solver, on one logarithmic scale."""
    found = []
    for data in folder.datasets:
        rows = [row for row in folder.of(data) if row.calibration is not None and any(row.chi2_per_led)]
        maps = [shown for row in rows if (shown := _led_map(row))]
        if maps:
            values = [dot["chi2"] for shown in maps for dot in shown["dots"] if dot["chi2"]]
            low, high = math.log10(min(1.0, *values)), math.log10(max(2.0, *values))
            colours = palette(CHI2_MAP)
            for dot in (dot for shown in maps for dot in shown["dots"]):
                share = (math.log10(dot["chi2"]) - low) / (high - low) if dot["chi2"] else None
                dot["colour"] = None if share is None else colours[round(share * (len(colours) - 1))]
            found.append({"data": data, "maps": maps, "low": 10**low, "high": 10**high, "colours": colours[::9]})
    return found


def _led_map(row: Row) -> dict[str, Any] | None:
    """Places, in units of the map's half side, as the image sees them: y downwards."""
    known, chi2 = row.calibration, row.chi2_per_led
    if known is None or len(chi2) != known.images:
        return None
    na, objective = known.image_na[:MOST_LEDS], 0.0 if row.optics is None else row.optics.na
    reach = 1.12 * max(float(np.abs(na).max()), objective, 1e-9)
    dots = [
        {"x": x / reach, "y": y / reach, "chi2": value if used and value and value > 0 else None,
         "label": f"image {k}: " + (f"χ² {value:.3g}" if used and value is not None else "left out")}
        for k, ((x, y), value, used) in enumerate(zip(na.tolist(), chi2, known.used.tolist(), strict=False))
    ]  # fmt: skip
    by = {name: row.number(key) for name, key in (("bright field", "chi2_bright"), ("dark field", "chi2_dark"))}
    return {
        "name": row.name,
        "dots": dots,
        "circle": objective / reach,
        "radius": float(np.clip(0.75 / math.sqrt(len(na)), 0.012, 0.07)),
        "means": ", ".join(f"{name} {value:.3g}" for name, value in by.items() if value is not None),
    }


def coverage(folder: Folder) -> list[dict[str, Any]]:
    """The spectrum of every result, and the pupil around each LED in it."""
    found = []
    for row in folder.rows:
        known, optics, rendered = row.calibration, row.optics, row.rendered
        if known is not None and optics is not None and isinstance(rendered, Rendered):
            found.append({"data": row.data, "name": row.name, **_coverage(known, optics, rendered)})
    return found


def _coverage(known: Calibration, optics: Optics, rendered: Rendered) -> dict[str, Any]:
    na = known.na[known.used] if known.patterns is None else known.na
    outer = float(optics.synthetic_na(na))
    reach = 1.06 * outer
    return {
        "uri": _spectrum(rendered.middle, rendered.grid.extent_um, reach / optics.wavelength_um),
        "circles": [{"x": x / reach, "y": y / reach} for x, y in na[:MOST_LEDS].tolist()],
        "pupil": optics.na / reach,
        "outer": outer / reach,
        "opacity": float(np.clip(16 / len(na), 0.1, 0.6)),
        "na": short(optics.na, 3),
        "synthetic_na": short(outer, 3),
        "half_pitch": f"{optics.wavelength_um / (2 * outer) * 1e3:.0f} nm",
        "leds": len(na),
    }


def _spectrum(field: NDArray[Any], extent_um: tuple[float, float], reach: float) -> str:
    """Log power of a field [y, x] under a Hann window to ± ``reach`` cycles/µm, square; black where it has none."""
    window = np.hanning(field.shape[0])[:, None] * np.hanning(field.shape[1])
    power = np.abs(to_spectrum((field - field.mean()) * window)) ** 2
    at = [
        np.round(np.linspace(-reach, reach, SPECTRUM_SIDE) * extent).astype(int) + n // 2
        for n, extent in zip(field.shape, extent_um, strict=True)
    ]
    rows, columns = np.meshgrid(*at, indexing="ij")
    inside = (rows >= 0) & (rows < field.shape[0]) & (columns >= 0) & (columns < field.shape[1])
    shown = np.where(inside, power[rows.clip(0, field.shape[0] - 1), columns.clip(0, field.shape[1] - 1)], 0)
    top = float(np.percentile(power, 99.9)) or 1.0
    return gray(1 + np.log10(np.maximum(shown / top, 10.0**-DECADES)) / DECADES)


def instruments(folder: Folder) -> list[dict[str, Any]]:
    """For each data set every different instrument that a result was solved with, and whose it is."""
    found = []
    for data in folder.datasets:
        seen: dict[str, list[Row]] = {}
        for row in folder.of(data):
            if row.calibration is not None:
                seen.setdefault(row.calibration.digest, []).append(row)
        told: dict[str, Any] = {}
        for rows in seen.values():
            known = rows[0].calibration
            if known is not None and (shown := _instrument(known, rows[0].optics)):
                new = {key: {} if value == told.get(key) else value for key, value in shown.items()}
                told |= shown  # what the one before has said already is not said again
                found.append({"data": data, "names": ", ".join(row.name for row in rows), **new})
    return found


def _instrument(known: Calibration, optics: Optics | None) -> dict[str, Any] | None:
    """Nothing where all is as it was given, and nothing was looked for."""
    joint = _mapping(known.found.get(JOINT))
    facts, groups = dict(_facts(known, optics, joint)), list(_groups(joint))
    pupil = _pupil(known.pupil)
    return {"facts": facts, "groups": groups, "pupil": pupil} if facts or groups or pupil else None


def _facts(known: Calibration, optics: Optics | None, joint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    moved = _mapping(joint.get("moved"))
    shifts = [_pair(found.get("shift_na")) for found in (_mapping(known.found.get("board")), moved)]
    x, y = (sum(shift[k] for shift in shifts) for k in (0, 1))
    if math.hypot(x, y) > LEAST_NA:
        yield "board's shift", f"NA ({_signed(x)}, {_signed(y)})"
    if (rest := number(moved.get("rest_na")) or 0.0) > LEAST_NA:
        yield "LEDs moved besides", f"NA {short(rest, 2)} rms"
    gain = _relative(known, None if "exposure" not in joint else optics)
    if (spread := float(gain.std())) > 1e-6:
        ends = " … ".join(short(float(end), 3) for end in (gain.min(), gain.max()))
        yield "LED gains", f"{ends}, ± {spread:.1%}" + (" within their field" if "exposure" in joint else "")
    if (exposure := number(joint.get("exposure"))) is not None:
        yield "dark field's exposure", f"× {short(exposure, 3)}"
    if known.background.any():
        yield (
            "background",
            f"{short(float(known.background.min()), 2)} … {short(float(known.background.max()), 3)} counts",
        )
    if known.stray is not None:
        count = len(known.stray.pictures)
        yield "stray light", f"{count} picture{'s' * (count > 1)} over the field"
    if known.pupil.stop is not None:
        cx, cy, radius, _ = known.pupil.stop
        yield "second aperture", f"radius {radius:.3g}, centre ({_signed(cx)}, {_signed(cy)}), of the pupil's"
    if (depth := number(joint.get("depth_um"))) is not None:
        yield "sample found at", f"{short(depth, 3)} µm"
    if known.pupil.softness:
        yield "pupil's edge", f"soft over {short(known.pupil.softness, 2)} samples of the spectrum"
    if margin := number(joint.get("margin")):
        yield "margin that is solved", f"{margin:g} camera pixels"
    if out := int((~known.used).sum()):
        yield "images left out", str(out)


def _relative(known: Calibration, optics: Optics | None) -> NDArray[np.float64]:
    """Gains over their mean; with ``optics`` over that of bright or dark field, which were exposed differently."""
    inside = np.ones(len(known.na), bool) if optics is None else np.linalg.norm(known.na, axis=1) <= optics.na
    means = {bright: float(known.gain[inside == bright].mean()) for bright in np.unique(inside).tolist()}
    return np.asarray(known.gain / np.array([means[bright] or 1.0 for bright in inside.tolist()]))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _pair(value: Any) -> tuple[float, float]:
    found = [number(one) for one in value] if isinstance(value, list) else []
    return (found[0] or 0.0, found[1] or 0.0) if len(found) == 2 else (0.0, 0.0)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _groups(joint: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What was looked for, whether it was kept, and the error of left-out images without it and with it."""
    for name, said in _mapping(joint.get("groups")).items():
        group = _mapping(said)
        sizes = (number(group.get(key)) for key in ("without", "with"))
        before, after = ("–" if size is None else f"{size:#.3g}" for size in sizes)
        yield {"what": NAMES.get(name, name), "kept": bool(group.get("kept")), "without": before, "with": after}


def _pupil(pupil: Pupil) -> dict[str, Any] | None:
    """Its phase as a picture, and its Zernike coefficients in waves rms."""
    waves = pupil.zernike_rad / (2 * np.pi)
    if not np.abs(waves[UNSEEN:]).max(initial=0.0) > LEAST_WAVES:
        return None
    side = np.linspace(-1, 1, PUPIL_SIDE)
    y, x = np.meshgrid(side, side, indexing="ij")
    phase = polynomial_phase(np.where(np.arange(len(waves)) < UNSEEN, 0, waves), y, x)
    inside = np.hypot(y, x) <= 1
    largest = float(np.abs(phase[inside]).max())
    named = [(j, MODES[j], float(waves[j - 1])) for j in MODES if j <= len(waves)]
    rest = waves[max(MODES) :]
    return {
        "uri": coloured(np.where(inside, 0.5 + phase / (2 * largest), 0.5), PUPIL_MAP),
        "largest": f"{largest:.2g}",
        "colours": palette(PUPIL_MAP)[::9],
        "rms": f"{float(np.linalg.norm(waves[UNSEEN:])):.3f}",
        "modes": [_mode(str(j), name, value, waves) for j, name, value in named if abs(value) >= LEAST_WAVES],
        "rest": f"{float(np.linalg.norm(rest)):.3f}" if len(rest) and np.abs(rest).max() >= LEAST_WAVES else "",
        "rest_of": f"{max(MODES) + 1}–{len(waves)}" if len(rest) > 1 else str(max(MODES) + 1),
    }


def _mode(j: str, name: str, value: float, waves: NDArray[np.float64]) -> dict[str, Any]:
    """A line of the table; its bar begins in the middle, ``left`` and ``width`` in percent."""
    share = 50 * value / float(np.abs(waves[UNSEEN:]).max())
    text = f"{value:+.3f}".replace("-", "−")
    return {"j": j, "name": name, "waves": text, "left": 50 + min(share, 0.0), "width": abs(share)}


def microscope(rows: Sequence[Row]) -> str:
    """The numbers of the set-up that a data set was measured with, in a line; empty where they are not known."""
    able = [(row, row.optics) for row in rows if row.optics is not None and isinstance(row.recorded("data"), dict)]
    if not able:
        return ""
    row, optics = able[0]
    about = row.recorded("data")
    waves = dict.fromkeys(short(of.wavelength_um * 1e3) for _, of in able)
    parts = [
        f"{short(optics.magnification)}×, NA {short(optics.na)}",
        f"λ {', '.join(waves)} nm",
        f"pixel {short(optics.pixel_um, 3)} µm",
    ]
    if row.calibration is not None:
        na = row.calibration.na
        steepest = short(float(np.linalg.norm(na, axis=1).max()), 3)
        parts.append(f"{len(na)} LEDs to NA {steepest}, synthetic NA {short(float(optics.synthetic_na(na)), 3)}")
    shape = about.get("image_shape")
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) for n in shape):
        size = " × ".join(short(n * optics.pixel_um, 3) for n in shape)
        parts.append(f"images {shape[0]} × {shape[1]}, {size} µm")
    return " · ".join(parts)
