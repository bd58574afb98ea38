"""``fpmtools simulate``: a data set with a known truth, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fpmtools.cli._inputs import flag, force_option, given, integers, json_option, optics_value
from fpmtools.cli._output import claim_file, describe, print_description, print_json
from fpmtools.errors import OptionError


@click.command(short_help="Write a simulated data set.")
@click.option(
    "--sample", default="tilted", show_default=True, help="tilted, thin, phase, bars, siemens, layers or thick."
)
@click.option(
    "--shape", type=integers("H,W"), metavar="H,W", default="64,64", show_default=True, help="Pixels of one image."
)
@click.option(
    "--upsample", type=click.IntRange(min=1), default=2, show_default=True, help="Truth pixels per image pixel."
)
@click.option(
    "--leds", default="rings", show_default=True, help="rings (68 bright-field LEDs) or grid (with dark field)."
)
@click.option("--tilt", "tilt_um", type=float, default=10.0, show_default=True, help="Half the depth of 'tilted', µm.")
@click.option("--defocus", "defocus_um", type=float, default=0.0, show_default=True, help="Depth of the centre, µm.")
@click.option("--photons", type=float, help="Mean photons per bright-field pixel (default: no noise).")
@click.option("--read-noise", type=float, default=0.0, show_default=True, help="Read noise in photons.")
@click.option("--on-grid", is_flag=True, help="Move each LED to the Fourier grid.")
@click.option(
    "--optics",
    type=optics_value,
    metavar="KEY=VALUE",
    multiple=True,
    help="A number of the microscope, such as na=0.1.",
)
@click.option("--slide", is_flag=True, help="A whole slide, in a folder: angles, pupil and focus change over it.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File, or folder of a slide (default: simulated.safetensors, simulated_slide).",
)
@force_option
@json_option
def simulate(
    sample: str,
    shape: tuple[int, int],
    upsample: int,
    leds: str,
    tilt_um: float,
    defocus_um: float,
    photons: float | None,
    read_noise: float,
    on_grid: bool,
    optics: tuple[tuple[str, float], ...],
    slide: bool,
    seed: int,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a simulated sample whose truth is known at every depth."""
    if slide:
        chosen = {"shape": shape, "upsample": upsample, "tilt_um": tilt_um, "photons": photons, "seed": seed}
        _slide(out or Path("simulated_slide"), chosen, dict(optics), force, as_json)
        return
    out = out or Path("simulated.safetensors")
    claim_file(out, force)
    from fpmtools import simulation
    from fpmtools.formats import native

    dataset = simulation.simulate(
        sample,
        image_shape=shape,
        upsample=upsample,
        leds=leds,
        optics=dict(optics) or None,
        tilt_um=tilt_um,
        defocus_um=defocus_um,
        on_grid=on_grid,
        photons=photons,
        read_noise=read_noise,
        seed=seed,
    )
    native.save(dataset, out)
    about = {"file": str(out), **describe(dataset)}
    if as_json:
        print_json(about)
    else:
        print_description(about)


OF_SLIDES = {"shape": "image_shape", "upsample": "upsample", "tilt_um": "tilt_um", "photons": "photons", "seed": "seed"}
ALWAYS = {"slide", "out", "optics", "force", "as_json"}


def _slide(out: Path, chosen: dict[str, Any], optics: dict[str, float], force: bool, as_json: bool) -> None:
    """Write a slide, and say what it is."""
    from fpmtools.formats import load
    from fpmtools.slide import IMAGES, simulate_slide

    said = given()
    if other := [name for name in said if name not in {*OF_SLIDES, *ALWAYS}]:
        raise OptionError(f"{flag(other[0])} is not for a slide")
    asked = {OF_SLIDES[name]: value for name, value in chosen.items() if name in said}
    folder = simulate_slide(out, **asked, optics=optics or None, force=force, progress=not as_json)
    corner = (0, 0, *(min(n, 64) for n in chosen["shape"]))
    about = {"folder": str(folder), **describe(load(folder / IMAGES, config=folder / "microscope.yaml", roi=corner))}
    if as_json:
        print_json(about)
    else:
        print_description(about)
