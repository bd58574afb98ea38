"""Every number that can be computed of a reconstruction, by name: the built-in metrics' records, and ``evaluate``.

A metric is a plugin's record like a solver; those here come through the same door, the entry point ``metrics``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fpmtools import registry
from fpmtools.errors import DataError, OptionError, expect
from fpmtools.records import MetricRecord

if TYPE_CHECKING:
    from fpmtools.dataset import Dataset, Truth
    from fpmtools.metrics import AllInFocus, Match, RingCorrelation
    from fpmtools.noise import Noise
    from fpmtools.reconstruction import Reconstruction

NOISELESS = 3e-4  # noise of a pixel over its light: a hundred exposures of a full camera have more

Solve = Callable[["Dataset"], "Reconstruction"]

_SSIM = ("Z. Wang et al., IEEE Trans. Image Process. 13, 600 (2004), doi:10.1109/TIP.2003.819861",)
_RING = ("M. van Heel, M. Schatz, J. Struct. Biol. 151, 250 (2005), doi:10.1016/j.jsb.2005.05.009",)
_FOCUS = ("F. Groen, I. Young, G. Ligthart, Cytometry 6, 81 (1985), doi:10.1002/cyto.990060202",)


def _record(name: str, summary: str, unit: str = "", better: str = "", **rest: Any) -> MetricRecord:
    return MetricRecord(
        name=name, summary=summary, unit=unit, better=better, measure=f"fpmtools.evaluation.measures:{name}", **rest
    )


_WITH_TRUTH = (
    _record("psnr", "Amplitude: peak signal-to-noise ratio over the truth's range", "dB", "higher", label="PSNR",
            rank=30, spread=True),
    _record("ssim", "Amplitude: structural similarity, 7 × 7 uniform windows", "", "higher", label="SSIM", rank=31,
            spread=True, references=_SSIM),
    _record("rmse", "Amplitude: root mean square error", "", "lower", label="RMSE", rank=32),
    _record("relative_l2", "Amplitude: squared error over the truth's squares", "", "lower", label="relative L2",
            rank=33),
    _record("phase_rmse_rad", "Phase: weighted rms error after piston removal", "rad", "lower", label="phase RMSE",
            rank=34),
    _record("truth_resolution_um", "Period at which result and truth stop agreeing: ring correlation below 1/2", "µm",
            "lower", label="resolution", rank=35, references=_RING),
    _record("ssim_gaussian", "Amplitude: structural similarity, Gaussian windows of σ = 1.5 pixels", "", "higher",
            label="SSIM, Gaussian", references=_SSIM),
    _record("complex_nrmse", "Complex field: relative root mean square error after one complex gain", "", "lower",
            label="complex NRMSE"),
    _record("complex_nrmse_detilted", "The same after one complex gain and tilt removal", "", "lower",
            label="complex NRMSE, detilted"),
    _record("phase_rmse_detilted_rad", "Phase: weighted rms error after piston and tilt removal", "rad", "lower",
            label="phase RMSE, detilted"),
    _record("in_band_db", "Complex field: signal over error inside the recoverable band", "dB", "higher",
            label="in band"),
    _record("focus_mse", "All-in-focus amplitude by normal variance: mean squared error", "", "lower",
            label="focus MSE", references=_FOCUS),
    _record("focus_light_field_mse", "All-in-focus amplitude by light-field weighting: mean squared error", "",
            "lower", label="focus MSE, light field"),
    _record("depth_rmse_um", "Depth map by normal variance: rms error where the sample has detail", "µm", "lower",
            label="depth RMSE"),
)  # fmt: skip
_WITHOUT_TRUTH = (
    _record("ring_resolution_um", "Period at which two solves of half the LEDs each stop agreeing (half-bit curve)",
            "µm", "lower", label="half-data resolution", rank=40, cost="solves", references=_RING),
    _record("held_out", "Relative amplitude error of predicted images of LEDs that a second solve did not see", "",
            "lower", label="held-out error", rank=41, spread=True, cost="solves"),
    _record("chi2", "Squared error of the predicted intensities over what noise makes, mean over the LEDs; 1 is right",
            "", "", label="χ²", rank=42),
    _record("chi2_bright", "The same of the bright-field LEDs", label="χ², bright", rank=108),
    _record("chi2_dark", "The same of the dark-field LEDs", label="χ², dark", rank=109),
    _record("residual", "Squared error of the predicted amplitudes over the measured squares, mean over the LEDs; "
            "amplitudes are square roots of the images as they are, at their own scale", "", "lower",
            label="residual of amplitudes", rank=110),
    _record("residual_bright", "The same of the bright-field LEDs", "", "lower", label="residual, bright", rank=111),
    _record("residual_dark", "The same of the dark-field LEDs", "", "lower", label="residual, dark", rank=112),
    _record("stored_bytes", "Size of the saved arrays", "bytes", "lower"),
    _record("bytes_per_plane", "Size of the saved arrays over the planes", "bytes", "lower"),
    _record("ratio_dense", "Times smaller than the planes' amplitude and phase as float32", "", "higher"),
    _record("ratio_compressed", "Times smaller than the same, losslessly compressed", "", "higher"),
    _record("ratio_band_limited", "Times smaller than the planes' spectra in the synthetic aperture, 16 bits a number",
            "", "higher"),
)  # fmt: skip


@registry.hookimpl
def fpmtools_metrics() -> list[MetricRecord]:
    """Announce the built-in metrics."""
    return [*(dataclasses.replace(record, needs_truth=True) for record in _WITH_TRUTH), *_WITHOUT_TRUTH]


@dataclass(frozen=True)
class Case:
    """What a metric is given. What several metrics need is computed once, when first asked for.

    ``solve_again`` turns part of the data set into a reconstruction, by the solver that made this one; None if it is
    not to run. ``z_um`` are the planes that the reconstruction stands for, None for as many as lose nothing.
    """

    reconstruction: Reconstruction
    dataset: Dataset
    solve_again: Solve | None = None
    z_um: tuple[float, ...] | None = None

    @property
    def truth(self) -> Truth:
        """The data set's; :class:`DataError` when it has none."""
        if self.dataset.truth is None:
            raise DataError(f"{self.dataset.name}: no truth to compare with; only simulated data have one")
        return self.dataset.truth

    @property
    def solve(self) -> Solve:
        """``solve_again``; :class:`OptionError` when there is none."""
        if self.solve_again is None:
            raise OptionError("this metric runs the solver again: give evaluate() a solver")
        return self.solve_again

    @functools.cached_property
    def planes_um(self) -> tuple[float, ...]:
        """``z_um``, or planes over the reconstructed range at most half a recovered depth of field apart."""
        from fpmtools import metrics

        return metrics.planes_needed_um(self.reconstruction, self.dataset) if self.z_um is None else self.z_um

    @functools.cached_property
    def matched(self) -> Match:
        """See :func:`fpmtools.metrics.match`."""
        from fpmtools import metrics

        return metrics.match(self.reconstruction, self.dataset)

    @functools.cached_property
    def scored(self) -> dict[str, Any]:
        """See :func:`fpmtools.metrics.score`."""
        from fpmtools import metrics

        return metrics.score(self.reconstruction, self.dataset, matched=self.matched)

    @functools.cached_property
    def rings_with_truth(self) -> RingCorrelation:
        """Ring correlation of the truth and the result at each pixel's own depth, to the synthetic aperture's edge."""
        from fpmtools import metrics

        found, optics = self.matched, self.dataset.optics
        cutoff = optics.synthetic_na(self.dataset.na) / optics.wavelength_um
        return metrics.ring_correlation(found.truth, found.field, (found.pixel_um, found.pixel_um), cutoff=cutoff)

    @functools.cached_property
    def rings_of_halves(self) -> RingCorrelation:
        """See :func:`fpmtools.metrics.half_data_correlation`."""
        from fpmtools import metrics

        return metrics.half_data_correlation(self.dataset, self.solve)

    @functools.cached_property
    def residual(self) -> dict[str, Any]:
        """See :func:`fpmtools.metrics.residual`; χ² is by the noise that the images have."""
        from fpmtools import metrics

        return metrics.residual(self.reconstruction, self.dataset, variance=None if self.clean else self.noise.variance)

    @functools.cached_property
    def noise(self) -> Noise:
        """See :func:`fpmtools.noise.measure`."""
        from fpmtools import noise

        return noise.measure(self.dataset)

    @functools.cached_property
    def clean(self) -> bool:
        """Whether the brightest image has less noise than any camera makes: then nothing is measured by it."""
        import numpy as np

        brightest = int(self.dataset.images.means.argmax())
        mean = self.dataset.images.means[brightest]
        return float(np.sqrt(self.noise.variance(brightest, mean))) < NOISELESS * float(mean)

    @functools.cached_property
    def stored(self) -> dict[str, float]:
        """See :func:`fpmtools.metrics.sizes`."""
        from fpmtools import metrics

        return metrics.sizes(self.reconstruction, self.dataset, self.planes_um)

    def in_focus(self, method: str) -> AllInFocus:
        """See :func:`fpmtools.metrics.all_in_focus`, which is called once for each method."""
        from fpmtools import metrics

        known: dict[str, AllInFocus] = self.__dict__.setdefault("_in_focus", {})
        if method not in known:
            known[method] = metrics.all_in_focus(self.reconstruction, self.planes_um, method=method)  # type: ignore[arg-type]
        return known[method]


def evaluate(
    reconstruction: Reconstruction,
    dataset: Dataset,
    names: Iterable[str] | None = None,
    *,
    solver: str | Solve | None = None,
    z_um: Sequence[float] | None = None,
    threads: int | None = None,
) -> dict[str, float]:
    """Numbers about a reconstruction of a data set, by metric.

    Parameters
    ----------
    reconstruction
        Of this data set, by any solver.
    dataset
        What it was made from; with a truth, more can be computed.
    names
        Metrics to compute, in this order. Default: all cheap ones that the data set allows, and with ``solver`` those
        that solve again as well; what then cannot be computed is left out.
    solver
        For metrics of cost "solves": a solver's name (with its default options), or a function that turns a data set
        into a reconstruction.
    z_um
        Planes that the reconstruction stands for, for storage and focus; default: as many as lose nothing.
    threads
        CPU threads meanwhile; default: as many as torch has.

    Returns
    -------
    dict
        Name → value, in dB, rad, µm or bytes as the metric's record says; a metric that has no meaning here (a
        dark-field residual without dark-field LEDs) is left out.

    Raises
    ------
    OptionError
        An unknown name, or a metric asked for by name that needs a ``solver``.
    DataError
        A metric asked for by name that needs a truth.
    SolverError
        A metric asked for by name that failed, or a solver that did.

    Examples
    --------
    >>> data = fpmtools.simulate("thin", image_shape=(32, 48))
    >>> result = fpmtools.reconstruct(data, "ap", options={"sweeps": 5})
    >>> found = fpmtools.evaluate(result, data, ["psnr", "residual"])
    >>> found["psnr"] > 30, found["residual"] < 0.01
    (True, True)
    >>> fpmtools.evaluate(data, result)
    Traceback (most recent call last):
    ...
    fpmtools.errors.OptionError: evaluate: the first argument must be a Reconstruction, got a Dataset; the...
    """
    from fpmtools.dataset import Dataset, expect_dataset
    from fpmtools.reconstruction import Reconstruction
    from fpmtools.threads import limited

    given: object = reconstruction
    swapped = "the reconstruction comes first, the data second" if isinstance(given, Dataset) else ""
    expect(reconstruction, Reconstruction, "evaluate: the first argument", "a Reconstruction", swapped)
    expect_dataset(dataset, "evaluate: the second argument")
    with limited(threads):
        return _evaluate(reconstruction, dataset, names, solver, z_um)


def _evaluate(
    reconstruction: Reconstruction,
    dataset: Dataset,
    names: Iterable[str] | None,
    solver: str | Solve | None,
    z_um: Sequence[float] | None,
) -> dict[str, float]:
    from fpmtools.dataset import as_planes

    planes = None if z_um is None else as_planes(z_um)
    expect(names or (), () if isinstance(names, str) else Iterable, "evaluate: names", "a list of metrics")
    case = Case(reconstruction, dataset, _again(solver, dataset, planes), planes)
    if names is not None:
        wanted = list(names)
    else:
        wanted = [metric.record.name for metric in registry.metrics() if _applies(metric.record, case)]
    found = {name: registry.metric_function(name)(case) for name in wanted}
    return {name: value for name, value in found.items() if value is not None}


def _applies(record: MetricRecord, case: Case) -> bool:
    return (case.dataset.truth is not None or not record.needs_truth) and (
        record.cost == "cheap" or case.solve_again is not None
    )


def _again(solver: str | Solve | None, dataset: Dataset, z_um: tuple[float, ...] | None) -> Solve | None:
    if not isinstance(solver, str):
        return solver
    from fpmtools import engine

    # Part of the LEDs has another depth of field, but its result must have the same planes.
    planes = dataset.planes_um if z_um is None else z_um
    return lambda part: engine.reconstruct(part, solver, z_um=planes, progress=False)
