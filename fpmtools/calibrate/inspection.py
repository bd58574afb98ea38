"""Everything that the images say about themselves and the instrument without a solve."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fpmtools import noise
from fpmtools.calibrate import dark, findings, geometry, light
from fpmtools.calibrate.brightness import fit_board
from fpmtools.calibrate.dark import Camera
from fpmtools.calibrate.findings import Finding
from fpmtools.calibrate.geometry import Geometry
from fpmtools.calibrate.light import Light
from fpmtools.dataset import Dataset, expect_dataset
from fpmtools.display import Shown
from fpmtools.noise import Noise

LARGE, REGION = 1 << 22, 1024  # pixels of a frame of which only a region is looked at; pixels along its axes


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(Shown):
    """The findings of a data set, worst first, and what they rest on.

    ``corrections``: what should be given in place of what was: numbers of the optics, ``dark_level``.
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    geometry: Geometry
    camera: Camera
    noise: Noise
    light: Light
    corrections: dict[str, float]
    drawn_by = "fpmtools.report.notebook:inspection"

    def heading(self) -> str:
        """With the data set's name."""
        return f"Inspection of {self.dataset.name!r}"

    def facts(self) -> dict[str, str]:
        """Every finding, with its meaning where it is not in order."""
        facts = {finding.name: finding.value for finding in self.findings}
        for finding in self.findings:
            said = "; ".join(filter(None, [finding.meaning, finding.advice]))
            if finding.severity != "ok" and said:
                facts[finding.name] += f" ({finding.severity}: {said})"
        return facts

    @property
    def warnings(self) -> list[Finding]:
        """Those that make pictures wrong."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    def to_dict(self) -> dict[str, Any]:
        """Everything found, JSON-ready."""
        discs, board = self.geometry.discs, self.geometry.board
        return {
            "name": self.dataset.name,
            "findings": [asdict(finding) for finding in self.findings],
            "orientations": {} if discs is None else discs.scores,
            "bright_field": np.flatnonzero(board.bright).tolist(),
            "empty": np.flatnonzero(self.camera.empty).tolist(),
            "saturated": {str(i): float(self.camera.saturated[i]) for i in np.flatnonzero(self.camera.saturated)},
            "corrections": self.corrections,
        }


def inspect(dataset: Dataset) -> Inspection:
    """What the images say of themselves and of the instrument, without a solve.

    Orientation of the LED board, order of the files, pixel size, NA, height and shift of the board, amplitudes given
    for intensities, dark level, exposure, noise, saturation. Nothing is changed.

    Parameters
    ----------
    dataset
        Images as they were read. Of frames beyond 4 megapixels a region of 1024² is looked at, which ``region`` names.

    Returns
    -------
    Inspection
        ``findings``, worst first, ``warnings`` among them, ``corrections``: numbers to give in place of those given.

    Raises
    ------
    OptionError
        Not a :class:`Dataset`.

    Examples
    --------
    >>> data = fpmtools.simulate("thin", image_shape=(64, 64), leds="grid", upsample=3)
    >>> found = fpmtools.inspect(data)
    >>> found.corrections, [finding.name for finding in found.warnings]
    ({}, [])
    """
    expect_dataset(dataset, "inspect: dataset")
    whole, dataset = dataset, representative(dataset)
    camera = dark.examine(dataset, fit_board(dataset).bright)
    offset = camera.offset if findings.has_offset(camera) else 0.0
    found = geometry.examine(dataset, offset)
    noises = noise.measure(dataset)
    values = Light("", 0.0, None)
    if not found.order and not found.unexplained and dataset.calibration.patterns is None:
        values = light.judge(found.corrected(dataset), offset, noises)
    corrections = _corrections(dataset, found, offset)
    said = [
        *findings.of_geometry(dataset, found),
        findings.of_values(values),
        findings.of_offset(camera),
        *findings.of_exposure(values),
        *findings.of_camera(camera),
        findings.of_noise(noises, found),
        *findings.of_sampling(dataset),
    ]
    if dataset is not whole:
        said.append(_region(dataset))
    said.sort(key=lambda finding: -findings.SEVERITIES.index(finding.severity))
    return Inspection(dataset, tuple(said), found, camera, noises, values, corrections)


def representative(dataset: Dataset) -> Dataset:
    """Of a large frame the region where the brightest image varies most, by every fourth pixel of it; else all."""
    (h, w), side = dataset.image_shape, REGION
    if h * w <= LARGE:
        return dataset
    image = dataset.images[int(np.argmax(dataset.images.means))]
    height, width = min(h, side), min(w, side)
    places = [
        (y, x)
        for y in np.linspace(0, h - height, -(-h // side)).astype(int).tolist()
        for x in np.linspace(0, w - width, -(-w // side)).astype(int).tolist()
    ]
    y, x = max(places, key=lambda at: float(image[at[0] : at[0] + height : 4, at[1] : at[1] + width : 4].std()))
    return replace(dataset, truth=None).crop(y, x, height, width)


def _region(dataset: Dataset) -> Finding:
    y, x, height, width = dataset.box
    return Finding("region", f"{height} × {width} pixels at y {y}, x {x}", numbers={"roi_yxhw": [y, x, height, width]})


def brief(dataset: Dataset) -> list[str]:
    """One line for each thing that is clearly wrong, as every run says it; empty when nothing is."""
    dataset = representative(dataset)
    found = geometry.examine(dataset, thorough=False)
    wrong = [finding for finding in findings.of_geometry(dataset, found) if finding.severity == "warning"]
    return [f"{finding.name}: {finding.meaning}; {finding.advice}" for finding in wrong]


def _corrections(dataset: Dataset, found: Geometry, offset: float) -> dict[str, float]:
    out = {}
    if found.cause == "na":
        out["na"] = round(dataset.optics.na * found.factor, 4)
    if offset:
        out["dark_level"] = float(f"{offset + float(dataset.provenance.get('dark_level', 0.0)):.3g}")
    return out
