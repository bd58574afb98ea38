"""``fpmtools evaluate``: a saved result against a known truth by the numbers of ``run`` and ``compare``, or by bars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fpmtools.cli._inputs import force_option, integers, json_option
from fpmtools.cli._output import claim_file, echo, print_json
from fpmtools.errors import DataError, OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fpmtools.dataset import Dataset
    from fpmtools.known import KnownSample
    from fpmtools.reconstruction import Reconstruction

NUMBERS = ("psnr", "ssim", "rmse", "relative_l2")


class _Pair(NamedTuple):
    """A truth, the result beside it (complex, or both real), the gain that brings one to the other, and in words what
    is compared."""

    truth: NDArray[Any]
    field: NDArray[Any]
    gain: float
    compared: str


@click.command(short_help="Judge a result by a known truth or target.")
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    "truth_file",
    type=click.Path(path_type=Path),
    help="A simulated data set or a comparison's truth/NAME (.safetensors), or one image: .npy (amplitude or complex "
    "field), .tiff (amplitude).",
)
@click.option(
    "--bars",
    "bars_file",
    type=click.Path(path_type=Path),
    metavar="auto|FILE",
    help="In place of a truth, three-bar elements of a target: all that are found, or those of a CSV or JSON with "
    "x_um, y_um, and group, element (USAF), per_mm or pitch_um; where needed angle_deg, label.",
)
@click.option("--phase", is_flag=True, help="With --bars: they are of phase, not of intensity.")
@click.option(
    "--z", "z_um", type=float, help="z of an image truth, or of bars, in µm (may be left out where the result has one)."
)
@click.option("--roi", type=integers("Y,X,H,W"), metavar="Y,X,H,W", help="Region of the data set that was solved.")
@click.option(
    "--customary",
    is_flag=True,
    help="As is customary for FPM-INR: over the prediction's range, and against the truth as it is, beyond what the "
    "LEDs can show.",
)
@click.option("--no-gain", is_flag=True, help="Compare as it is, without the one gain that fits the truth best.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.png", help="The figure (default: beside RESULT).")
@force_option
@json_option
def evaluate(
    result: Path,
    truth_file: Path | None,
    bars_file: Path | None,
    phase: bool,
    z_um: float | None,
    roi: tuple[int, int, int, int] | None,
    customary: bool,
    no_gain: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """PSNR, SSIM, RMSE and relative L2 of RESULT's amplitude, with observed, predicted and difference in one figure; or
    the contrast of a target's bars against their frequency, beside what the optics pass.
    """
    if (truth_file is None) == (bars_file is None):
        raise OptionError("give either --truth or --bars")
    name = "evaluation.png" if bars_file is None else "bars.png"
    figure_file = out or (result if result.is_dir() else result.parent) / name
    if figure_file.suffix.lower() != ".png":
        raise OptionError(f"{figure_file}: the figure's name must end in .png")
    claim_file(figure_file, force)
    if truth_file is None:
        from fpmtools.cli import _bars

        assert bars_file is not None
        _bars.judge(result, bars_file, z_um, phase, figure_file, as_json)
        return
    import numpy as np

    from fpmtools import columns, metrics, registry
    from fpmtools.report import figures
    from fpmtools.results import open_result

    reconstruction = open_result(result)
    if truth_file.suffix.lower() == ".safetensors":
        pair = _with_sample(reconstruction, _sample(truth_file, roi), customary)
    else:
        pair = _with_image(reconstruction, _image(truth_file), z_um)
    gain = 1.0 if no_gain else pair.gain
    observed, predicted = np.abs(pair.truth), gain * np.abs(pair.field)
    whose = "predicted" if customary else "truth"
    quality = metrics.quality(observed, predicted, data_range=whose)  # type: ignore[arg-type]
    known = columns.of(supplied.record for supplied in registry.built_in_metrics())
    shown = {known[key].label: f"{known[key].text(quality[key], 4)} {known[key].unit}".strip() for key in NUMBERS}
    extent_um = reconstruction.grid.extent_um
    figures.save(figures.evaluation(observed, predicted, shown, extent_um=extent_um), figure_file)
    about = {"data_range_of": whose, "gain": gain, "compared": pair.compared, "figure": str(figure_file)}
    if as_json:
        print_json({**quality, **about})
        return
    range_of = f"data range {quality['data_range']:.4g} ({whose})"
    shown |= {"compared": f"{pair.compared}; {range_of}; gain {gain:.4g}", "figure": str(figure_file)}
    for label, text in shown.items():
        echo(f"{label:<12} {text}")


def _sample(path: Path, roi: tuple[int, int, int, int] | None) -> Dataset | KnownSample:
    from fpmtools import known, storage
    from fpmtools.formats import native

    if storage.kind_of(path) == known.KIND:
        if roi is not None:
            raise OptionError("--roi goes with a data set; a comparison's truth is already that of its region")
        return known.read(path)
    dataset = native.read(path)
    if dataset.truth is None:
        raise DataError(f"{path}: this data set has no truth; only simulated ones have")
    return dataset if roi is None else dataset.crop(*roi)


def _with_sample(reconstruction: Reconstruction, sample: Dataset | KnownSample, customary: bool) -> _Pair:
    import numpy as np

    from fpmtools import metrics

    extent_um = np.array(sample.image_shape) * sample.optics.pixel_um
    if not np.allclose(extent_um, reconstruction.grid.extent_um, rtol=1e-4):
        have, there = (" × ".join(f"{length:.4g}" for length in e) for e in (reconstruction.grid.extent_um, extent_um))
        raise DataError(f"the result covers {have} µm and the truth of {sample.name} {there} µm: say which with --roi")
    if not customary:
        found = metrics.match(reconstruction, sample)
        compared = "amplitude, each pixel at its true depth, with what of the truth the LEDs can show"
        return _Pair(found.truth, found.field, abs(found.gain), compared)
    assert sample.truth is not None
    field = metrics.composite(reconstruction, sample.truth.depth_um)
    gain = abs(metrics.align(sample.truth.field, field))
    return _Pair(sample.truth.field, field, gain, "amplitude, each pixel at its true depth, with the truth as it is")


def _with_image(reconstruction: Reconstruction, truth: NDArray[Any], z_um: float | None) -> _Pair:
    import numpy as np

    from fpmtools import metrics

    low, high = reconstruction.grid.z_range
    if z_um is None:
        if low != high:
            raise OptionError(f"the result covers z from {low:g} to {high:g} µm: say which plane the truth is with --z")
        z_um = low
    field: NDArray[Any] = reconstruction.field(z_um, truth.shape)
    field = field if np.iscomplexobj(truth) else np.abs(field)
    return _Pair(truth, field, abs(metrics.align(truth, field)), f"amplitude at z = {z_um:g} µm")


def _image(path: Path) -> NDArray[Any]:
    import numpy as np

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in {".npy", ".tif", ".tiff"}:
        raise DataError(f"{path}: a truth is a .safetensors data set, or an image in .npy or .tiff")
    try:
        if suffix == ".npy":
            image = np.asarray(np.load(path, allow_pickle=False))
        else:
            import tifffile

            image = np.asarray(tifffile.imread(path))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if image.ndim != 2 or image.dtype.kind not in "uifc":
        raise DataError(f"{path}: a truth is one image [y, x] of numbers, this is {image.dtype} of shape {image.shape}")
    if not np.isfinite(image).all():
        raise DataError(f"{path}: has values that are not finite")
    return image if np.iscomplexobj(image) else image.astype(np.float64)
