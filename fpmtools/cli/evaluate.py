"""``fpmtools evaluate``: a saved result against a known truth, by the customary four metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli._inputs import force_option, json_option
from fpmtools.cli._output import claim_file, print_json
from fpmtools.errors import DataError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fpmtools.reconstruction import Reconstruction

    Image = NDArray[np.floating[Any]]


@click.command(short_help="Judge a result by a known truth.")
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    "truth_file",
    type=click.Path(path_type=Path),
    required=True,
    help="A simulated data set (.safetensors), or one image: .npy (amplitude or complex field), .tiff (amplitude).",
)
@click.option("--z", "z_um", type=float, help="z of an image truth in µm (may be left out where the result has one).")
@click.option(
    "--data-range",
    type=click.Choice(["predicted", "truth"]),
    default="predicted",
    show_default=True,
    help="Whose maximum − minimum is the full range in PSNR and SSIM.",
)
@click.option("--no-gain", is_flag=True, help="Compare as it is, without the one gain that fits the truth best.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.png", help="The figure (default: beside RESULT).")
@force_option
@json_option
def evaluate(
    result: Path,
    truth_file: Path,
    z_um: float | None,
    data_range: str,
    no_gain: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """PSNR, SSIM, RMSE and relative L2 of RESULT's amplitude, with observed, predicted and difference in one figure."""
    figure_file = out or (result if result.is_dir() else result.parent) / "evaluation.png"
    if figure_file.suffix.lower() != ".png":
        raise OptionError(f"{figure_file}: the figure's name must end in .png")
    claim_file(figure_file, force)
    from fpmtools import metrics
    from fpmtools.report import figures
    from fpmtools.results import open_result

    reconstruction = open_result(result)
    truth, field, where = _pair(reconstruction, truth_file, z_um)
    import numpy as np

    if not np.iscomplexobj(truth):
        field = np.abs(field)
    gain = 1.0 if no_gain else abs(metrics.align(truth, field))
    observed, predicted = np.abs(truth), gain * np.abs(field)
    quality = metrics.quality(observed, predicted, data_range=data_range)  # type: ignore[arg-type]
    figures.save(figures.evaluation(observed, predicted, quality, extent_um=reconstruction.grid.extent_um), figure_file)
    about = {**quality, "data_range_of": data_range, "gain": gain, "compared": where, "figure": str(figure_file)}
    if as_json:
        print_json(about)
        return
    click.echo(f"PSNR         {quality['psnr']:.2f} dB")
    click.echo(f"SSIM         {quality['ssim']:.4f}")
    click.echo(f"RMSE         {quality['rmse']:.4g}")
    click.echo(f"relative L2  {quality['relative_l2']:.4g}")
    click.echo(f"compared     {where}; data range {quality['data_range']:.4g} ({data_range}); gain {gain:.4g}")
    click.echo(f"figure       {figure_file}")


def _pair(
    reconstruction: Reconstruction, path: Path, z_um: float | None
) -> tuple[NDArray[Any], NDArray[np.complex64], str]:
    """The truth (complex field or real amplitude), the field to compare with it, and what was compared in words."""
    from fpmtools import metrics

    if path.suffix.lower() == ".safetensors":
        from fpmtools.formats import native

        dataset = native.read(path)
        if dataset.truth is None:
            raise DataError(f"{path}: this data set has no truth; only simulated ones have")
        field = metrics.composite(reconstruction, dataset.truth.depth_um)
        return dataset.truth.field, field, "amplitude, each pixel at its true depth"
    truth = _image(path)
    low, high = reconstruction.grid.z_range
    if z_um is None:
        if low != high:
            raise OptionError(f"the result covers z from {low:g} to {high:g} µm: say which plane the truth is with --z")
        z_um = low
    return truth, reconstruction.field(z_um, truth.shape), f"amplitude at z = {z_um:g} µm"


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
