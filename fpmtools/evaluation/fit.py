"""Whether a result explains the images that it was made from, and if not, what the likely causes are, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fpmtools.dataset import Dataset
    from fpmtools.evaluation import Case

BAD = 5.0  # χ² of the bright or of the dark field
APART = 4.0  # times the mean of its class: an image that is named
NAMED = 3  # of these at most
OF_DARK_FIELD = {"dark level", "exposure"}  # findings that are causes there even where they are no warnings


def judge(case: Case, *, early: bool = False) -> str:
    """One line when the fit is bad; empty when it is good, or when there is no noise to judge it by.

    ``early``: the solver was stopped before it was done.
    """
    chi2 = case.residual["chi2"]
    if chi2 is None:
        return ""
    bad = {name: chi2[name] for name in ("bright", "dark") if chi2[name] is not None and chi2[name] > BAD}
    if not bad:
        return ""
    said = " and ".join(f"{value:.3g} in {name} field" for name, value in bad.items())
    worst = _worst(case, chi2["per_led"])
    likely = "; ".join(["the solver was stopped early"] if early else causes(case, list(bad)))
    return f"the fit is bad: χ² is {said}, where noise alone makes 1{worst}; likely: {likely}"


def causes(case: Case, lights: Sequence[str]) -> list[str]:
    """What is known to be wrong with the data that could spoil ``lights``; where nothing is, what else may be."""
    from fpmtools.calibrate.inspection import inspect
    from fpmtools.metrics import as_used

    seen: Dataset = as_used(case.reconstruction, case.dataset)
    found = inspect(seen).findings
    wrong = [finding.meaning for finding in found if finding.severity == "warning"]
    dark = [finding.meaning for finding in found if finding.severity == "note" and finding.name in OF_DARK_FIELD]
    dark = dark if "dark" in lights else []
    others = [] if wrong or (dark and "bright" not in lights) else [", ".join(_suspects(case, seen))]
    return [*wrong, *dark, *others]


def _suspects(case: Case, seen: Dataset) -> list[str]:
    from fpmtools.calibration import JOINT
    from fpmtools.sampling import repeats

    known, suspects = seen.calibration, list[str]()
    if known.pupil.ideal:
        suspects.append("aberrations of the lens")
    if known.defocus_um is None:
        suspects.append("another focus")
    looked = "" if JOINT in known.found else " (the option calibrate looks for it)"
    suspects.append(f"LEDs that stand elsewhere or differ in brightness{looked}")
    if not any(case.reconstruction.grid.margin_um) and not repeats(case.dataset):
        suspects.append("light that crosses the borders (the option margin)")
    return [*suspects, "a thick sample"]


def _worst(case: Case, per_led: Sequence[float]) -> str:
    """The images that stand out of their class, in words."""
    values, bright = np.nan_to_num(np.asarray(per_led)), case.dataset.bright_field
    apart = np.zeros(len(values), bool)
    for part in (bright, ~bright):
        if part.any():
            apart |= part & (values > APART * values[part].mean())
    out = [i for i in np.argsort(-values).tolist() if apart[i]][:NAMED]
    if not out:
        return ""
    return f", worst in image{'s' if len(out) > 1 else ''} {', '.join(str(i) for i in out)}"
