"""How good a reconstruction is: against a truth, against measurements it has not seen, and by what it takes to store.

A reconstruction's global phase is arbitrary and its amplitude scale a matter of units, so fields are compared after
one complex gain (:func:`align`); nothing else is fitted. ``fpmtools.evaluation`` gives every number by name.
"""

from fpmtools.metrics.focus import AllInFocus, all_in_focus
from fpmtools.metrics.images import (
    DataRange,
    align,
    complex_nrmse,
    phase_rmse_rad,
    quality,
    remove_tilt_of,
    structural_similarity,
)
from fpmtools.metrics.prediction import as_used, held_out_error, held_out_leds, prediction_error, residual
from fpmtools.metrics.resolution import (
    RingCorrelation,
    correlate_halves,
    half_data_correlation,
    half_solves,
    interleaved_halves,
    ring_correlation,
)
from fpmtools.metrics.size import planes_needed_um, sizes
from fpmtools.metrics.truth import Match, band_limit, composite, match, score

__all__ = [
    "AllInFocus",
    "DataRange",
    "Match",
    "RingCorrelation",
    "align",
    "all_in_focus",
    "as_used",
    "band_limit",
    "complex_nrmse",
    "composite",
    "correlate_halves",
    "half_data_correlation",
    "half_solves",
    "held_out_error",
    "held_out_leds",
    "interleaved_halves",
    "match",
    "phase_rmse_rad",
    "planes_needed_um",
    "prediction_error",
    "quality",
    "remove_tilt_of",
    "residual",
    "ring_correlation",
    "score",
    "sizes",
    "structural_similarity",
]
