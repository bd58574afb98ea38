"""What was found, in words: one finding for each thing that was looked at, with what it means and what to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fpmtools.calibrate import geometry
from fpmtools.calibrate.dark import Camera
from fpmtools.calibrate.geometry import Geometry
from fpmtools.calibrate.light import Light
from fpmtools.dataset import Dataset
from fpmtools.noise import Noise
from fpmtools.optics import aperture_overlap

SEVERITIES = ("ok", "note", "warning")
OFFSET_SURE = 4.0  # standard deviations of an offset that is believed
OFFSET_NOTED, OFFSET_WRONG = 0.15, 0.5  # of a typical dark-field image
SHIFT_NOTED = 0.03  # of the objective's NA
SATURATED = 1e-3  # of an image's pixels
LONGER = 3.0  # exposure ratio of the dark field that is told of
FEW_BRIGHT = 4  # images


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    ``value`` and ``sure`` are short, for a table; ``meaning`` and ``advice`` are sentences, empty where all is well.
    ``numbers`` are JSON-ready.
    """

    name: str
    value: str
    sure: str = ""
    severity: str = "ok"
    meaning: str = ""
    advice: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


def has_offset(camera: Camera) -> bool:
    """Whether there is a dark level that must be subtracted."""
    sure = camera.offset > OFFSET_SURE * camera.offset_spread
    return bool(sure and camera.offset_share > OFFSET_NOTED)


def of_geometry(dataset: Dataset, found: Geometry) -> list[Finding]:
    """Order of the files, orientation, sizes, and where the board stands."""
    if dataset.calibration.patterns is not None:
        return [Finding("geometry", "not looked at", meaning="images are lit by several LEDs at once")]
    findings = [_order(found)]
    if not found.order and not found.unexplained:
        findings += [_orientation(found), _size(dataset, found), _board(dataset, found)]
    bright = int(found.board.bright.sum())
    if bright < FEW_BRIGHT:
        findings.append(
            Finding(
                "bright field",
                f"{bright} images",
                severity="warning",
                meaning=f"only {bright} images let direct light in: hardly anything can be checked, or calibrated",
                advice="check the LED positions and the NA, or take more bright-field images",
            )
        )
    return findings


def _order(found: Geometry) -> Finding:
    numbers = {"rank_correlation": found.correlation, "misfit_leds": found.board.misfit}
    if found.order:
        return Finding(
            "file order",
            "wrong",
            f"{found.board.misfit:.0f} LEDs contradicted",
            "warning",
            f"{found.order}: so put right, images and LED positions agree, and in the order given they do not",
            "put files or LED positions into the same order",
            numbers,
        )
    if found.unexplained:
        return Finding(
            "file order",
            "unexplained",
            f"{found.board.misfit:.0f} LEDs contradicted",
            "warning",
            "which images are bright agrees with no shift, size or common order of these LED positions "
            f"(rank correlation of brightness with |NA| {found.correlation:.2f}, −0.9 is right)",
            "check the order of the files, and whether the LED positions are those of this board",
            numbers,
        )
    return Finding("file order", "as given", f"rank correlation {found.correlation:.2f}", numbers=numbers)


def _orientation(found: Geometry) -> Finding:
    discs = found.discs
    if discs is None or not found.strong:
        few = "too few bright-field images" if discs is None else "the spectra agree with none clearly"
        return Finding("orientation", "not seen", few, "note", "which way the board is turned cannot be told", "")
    numbers = {"scores": discs.scores, "margin": discs.margin, "strength": discs.strength}
    sure = f"{discs.strength:.1f} σ over {discs.images} images"
    if found.orientation == "as given":
        return Finding("orientation", "as given (or turned by 180°, which looks the same)", sure, numbers=numbers)
    causes = {
        "mirrored": "the sign of x or the sign of y is wrong (which of the two cannot be seen)",
        "x and y exchanged": "x and y are exchanged, or the files run along columns where the LEDs run along rows",
        "turned by 90°": "x and y are exchanged and one of the signs is wrong",
    }
    return Finding(
        "orientation",
        found.orientation,
        f"{discs.margin:.1f} σ better over {discs.images} images",
        "warning",
        f"the LED board is {found.orientation.replace('x and y exchanged', 'transposed')} against the images: "
        f"{causes[found.orientation]}",
        "turn the LED positions (axes of the board), or the images; if nothing gets sharp, the other sign",
        numbers,
    )


def _size(dataset: Dataset, found: Geometry) -> Finding:
    optics, discs, f = dataset.optics, found.discs, found.factor
    numbers: dict[str, Any] = {"cause": found.cause, "factor": f, "chi2": found.sure}
    value, sure = "not seen", ""
    if discs is not None and found.strong:
        numbers |= {"radius": discs.radius, "scale": discs.scale}
        value = f"pupil × {discs.radius:.2f}, LEDs × {discs.scale:.2f} of what is given"
        spread = max(discs.radius_spread, discs.scale_spread)
        sure = f"± {max(spread, geometry.SCALE_ERROR):.0%}" if spread < 1 else ""
    elif found.board.informative:
        numbers["radius"] = found.board.radius
        value = f"bright region × {found.board.radius:.2f} of what is given"
        sure = f"± {found.board.radius_spread:.0%}"
    if not found.cause:
        return Finding("sizes", value, sure, numbers=numbers)
    words = {
        "pixel": (
            "pixel size or wavelength",
            f"in the spectra pupil and LEDs are both {f:.2f} times as far out as they should be: pixel / wavelength is "
            f"wrong (a pixel is {optics.pixel_um * f:.3g} µm on the sample, or the wavelength "
            f"{optics.wavelength_um / f:.3g} µm)",
            "check camera pixel, magnification (binning!) and wavelength",
        ),
        "na": (
            "objective's NA",
            f"the pupil is {f:.2f} times as large as given, while the LEDs are where they should be: the NA is about "
            f"{optics.na * f:.3g} and not {optics.na:g}",
            "give the NA of the objective (its aperture stop may be closed)",
        ),
        "height": (
            "height of the LEDs",
            f"the LEDs are {1 / f:.2f} times as far out as given, while the pupil is right: the board is {f:.2f} times "
            "as high as given, or its pitch is another",
            "check height and pitch of the LED board",
        ),
        "radius": (
            "NA or height of the LEDs",
            f"bright field reaches {f:.2f} times as far out as it should: the NA is about {optics.na * f:.3g}, or the "
            f"board is {f:.2f} times as high as given",
            "check the NA, and height and pitch of the LED board",
        ),
    }
    name, meaning, advice = words[found.cause]
    return Finding(name, f"× {f:.2f}", f"{math.sqrt(found.sure):.0f} σ", "warning", meaning, advice, numbers)


def _board(dataset: Dataset, found: Geometry) -> Finding:
    na = dataset.optics.na
    x, y = found.shift_na
    distance = math.hypot(x, y)
    if not math.isfinite(found.shift_spread_na):
        return Finding("board", "not seen", severity="note", meaning="where the board stands cannot be told")
    value = f"shifted by NA ({x:+.4f}, {y:+.4f})"
    sure = f"± {found.shift_spread_na:.4f}"
    numbers = {"shift_na": [x, y], "spread_na": found.shift_spread_na}
    if found.moved(na):
        order = _one_step(dataset, x, y)
        return Finding(
            "board",
            value,
            sure,
            "warning",
            f"the LED board is off the axis by {distance / na:.2f} of the objective's NA (or the sample has a wedge)"
            f"{order}",
            "let it be calibrated, or give the board's offset",
            numbers,
        )
    if distance > max(SHIFT_NOTED * na, 3 * found.shift_spread_na):
        return Finding("board", value, sure, "note", "a little off the axis", "calibration takes it up", numbers)
    return Finding("board", "centred", sure, numbers=numbers)


def _one_step(dataset: Dataset, x: float, y: float) -> str:
    """A remark where the shift is that from one LED to the next: then the files may be off by one."""
    steps = np.diff(dataset.calibration.image_na, axis=0)
    if len(steps) < 2:
        return ""
    step = np.median(steps, axis=0)
    pitch = float(np.linalg.norm(step))
    off = min(float(np.linalg.norm(np.array([x, y]) - sign * step)) for sign in (1, -1))
    near = pitch > 0 and off < 0.2 * pitch
    return ", which is the step from one LED to the next: or all files are one place off" if near else ""


def of_values(values: Light) -> Finding:
    """Whether the images are intensities."""
    numbers = {"kind": values.kind, "gain": values.gain}
    if values.kind in ("amplitude", "squared"):
        words = {
            "amplitude": ("amplitudes", "these are amplitudes (square roots of intensities)", "square the images"),
            "squared": ("squared", "these are intensities squared once more", "take the square root of the images"),
        }
        value, meaning, advice = words[values.kind]
        reason = "noise that does not grow with brightness" if values.by_noise else "dark field against bright field"
        return Finding(
            "values",
            value,
            reason,
            "note" if values.by_noise else "warning",
            f"{meaning}, by {reason}",
            advice,
            numbers,
        )
    if values.kind == "intensity":
        return Finding("values", "intensities", numbers=numbers)
    if values.exposure is None:
        return Finding("values", "not checked", "too little dark field", numbers=numbers)
    return Finding(
        "values",
        "not explained",
        f"slope {values.exposure.slope:.2f}, ratio {values.exposure.ratio:.2g}",
        "note",
        "the dark field does not follow from the bright field as intensities do",
        "check dark level, exposures, and that values are linear in light",
        numbers,
    )


def of_offset(camera: Camera) -> Finding:
    """The camera's dark level."""
    if not math.isfinite(camera.offset):
        return Finding("dark level", "not seen", "too few dark-field images")
    numbers = {"offset": camera.offset, "spread": camera.offset_spread, "share": camera.offset_share}
    if not has_offset(camera):
        return Finding("dark level", "none left", f"± {camera.offset_spread:.2g}", numbers=numbers)
    return Finding(
        "dark level",
        f"{camera.offset:.3g}",
        f"± {camera.offset_spread:.2g}",
        "warning" if camera.offset_share > OFFSET_WRONG else "note",
        f"all dark-field images have {camera.offset:.3g} even where nothing shines, {camera.offset_share:.0%} of a "
        "typical one's mean: the camera's dark level, or stray light",
        "subtract it (the option dark level)",
        numbers,
    )


def of_exposure(values: Light) -> list[Finding]:
    """The step between bright and dark field."""
    if values.exposure is None or values.kind in ("amplitude", "squared"):
        return []
    ratio = values.exposure.ratio
    numbers = {"ratio": ratio, "slope": values.exposure.slope, "images": values.exposure.images}
    sure = f"× or ÷ {math.exp(max(values.exposure.ratio_spread, 0.4)):.1f}"
    if ratio > LONGER:
        return [
            Finding(
                "exposure",
                f"dark field × {ratio:.2g}",
                sure,
                "note",
                f"the dark field is about {ratio:.2g} times as bright as the bright field predicts: exposed longer?",
                "give exposures or gains of the LEDs, or let them be calibrated",
                numbers,
            )
        ]
    return [Finding("exposure", f"dark field × {ratio:.2g} of the prediction", sure, numbers=numbers)]


def of_camera(camera: Camera) -> list[Finding]:
    """Saturation, pixels that stick out, images without light."""
    findings = []
    worst = float(camera.saturated.max())
    if worst > 0:
        count = int((camera.saturated > 0).sum())
        findings.append(
            Finding(
                "saturation",
                f"{worst:.2%} of the worst image",
                f"{count} images",
                "note" if worst > SATURATED else "ok",
                f"image {int(camera.saturated.argmax())} has {worst:.2%} of its pixels at {camera.top:g}",
                "expose less; such pixels can be masked",
                {"worst": worst, "images": count, "top": camera.top},
            )
        )
    else:
        findings.append(Finding("saturation", "none"))
    if camera.hot or camera.dead:
        findings.append(
            Finding(
                "pixels",
                f"{camera.hot} hot, {camera.dead} dead",
                "",
                "note",
                "single pixels stick out of all their neighbours in every image",
                "mask them, or choose another region",
                {"hot": camera.hot, "dead": camera.dead},
            )
        )
    if camera.empty.any():
        count = int(camera.empty.sum())
        findings.append(
            Finding(
                "empty images",
                f"{count} of {len(camera.empty)}",
                "",
                "note",
                f"{count} dark-field images hold nothing but noise: they cost time and add none of the detail",
                "leave them out, or expose them longer",
                {"images": np.flatnonzero(camera.empty).tolist()},
            )
        )
    return findings


def of_noise(noises: Noise, found: Geometry) -> Finding:
    """Photons and read noise."""
    bright = found.board.bright
    photons = float(np.median(noises.photons_per_unit[bright])) if bright.any() else math.inf
    read = float(np.median(noises.read_noise))
    light_level = photons * found.board.level
    known = math.isfinite(light_level)
    value = f"{light_level:.2g} photons in a bright pixel, read noise {read:.2g}" if known else f"constant, {read:.2g}"
    sure = f"× or ÷ {math.exp(max(noises.scatter, 0.05)):.2f}"
    if not noises.one_law:
        sure += ", exposures differ"
    numbers = {"photons_per_unit": photons, "read_noise": read, "one_law": noises.one_law, "exponent": noises.exponent}
    return Finding("noise", value, sure, numbers=numbers)


def of_sampling(dataset: Dataset) -> list[Finding]:
    """Overlap of the pupils, and the camera's pixels."""
    optics = dataset.optics
    overlap = aperture_overlap(dataset.na, optics.na)
    nyquist = optics.wavelength_um / (4 * optics.na)  # intensities reach 2 NA / λ
    pixel = optics.pixel_um
    low = overlap < 0.3
    findings = [
        Finding(
            "overlap",
            f"{overlap:.0%} of neighbouring pupils",
            "",
            "warning" if low else "ok",
            f"neighbouring LEDs share only {overlap:.0%} of the pupil; about 35 % is needed" if low else "",
            "use a finer pitch or a larger distance" if low else "",
            {"overlap": overlap},
        )
    ]
    coarse = pixel > nyquist * (1 + 1e-9)
    findings.append(
        Finding(
            "sampling",
            f"pixel {pixel:.3g} µm, λ/(4 NA) = {nyquist:.3g} µm",
            "",
            "note" if coarse else "ok",
            "the camera's pixels are larger than intensities need; fields need λ/(2 NA)" if coarse else "",
            "solvers take that into account" if coarse else "",
            {"pixel_um": pixel, "nyquist_um": nyquist},
        )
    )
    return findings
