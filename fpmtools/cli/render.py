"""``fpmtools render``: a saved result at any z in the files of other programs, without solving again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fpmtools.cli._inputs import force_option, integers, json_option, one_plane, planes, quiet_option
from fpmtools.cli._output import claim_file, echo, print_json
from fpmtools.cli._progress import Progress
from fpmtools.errors import OptionError, OutputError, unknown

if TYPE_CHECKING:
    from fpmtools.formats.volume import Volume
    from fpmtools.formats.writing import Writer
    from fpmtools.reconstruction import Reconstruction


@click.command(short_help="Write a result at any z, as TIFF, OME-TIFF, OME-Zarr, NumPy, PNG, GIF.")
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--z",
    "z_um",
    type=planes,
    metavar="MIN:MAX:COUNT|Z,…",
    help="Planes in µm, or one z (may be left out where the result has only one).",
)
@click.option(
    "--shape", type=integers("H,W"), metavar="H,W", help="Pixels of the output (default: the reconstruction's)."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its end says the format, such as .tiff (ImageJ), .ome.tiff, .ome.zarr, .npy, .npz, .png, .gif (default: a "
    ".npy beside RESULT).",
)
@click.option("--format", "format_name", metavar="NAME", help="Format, in place of the one that FILE's end says.")
@click.option(
    "--channels",
    type=lambda text: [part.strip() for part in text.split(",")],
    metavar="NAME,…",
    help="Of formats that hold real numbers: amplitude, phase (rad), path (nm), intensity (default: amplitude,phase; "
    "intensity of several colours).",
)
@click.option("--channel", metavar="NAME", help="One colour of a result that has several.")
@quiet_option
@force_option
@json_option
def render(
    result: Path,
    z_um: tuple[float, ...] | None,
    shape: tuple[int, int] | None,
    out: Path | None,
    format_name: str | None,
    channels: list[str] | None,
    channel: str | None,
    quiet: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write RESULT, a run's folder or its reconstruction.safetensors, at one z or several."""
    from fpmtools.formats import writing

    if shape is not None and min(shape) < 1:
        raise OptionError(f"--shape {shape[0]},{shape[1]}: both must be at least 1")
    if out is not None:
        writer = writing.writer_for(out, format_name)
        _claim(writer, out, force)
    from fpmtools.formats.volume import Volume
    from fpmtools.results import open_result

    reconstruction = open_result(result)
    if channel is not None:
        reconstruction = _one_colour(reconstruction, channel)
    z_um = (one_plane(reconstruction, result),) if z_um is None else z_um
    if out is None:
        beside = result if result.is_dir() else result.parent
        where = f"z{z_um[0]:+g}um" if len(z_um) == 1 else f"z{z_um[0]:+g}to{z_um[-1]:+g}um"
        writer = writing.writer_for(Path("field.npy"), format_name)
        out = beside / f"field_{where}{writer.record.suffixes[0] if writer.record.suffixes else ''}"
        _claim(writer, out, force)
    writing.check(writer, out, len(z_um), channels)
    called = os.path.basename(os.path.abspath(result if result.is_dir() else result.parent))
    volume = Volume.of(reconstruction, z_um, shape, channels, called)
    shown = Progress(out.name, style="none" if quiet else "auto")
    try:
        told = writing.write(writer, out, volume, shown)
    finally:
        shown.finish()
    about = _describe(writer, volume, out, told)
    if as_json:
        print_json(about)
        return
    count = f"{len(z_um)} of " if len(z_um) > 1 else ""
    height, width = volume.shape
    echo(f"{out}: {count}{height} × {width} at z = {_depths(z_um)} µm, {_held(writer, volume)}")
    for line in told:
        echo(f"note: {line}")


def _one_colour(reconstruction: Reconstruction, name: str) -> Reconstruction:
    colours = reconstruction.components()
    if len(colours) == 1:
        raise OptionError(f"--channel {name}: the result has one colour; leave it out")
    if name not in colours:
        raise unknown("channel", name, colours)
    return colours[name]


def _claim(writer: Writer, out: Path, force: bool) -> None:
    from fpmtools.formats import writing

    if not (writer.record.folder and out.is_dir()):
        claim_file(out, force)
    elif force:
        writing.claim(writer, out, force)
    else:
        raise OutputError(f"{out} exists; use --force to replace it")


def _depths(z_um: tuple[float, ...]) -> str:
    return f"{z_um[0]:g}" if len(z_um) == 1 else f"{z_um[0]:g} … {z_um[-1]:g}"


def _held(writer: Writer, volume: Volume) -> str:
    """What of the field is in the file."""
    if writer.record.holds == "complex":
        return "the complex field"
    if writer.record.holds == "picture":
        return "a picture of amplitude and phase" if volume.picture is None else "a picture in colour"
    return f"{', '.join(channel.label for channel in volume.channels)}"


def _describe(writer: Writer, volume: Volume, out: Path, told: list[str]) -> dict[str, Any]:
    real = writer.record.holds == "real"
    return {
        "file": str(out),
        "format": writer.record.name,
        "holds": writer.record.holds,
        "channels": {channel.name: channel.content for channel in volume.channels} if real else None,
        "z_um": volume.z_um[0] if len(volume.z_um) == 1 else list(volume.z_um),
        "shape": list(volume.shape),
        "extent_um": list(volume.extent_um),
        "notes": told,
    }
