"""``fpmtools render``: the field of a saved result at any z, without solving again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fpmtools.cli._inputs import force_option, integers, json_option, one_plane
from fpmtools.cli._output import claim_file, echo, print_json
from fpmtools.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES = (".npy", ".tiff", ".tif", ".png")


@click.command(short_help="Write a result's field at any z.")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--z", "z_um", type=float, help="z in µm (may be left out where the result has only one).")
@click.option(
    "--shape", type=integers("H,W"), metavar="H,W", help="Pixels of the output (default: the reconstruction's)."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=".npy: complex64 [y, x]; .tiff: amplitude and phase, as channels; .png: a figure (default: a .npy beside "
    "RESULT).",
)
@force_option
@json_option
def render(
    result: Path, z_um: float | None, shape: tuple[int, int] | None, out: Path | None, force: bool, as_json: bool
) -> None:
    """Write the field at one z of RESULT, a run's folder or its reconstruction.safetensors."""
    if out is not None:
        if out.suffix.lower() not in SUFFIXES:
            raise OptionError(f"{out}: the file name must end in one of {', '.join(SUFFIXES)}")
        claim_file(out, force)
    if shape is not None and min(shape) < 1:
        raise OptionError(f"--shape {shape[0]},{shape[1]}: both must be at least 1")
    from fpmtools.results import open_result

    reconstruction = open_result(result)
    z_um = one_plane(reconstruction, result) if z_um is None else z_um
    if out is None:
        out = (result if result.is_dir() else result.parent) / f"field_z{z_um:+g}um.npy"
        claim_file(out, force)
    field = reconstruction.field(z_um, shape)
    _write(out, field, z_um, reconstruction.grid.extent_um)
    about = {
        "file": str(out),
        "z_um": z_um,
        "shape": list(field.shape),
        "extent_um": list(reconstruction.grid.extent_um),
    }
    if as_json:
        print_json(about)
    else:
        echo(f"{out}: {field.shape[0]} × {field.shape[1]} at z = {z_um:g} µm")


def _write(path: Path, field: NDArray[np.complex64], z_um: float, extent_um: tuple[float, float]) -> None:
    import numpy as np

    from fpmtools import storage

    suffix = path.suffix.lower()
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, field, allow_pickle=False)
        storage.write_bytes(path, buffer.getvalue())
    elif suffix == ".png":
        from fpmtools.report import figures

        figures.save(figures.amplitude_phase(field, extent_um, title=f"z = {z_um:g} µm"), path)
    else:
        from fpmtools.report import contrast, tiff

        pages = {"amplitude": np.abs(field), "phase": contrast.flat_phase(field)}
        pixel_um = (extent_um[0] / field.shape[0], extent_um[1] / field.shape[1])
        content = f"at {contrast.z_label(z_um)}; channel 1: {tiff.AMPLITUDE}; channel 2: {tiff.PHASE}"
        tiff.write_channels(path, pages, pixel_um, content)
