"""What a joint fit has found, in words: a line for each group with its verdict, and the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fpmtools.calibrate import NAMES
from fpmtools.calibration import JOINT, Calibration


def told(found: Calibration, start: Calibration | None = None) -> Iterator[str]:
    """Lines about ``found``; where the fit's ``start`` is known also by how much the instrument has changed."""
    report = found.found.get(JOINT)
    if report is None:
        yield "nothing is looked for: not asked for, too few or too small images, patterns, or no bright field"
        return
    yield f"error of the bright field: {report['explained']:.3g} × what noise alone makes"
    if "fitted" not in report:
        yield "the images agree with what is known of the instrument: there is nothing to find"
    elif "diverged" in report:
        yield f"the fit went astray, and nothing is changed: {report['diverged']}"
    else:
        yield from _verdicts(report)
        yield from _numbers(report)
        if start is not None:
            yield _changed(found, start)


def _verdicts(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"error of left-out images: {report['nominal']:.3g} → {report['fitted']:.3g}; of it, without and with"
    if not report["groups"]:
        yield "  the sample has depth, and nothing that is looked for promises to explain the images better"
    for name, group in report["groups"].items():
        verdict = "kept" if group["kept"] else "went astray" if "diverged" in group else "not kept"
        yield f"  {NAMES[name]:<40} {group['without']:.3g} → {group['with']:.3g}  {verdict}"


def _numbers(report: Mapping[str, Any]) -> Iterator[str]:
    if values := report["singular_values"]:
        sure = sum(value > 1 for value in values)
        yield f"board and pupil: {sure} of {len(values)} combinations of numbers are told by the images"
        yield f"  (singular values {values[0]:.2g} to {values[-1]:.2g}; 1: what is expected of any microscope)"
    if "exposure" in report:
        yield f"the dark field's exposure: {report['exposure']:.3g} × the bright field's"
    if "depth_um" in report:
        yield f"the sample is at z = {report['depth_um']:.3g} µm"
    yield f"edge of the pupil: {report['softness'] or 'sharp'}{' Fourier pixels soft' if report['softness'] else ''}"
    yield f"margin: {report['margin']} camera pixels beyond the border"
    if shares := report.get("residual"):
        shown = ", ".join(f"{share:.1%}" for share in shares)
        yield f"what is left, its first pictures over the LEDs: {shown} of the squared error"


def _changed(found: Calibration, start: Calibration) -> str:
    count = len(found.pupil.zernike_rad)
    before = np.pad(start.pupil.zernike_rad[:count], (0, max(count - len(start.pupil.zernike_rad), 0)))
    rms = np.sqrt(np.square(found.pupil.zernike_rad[3:] - before[3:]).sum())
    moved = np.linalg.norm(found.na - start.na, axis=1)
    return (
        f"pupil: {rms / (2 * np.pi):.3g} waves rms; LEDs moved by NA {np.sqrt(np.square(moved).mean()):.3g} rms; "
        f"gains ± {100 * np.std(np.log(found.gain)):.2g} %"
    )
